//! Active health checks: one task for each check of each endpoint. What comes of them is written where all threads read it.

use super::probe::{Kept, ask};
use crate::notice::tell;
use crate::snapshot::{ClusterState, EndpointState, Live, Snapshot};
use model::health::{CheckOutcome, CheckState, HealthCheck};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, spawn_local};

/// Checks of one endpoint beyond this are not made.
const MOST: usize = 64;

/// The checks that are running, by cluster and endpoint.
#[derive(Default)]
pub(super) struct Checks {
    running: BTreeMap<(Box<str>, u64), Running>,
}

struct Running {
    checks: Vec<HealthCheck>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// One check of one endpoint.
struct Check {
    live: Arc<Live>,
    cluster: Box<str>,
    endpoint: u64,
    rule: HealthCheck,
    /// Which of the endpoint's checks it is, as a bit.
    bit: u64,
    /// The checks that do not pass, as bits, shared by all of the endpoint.
    failing: Rc<Cell<u64>>,
}

impl Checks {
    /// Begins and ends checks, as the configuration in force says.
    pub(super) fn follow(&mut self, live: &Arc<Live>) {
        let snapshot = live.current();
        self.running.retain(|(name, id), running| {
            find(&snapshot, name, *id).is_some_and(|(state, _)| state.config.health_checks == running.checks)
        });
        for (name, state) in &snapshot.clusters {
            if state.config.health_checks.is_empty() {
                continue;
            }
            for endpoint in &state.endpoints {
                let begin = || begin(live, name, state, endpoint);
                self.running.entry((name.clone(), endpoint.id)).or_insert_with(begin);
            }
        }
    }
}

fn begin(live: &Arc<Live>, name: &str, state: &ClusterState, endpoint: &EndpointState) -> Running {
    let checks = &state.config.health_checks;
    let bits = (0..checks.len().min(MOST)).map(|at| 1_u64 << at);
    let failing = Rc::new(Cell::new(bits.clone().fold(0, |all, bit| all | bit)));
    let passed = endpoint.vitals.passes_checks() == Some(true);
    if passed {
        failing.set(0);
    }
    let task = |(rule, bit): (&HealthCheck, u64)| {
        let check = Check {
            live: live.clone(),
            cluster: name.into(),
            endpoint: endpoint.id,
            rule: rule.clone(),
            bit,
            failing: failing.clone(),
        };
        spawn_local(check.run(passed)).abort_handle()
    };
    Running { checks: checks.clone(), tasks: checks.iter().zip(bits).map(task).collect() }
}

fn find<'s>(
    snapshot: &'s Snapshot,
    cluster: &str,
    id: u64,
) -> Option<(&'s Arc<ClusterState>, &'s Arc<EndpointState>)> {
    let state = snapshot.clusters.get(cluster)?;
    Some((state, state.endpoints.iter().find(|endpoint| endpoint.id == id)?))
}

impl Check {
    async fn run(self, passed: bool) {
        let mut state = CheckState::new(passed);
        let mut kept = Kept::default();
        let jitter = self.rule.initial_jitter.as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(super::random() % (jitter + 1))).await;
        loop {
            let snapshot = self.live.current();
            let Some((cluster, endpoint)) = find(&snapshot, &self.cluster, self.endpoint) else { return };
            let asking = ask(&cluster.config, endpoint, &self.rule, &mut kept);
            let (outcome, why) = match tokio::time::timeout(self.rule.timeout, asking).await {
                Ok(Ok(())) => (CheckOutcome::Passed, String::new()),
                Ok(Err(failed)) => failed,
                Err(_) => {
                    kept = Kept::default();
                    let why = format!("no answer within {} ms", self.rule.timeout.as_millis());
                    (CheckOutcome::Failed, why)
                }
            };
            let is_first = endpoint.vitals.passes_checks().is_none();
            let changed = state.take(outcome, &self.rule);
            if changed || is_first {
                self.conclude(state.is_healthy(), &why);
            }
            let had_traffic = cluster.usage.had_traffic();
            drop(snapshot);
            tokio::time::sleep(self.rule.next(&state, had_traffic, super::random())).await;
        }
    }

    /// What this check means for its endpoint, which has to pass all.
    fn conclude(&self, passes: bool, why: &str) {
        let others = self.failing.get() & !self.bit;
        self.failing.set(if passes { others } else { others | self.bit });
        let snapshot = self.live.current();
        let Some((cluster, endpoint)) = find(&snapshot, &self.cluster, self.endpoint) else { return };
        let before = endpoint.vitals.passes_checks();
        let now = self.failing.get() == 0;
        // It is not known to fail before this check has failed; another may not have been made.
        if before == Some(now) || (before.is_none() && !now && passes) {
            return;
        }
        endpoint.vitals.set_passes_checks(now);
        cluster.refresh();
        let (name, address) = (&self.cluster, endpoint.address);
        match now {
            true => tell(format_args!("cluster `{name}`: endpoint {address} passes its health checks")),
            false => tell(format_args!("cluster `{name}`: endpoint {address} fails its health check: {why}")),
        }
    }
}
