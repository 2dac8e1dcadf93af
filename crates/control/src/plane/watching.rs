//! The thread that turns touched files into generations. It blocks, and nothing waits for it but the files.

use super::configuration::Configuration;
use crate::event::{Event, Report};
use crate::generation::Generation;
use crate::watch::{Wake, Watch};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch::Sender;
use xds::resources::VersionedResource;

/// Runs until the watch is told to stop or nobody wants generations any more.
pub(super) fn spawn(
    mut watch: Watch,
    mut configuration: Configuration,
    publish: Sender<Arc<Generation>>,
    trust_bundle: VersionedResource,
    report: Report,
) -> Result<(), String> {
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
            }
        }
    };
    let thread = std::thread::Builder::new().name("configuration".to_owned()).spawn(run);
    thread.map(drop).map_err(|error| format!("the thread that watches files cannot start: {error}"))
}
