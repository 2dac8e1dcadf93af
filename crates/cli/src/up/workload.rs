//! The replicas of one Deployment: as many as are wanted, all of the wanted template; a new one is ready before an old one
//! leaves. What one replica does is for `replica`.

use super::context::Context;
use super::plan::{Key, Template, Workload};
use super::replica::{Replica, Status};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

/// The replicas of a Deployment, kept as wanted until it is ended.
#[derive(Debug)]
pub(super) struct Replicas {
    wanted: watch::Sender<Option<Workload>>,
    changed: Arc<Notify>,
    view: Arc<Mutex<View>>,
    task: JoinHandle<()>,
}

/// How the replicas are.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// All that is wanted is ready, and nothing else is left.
    pub(super) is_settled: bool,
    /// Those that are not leaving.
    pub(super) replicas: Vec<Status>,
}

impl Replicas {
    /// Starts what is wanted. `told` hears of every change.
    pub(super) fn start(context: Arc<Context>, key: &Key, wanted: Workload, told: Arc<Notify>) -> Self {
        let changed = Arc::new(Notify::new());
        let (wanted, watched) = watch::channel(Some(wanted));
        let view = Arc::new(Mutex::new(View::default()));
        let run = Run {
            context,
            key: key.clone(),
            wanted: watched,
            changed: changed.clone(),
            told,
            view: view.clone(),
            replicas: Vec::new(),
            leaving: JoinSet::new(),
            leaving_names: HashSet::new(),
        };
        Replicas { wanted, changed, view, task: tokio::spawn(run.keep()) }
    }

    /// Changes what is wanted.
    pub(super) fn want(&self, workload: Workload) {
        self.wanted.send_if_modified(|wanted| {
            let differs = wanted.as_ref() != Some(&workload);
            *wanted = Some(workload);
            differs
        });
        self.changed.notify_one();
    }

    /// How they are.
    pub(super) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets all of them leave, and waits until they are gone.
    pub(super) async fn end(self) {
        self.wanted.send_replace(None);
        self.changed.notify_one();
        // Replicas leave within their grace.
        let _ = self.task.await;
    }
}

struct Run {
    context: Arc<Context>,
    key: Key,
    wanted: watch::Receiver<Option<Workload>>,
    changed: Arc<Notify>,
    told: Arc<Notify>,
    view: Arc<Mutex<View>>,
    replicas: Vec<Replica>,
    leaving: JoinSet<String>,
    leaving_names: HashSet<String>,
}

/// What there is of a replica, for [`decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fact {
    is_current: bool,
    is_ready: bool,
}

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    /// How many to start.
    start: usize,
    /// Which are to leave, by position.
    leave: Vec<usize>,
}

/// How to get from `replicas` to `wanted` current ones: start what is missing, and let as many old ones go as there are
/// ready current ones in their place; of too many current ones the youngest go.
fn decide(wanted: usize, replicas: &[Fact]) -> Step {
    let positions = |current: bool| replicas.iter().enumerate().filter(move |(_, r)| r.is_current == current);
    let current = positions(true).count();
    let ready = positions(true).filter(|(_, replica)| replica.is_ready).count();
    let old_kept = wanted.saturating_sub(ready);
    // Of the old ones those that are not ready go first.
    let mut old: Vec<(usize, &Fact)> = positions(false).collect();
    old.sort_by_key(|(at, replica)| (!replica.is_ready, *at));
    let mut leave: Vec<usize> = old.iter().skip(old_kept).map(|(at, _)| *at).collect();
    let surplus = current.saturating_sub(wanted);
    leave.extend(positions(true).map(|(at, _)| at).rev().take(surplus));
    leave.sort_unstable();
    Step { start: wanted.saturating_sub(current), leave }
}

