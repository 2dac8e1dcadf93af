//! Requests that are answered here: redirects and direct responses.

use super::forward::decode_full_rewrite;
use super::place::{Decoded, Place, fields};
use super::{text, value};
use envoy_types::pb::envoy::config::route::v3 as proto;
use model::route::{DirectResponse, PathRewrite, Redirect};

pub(crate) fn decode_redirect(place: &Place<'_>, redirect: &proto::RedirectAction) -> Decoded<Redirect> {
    use proto::redirect_action::{PathRewriteSpecifier as Path, SchemeRewriteSpecifier as Scheme};
    fields!(place, redirect => proto::RedirectAction {
        honoured: host_redirect, port_redirect, response_code, strip_query, scheme_rewrite_specifier,
            path_rewrite_specifier;
        ignored: ;
        refused: ;
    });
    let scheme = match scheme_rewrite_specifier {
        Some(Scheme::HttpsRedirect(true)) => Some("https".to_owned()),
        Some(Scheme::SchemeRedirect(scheme)) => Some(scheme.clone()),
        Some(Scheme::HttpsRedirect(false)) | None => None,
    };
    let path = match path_rewrite_specifier {
        None => None,
        Some(Path::PathRedirect(path)) => Some(PathRewrite::Full(path.clone())),
        Some(Path::PrefixRewrite(prefix)) => Some(PathRewrite::Prefix(prefix.clone())),
        Some(Path::RegexRewrite(rewrite)) => {
            Some(PathRewrite::Regex(text::decode_substitution(&place.field("regex_rewrite"), rewrite)?))
        }
        Some(Path::PathRewrite(path)) => Some(decode_full_rewrite(&place.field("path_rewrite"), path)?),
    };
    let status = REDIRECT_STATUSES.iter().find(|(_, code)| *code as i32 == *response_code);
    let port = value::decode_port(&place.field("port_redirect"), *port_redirect)?;
    Ok(Redirect {
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.clone()),
        port: (port != 0).then_some(port),
        path,
        status: match status {
            Some((status, _)) => *status,
            None => {
                let place = place.field("response_code");
                return Err(place.unsupported(format_args!("response code {response_code}")));
            }
        },
        strip_query: *strip_query,
    })
}

const REDIRECT_STATUSES: [(u16, proto::redirect_action::RedirectResponseCode); 5] = {
    use proto::redirect_action::RedirectResponseCode as Code;
    [
        (301, Code::MovedPermanently),
        (302, Code::Found),
        (303, Code::SeeOther),
        (307, Code::TemporaryRedirect),
        (308, Code::PermanentRedirect),
    ]
};

pub(crate) fn encode_redirect(redirect: &Redirect) -> proto::RedirectAction {
    use proto::redirect_action::{PathRewriteSpecifier as Path, SchemeRewriteSpecifier as Scheme};
    let code = REDIRECT_STATUSES.iter().find(|(status, _)| *status == redirect.status);
    proto::RedirectAction {
        host_redirect: redirect.host.clone().unwrap_or_default(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        response_code: code.map_or(0, |(_, code)| *code as i32),
        strip_query: redirect.strip_query,
        scheme_rewrite_specifier: redirect.scheme.as_ref().map(|scheme| match scheme.as_str() {
            "https" => Scheme::HttpsRedirect(true),
            scheme => Scheme::SchemeRedirect(scheme.to_owned()),
        }),
        path_rewrite_specifier: redirect.path.as_ref().map(|path| match path {
            PathRewrite::Full(path) => Path::PathRedirect(path.clone()),
            PathRewrite::Prefix(prefix) => Path::PrefixRewrite(prefix.clone()),
            PathRewrite::Regex(rewrite) => Path::RegexRewrite(text::encode_substitution(rewrite)),
            PathRewrite::Formatted(template) => Path::PathRewrite(template.source().to_owned()),
            // Redirects have no such rewrite.
            PathRewrite::Template(rewrite) => Path::PathRedirect(rewrite.source().to_owned()),
        }),
    }
}

pub(crate) fn decode_response(
    place: &Place<'_>,
    response: &proto::DirectResponseAction,
) -> Decoded<DirectResponse> {
    fields!(place, response => proto::DirectResponseAction {
        honoured: status, body;
        ignored: ;
        refused: body_format;
    });
    let status = match u16::try_from(*status) {
        Ok(status @ 200..=599) => status,
        _ => return Err(place.field("status").error(format_args!("{status} is no status from 200 to 599"))),
    };
    Ok(DirectResponse { status, body: value::decode_data(&place.field("body"), body)?.unwrap_or_default() })
}

pub(crate) fn encode_response(response: &DirectResponse) -> proto::DirectResponseAction {
    proto::DirectResponseAction {
        status: response.status.into(),
        body: if response.body.is_empty() { None } else { value::encode_data(&response.body) },
        ..Default::default()
    }
}
