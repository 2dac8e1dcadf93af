//! Who is at the other end of a stream, and how that was proved: by a client certificate, by a join token, or not at all.

use crate::join_tokens::JoinTokenFile;
use crate::node::ProxyNode;
use ca::service::PeerChain;
use identity::spiffe::SpiffeId;
use std::time::SystemTime;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

/// What a stream's client proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is this workload.
    Identity(SpiffeId),
    /// Nothing, for this reason.
    Nothing(String),
}

impl Proof {
    /// Reads the client certificate, else the join token, of a request.
    pub(super) fn of(
        extensions: &Extensions,
        metadata: &MetadataMap,
        tokens: &JoinTokenFile,
        now: SystemTime,
    ) -> Self {
        if let Some(chain) = PeerChain::of(extensions).filter(|chain| !chain.0.is_empty()) {
            return match chain.spiffe_id() {
                Some(identity) => Self::Identity(identity),
                None => Self::Nothing("its client certificate names no workload of a mesh".to_owned()),
            };
        }
        let Some(header) = metadata.get("authorization") else {
            return Self::Nothing(
                "it shows neither a client certificate nor `authorization: Bearer <join token>`".to_owned(),
            );
        };
        let token = header.to_str().ok().and_then(|value| value.split_once(' '));
        match token {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                match tokens.verify(token.trim(), now) {
                    Ok(identity) => Self::Identity(identity),
                    Err(error) => Self::Nothing(error.to_string()),
                }
            }
            _ => Self::Nothing("its `authorization` is not of the form `Bearer <join token>`".to_owned()),
        }
    }

    /// The identity, provided that `node` does not claim to be someone else.
    pub(super) fn identity_of(&self, node: &ProxyNode) -> Result<&SpiffeId, String> {
        let identity = match self {
            Self::Identity(identity) => identity,
            Self::Nothing(reason) => return Err(reason.clone()),
        };
        let claims = [
            ("namespace", Some(node.namespace.as_str()), identity.namespace()),
            ("service account", node.service_account.as_deref(), identity.service_account()),
        ];
        for (what, claimed, proven) in claims {
            if let Some(claimed) = claimed.filter(|claimed| *claimed != proven) {
                return Err(format!(
                    "the node claims {what} `{}`, its proof is for `{identity}`",
                    claimed.escape_debug()
                ));
            }
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use model::metadata::Fields;

    #[test]
    fn an_identity_counts_only_for_a_node_that_claims_no_other() {
        let node = |account: &str| {
            let metadata = Fields::from([("SERVICE_ACCOUNT".to_owned(), account.into())]);
            ProxyNode::from_node("sidecar~127.0.0.1~a.shop~shop.svc.cluster.local", "", &metadata, "")
                .unwrap()
        };
        let proof = |text: &str| Proof::Identity(text.parse().unwrap());
        assert!(proof("spiffe://cluster.local/ns/shop/sa/web").identity_of(&node("web")).is_ok());
        assert!(proof("spiffe://cluster.local/ns/shop/sa/web").identity_of(&node("")).is_ok(), "no claim");
        let error = proof("spiffe://cluster.local/ns/shop/sa/web").identity_of(&node("db")).unwrap_err();
        assert!(error.contains("service account `db`"), "{error}");
        assert!(proof("spiffe://cluster.local/ns/other/sa/web").identity_of(&node("web")).is_err());
        assert_eq!(Proof::Nothing("why".into()).identity_of(&node("web")), Err("why".into()));
    }
}