impl Run {
    async fn keep(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.step(wanted.as_ref());
            self.show(wanted.as_ref());
            if wanted.is_none() && self.replicas.is_empty() && self.leaving.is_empty() {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                Some(left) = self.leaving.join_next() => {
                    if let Ok(name) = left {
                        self.leaving_names.remove(&name);
                    }
                }
            }
        }
    }

    fn step(&mut self, wanted: Option<&Workload>) {
        let is_current = |replica: &Replica| wanted.is_some_and(|wanted| replica.template == wanted.template);
        let facts: Vec<Fact> = self
            .replicas
            .iter()
            .map(|replica| Fact { is_current: is_current(replica), is_ready: replica.is_ready() })
            .collect();
        let step = decide(wanted.map_or(0, |wanted| wanted.replicas), &facts);
        for at in step.leave.into_iter().rev() {
            let replica = self.replicas.remove(at);
            self.leaving_names.insert(replica.name.clone());
            self.leaving.spawn(async move {
                let name = replica.name.clone();
                replica.leave().await;
                name
            });
        }
        let Some(wanted) = wanted else { return };
        for _ in 0..step.start {
            let (name, ordinal) = self.name(&wanted.template);
            let label = self.label(ordinal);
            let (context, changed) = (self.context.clone(), self.changed.clone());
            self.replicas.push(Replica::start(context, wanted.template.clone(), name, label, changed));
        }
    }

    /// Like a pod's, but the same in every run: Deployment, what tells its template apart, and a number.
    fn name(&self, template: &Template) -> (String, usize) {
        let mark = super::addresses::fingerprint(&format!("{template:?}")) % 0x0010_0000;
        let name = |ordinal: usize| format!("{}-{mark:05x}-{ordinal}", template.workload);
        let is_taken = |name: &String| {
            self.leaving_names.contains(name) || self.replicas.iter().any(|r| r.name == *name)
        };
        let mut ordinal = 0;
        while is_taken(&name(ordinal)) {
            ordinal += 1;
        }
        (name(ordinal), ordinal)
    }

    fn label(&self, ordinal: usize) -> String {
        let (namespace, name) = &self.key;
        let namespace = if namespace == "default" { String::new() } else { format!("{namespace}/") };
        let ordinal = if ordinal == 0 { String::new() } else { format!(".{ordinal}") };
        format!("{namespace}{name}{ordinal}")
    }

    fn show(&self, wanted: Option<&Workload>) {
        let replicas: Vec<Status> = self.replicas.iter().map(|r| r.status.borrow().clone()).collect();
        let is_settled = self.leaving.is_empty()
            && replicas.iter().all(|status| status.ready)
            && replicas.len() == wanted.map_or(0, |wanted| wanted.replicas)
            && self.replicas.iter().all(|r| wanted.is_some_and(|wanted| r.template == wanted.template));
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = View { is_settled, replicas };
        self.told.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Fact = Fact { is_current: false, is_ready: true };
    const OLD_DOWN: Fact = Fact { is_current: false, is_ready: false };
    const NEW: Fact = Fact { is_current: true, is_ready: true };
    const NEW_DOWN: Fact = Fact { is_current: true, is_ready: false };

    fn step(start: usize, leave: &[usize]) -> Step {
        Step { start, leave: leave.to_vec() }
    }

    #[test]
    fn missing_replicas_start_and_the_youngest_of_too_many_leave() {
        assert_eq!(decide(2, &[]), step(2, &[]));
        assert_eq!(decide(2, &[NEW, NEW_DOWN]), step(0, &[]));
        assert_eq!(decide(1, &[NEW, NEW, NEW_DOWN]), step(0, &[1, 2]));
        assert_eq!(decide(0, &[NEW]), step(0, &[0]));
    }

    #[test]
    fn an_old_replica_leaves_when_a_new_one_is_ready_in_its_place() {
        assert_eq!(decide(2, &[OLD, OLD]), step(2, &[]));
        assert_eq!(decide(2, &[OLD, OLD, NEW_DOWN, NEW_DOWN]), step(0, &[]));
        assert_eq!(decide(2, &[OLD, OLD, NEW, NEW_DOWN]), step(0, &[1]));
        assert_eq!(decide(2, &[OLD, NEW, NEW]), step(0, &[0]));
    }

    #[test]
    fn of_old_replicas_those_that_are_down_leave_first() {
        assert_eq!(decide(2, &[OLD_DOWN, OLD, NEW, NEW_DOWN]), step(0, &[0]));
    }

    #[test]
    fn nothing_wanted_lets_all_leave() {
        assert_eq!(decide(0, &[OLD, NEW_DOWN, OLD_DOWN]), step(0, &[0, 1, 2]));
    }
}
