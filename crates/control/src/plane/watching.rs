//! The thread that turns touched files into generations. It blocks, and nothing waits for it but the files.

use super::configuration::Configuration;
use crate::event::{Event, Report};
use crate::generation::Generation;
use crate::watch::{Wake, Watch};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tokio::sync::watch::Sender;
use xds::resources::VersionedResource;

/// For so long a generation is kept that is not served any more.
const RETIREMENT: Duration = Duration::from_millis(200);

/// Runs until the watch is told to stop or nobody wants generations any more.
pub(super) fn spawn(
    mut watch: Watch,
    mut configuration: Configuration,
    publish: Sender<Arc<Generation>>,
    trust_bundle: VersionedResource,
    report: Report,
) -> Result<(), String> {
    let (retire, retired) = channel();
    spawn_thread("retirement", move || let_go(&retired))?;
    let run = move || {
        // The folders may have changed between the first look and the start of the watch.
        let mut again_at = Some(Instant::now());
        while watch.wait(again_at) == Wake::Look && !publish.is_closed() {
            // A fault of ours in reading one file must not end all changes until a restart. What was published stays.
            again_at = catch_unwind(AssertUnwindSafe(|| configuration.look())).unwrap_or_else(|_| {
                report(Event::Fault(
                    "the last change of the configuration was not taken: a bug in ieum".to_owned(),
                ));
                None
            });
            if let Some(pending) = configuration.take_pending() {
                let before = publish.borrow().clone();
                publish.send_replace(Arc::new(pending.publish(&trust_bundle, Some(&before))));
                // That thread ends with this one.
                let _ = retire.send(before);
            }
        }
    };
    spawn_thread("configuration", run)
}

/// Drops generations that are not served any more. That takes as long as making them, and whoever holds one last, such as
/// the thread that serves all streams, has something else to do.
fn let_go(retired: &Receiver<Arc<Generation>>) {
    while let Ok(first) = retired.recv() {
        std::thread::sleep(RETIREMENT);
        drop(std::iter::once(first).chain(retired.try_iter()).collect::<Vec<_>>());
    }
}

fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|error| format!("the thread `{name}` cannot start: {error}"))
}
