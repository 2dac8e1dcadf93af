//! How a proxy ends: on SIGTERM or SIGINT it takes no new work, tells its peers to go elsewhere, and waits for what it
//! has begun, up to a bound. A second signal ends it at once.

use crate::admin::{Admin, Command};
use crate::notice::tell;
use crate::worker::Workers;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;

/// Receives what ends a proxy.
pub(super) struct Ending {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
}

impl Ending {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// Returns when the process is to end.
    pub(super) async fn wait(
        mut self,
        admin: &Admin,
        workers: &Rc<Workers>,
        mut commands: UnboundedReceiver<Command>,
        drain_time: Duration,
    ) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.reopen.recv() => admin.hub.live().telemetry().reopen_logs(),
                Some(command) = commands.recv() => match command {
                    Command::Quit => return,
                    Command::Drain { graceful } => {
                        tell("telling clients to go elsewhere");
                        admin.draining.set(true);
                        let workers = workers.clone();
                        let grace = if graceful { drain_time } else { Duration::ZERO };
                        spawn_local(async move { workers.drain(grace).await });
                    }
                },
            }
        }
        tell(format_args!("ending; open connections have {:.1} s", drain_time.as_secs_f64()));
        admin.draining.set(true);
        let drained = workers.drain(drain_time);
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => return,
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                Some(command) = commands.recv() => if command == Command::Quit { return },
            }
        }
    }
}
