//! Waiting for what a request needs and the proxy was not sent: its virtual host (VHDS), its cluster
//! (`envoy.filters.http.on_demand`). Requests that need the same wait for one answer of the control plane, each for so
//! long at most; what is there costs nothing here.

use super::{Stage, Unrouted};
use crate::failure::Failure;
use crate::local::Local;
use crate::record::RouteTaken;
use crate::request::AnswerBody;
use crate::snapshot::{ClusterState, Need, Snapshot};
use http::Response;
use model::filter::Setting;
use model::on_demand::{DEFAULT_TIMEOUT, host_name};
use model::rewrite::split_authority;
use model::routing::{NoRoute, RouteTable};
use std::sync::Arc;
use std::time::Duration;

/// Longest authority that is asked for: no host name is longer, and a port fits, too.
const LONGEST_AUTHORITY: usize = 262;

impl Stage<'_> {
    /// The name by which the virtual host of a request can be asked for that has none.
    pub(super) fn missing_host(&self, table: &RouteTable, missing: NoRoute) -> Option<String> {
        let config = table.config();
        if missing != NoRoute::UnknownHost || !config.asks_for_hosts {
            return None;
        }
        let authority = match config.ignore_port {
            true => split_authority(&self.head.authority).0,
            false => &self.head.authority,
        };
        let is_host =
            !authority.is_empty() && authority.len() <= LONGEST_AUTHORITY && !authority.contains('/');
        is_host.then(|| host_name(&config.name, &authority.to_ascii_lowercase()))
    }

    /// Waits for the virtual host that a request lacks, and looks for its route once more.
    pub(super) async fn route_again(self, unrouted: Unrouted) -> Response<AnswerBody> {
        let Unrouted { exchange, parts, body, host } = unrouted;
        // In force is all that can be waited for: whether it takes the request is seen then.
        let need = Need::Host(host);
        wait(&self.context.local, &need, DEFAULT_TIMEOUT, |_| None::<()>).await;
        let (snapshot, http) = self.context.current();
        let Self { context, head, refusal, quoted, requoted, grant, .. } = self;
        let stage =
            Stage { context, snapshot: &snapshot, http: &http, head, refusal, quoted, requoted, grant };
        match Box::pin(stage.routed(exchange, parts, body)).await {
            Ok(answer) => answer,
            Err(unrouted) => stage.refuse(unrouted.exchange, Failure::UnknownHost.into()),
        }
    }

    /// Waits for the cluster that a request lacks, where its route has it asked for.
    pub(super) async fn fetch_cluster(&self, taken: &RouteTaken, name: &str) -> Option<Arc<ClusterState>> {
        let timeout = self.time_for_clusters(taken).filter(|_| !name.is_empty())?;
        let random = self.context.local.random();
        let need = Need::Cluster(name.to_owned());
        let found = |snapshot: &Snapshot| snapshot.cluster(name, random).cloned();
        wait(&self.context.local, &need, timeout, found).await
    }

    /// How long a request on this route waits for its cluster; `None` where it is not asked for.
    fn time_for_clusters(&self, taken: &RouteTaken) -> Option<Duration> {
        let placed = self.http.manager.filters.on_demand.as_ref()?;
        match taken.filter_setting(|settings| settings.on_demand.as_ref()) {
            Some(Setting::Disabled) => None,
            Some(Setting::Use(own)) => own.clusters,
            None if placed.disabled => None,
            None => placed.config.clusters,
        }
    }
}

/// Asks for `need` and waits until `look` finds something, or it is known that there is nothing to find.
async fn wait<T>(
    local: &Local,
    need: &Need,
    limit: Duration,
    look: impl Fn(&Snapshot) -> Option<T>,
) -> Option<T> {
    let live = local.live();
    // Before the first look, so that no change is missed.
    let mut changes = live.changes();
    let arrival = async {
        let mut asked = false;
        loop {
            let snapshot = live.current();
            if let Some(found) = look(&snapshot) {
                return Some(found);
            }
            if snapshot.config.answered.contains(need) {
                return None;
            }
            if !std::mem::replace(&mut asked, true) {
                live.need(need.clone());
            }
            changes.changed().await.ok()?;
        }
    };
    tokio::time::timeout(limit, arrival).await.ok().flatten()
}
