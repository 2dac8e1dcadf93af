//! How commands run that wait for things: on one thread, which is the process's own, until they end.

use std::process::ExitCode;

/// Runs `task` on this thread. What still goes on in the background when it ends goes on no longer.
pub(crate) fn block_on<T>(task: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let outcome = runtime.block_on(task);
    runtime.shutdown_background();
    outcome
}

/// The exit code of a command; an error is told.
pub(crate) fn exit_code(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
