//! How a task is run: which proxy, from which folder, with which certificates.

use crate::mesh::Mesh;
use std::path::Path;
use std::process::Command;

/// What every sidecar and gateway of a mesh is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// `ieum proxy`.
    Ours,
    /// Stock Envoy.
    Envoy,
}

impl Proxy {
    /// What `--proxy-program` is told.
    pub(crate) fn program(self) -> Option<String> {
        let envoy = || testing::peers::envoy().display().to_string();
        (self == Proxy::Envoy)
            .then(|| format!("{} -c $(BOOTSTRAP) --disable-hot-restart --concurrency 1 -l error", envoy()))
    }

    /// Runs an example.
    pub(crate) fn run(self, task: &str) -> Mesh {
        self.run_changed(task, |_| ())
    }

    /// Runs an example after a change of its folder.
    pub(crate) fn run_changed(self, task: &str, change: impl FnOnce(&Path)) -> Mesh {
        Mesh::start_example(task, self.program().as_deref(), change)
    }
}

/// Makes the certificates of an example, as its README says.
pub(crate) fn make_certificates(folder: &Path) {
    let output = Command::new("sh").arg(folder.join("certificates.sh")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The same task with our proxy and with stock Envoy.
macro_rules! with_both_proxies {
    ($task:path) => {
        #[tokio::test]
        async fn with_our_proxy() {
            $task(crate::task::Proxy::Ours).await;
        }

        #[tokio::test]
        async fn with_stock_envoy() {
            $task(crate::task::Proxy::Envoy).await;
        }
    };
}
pub(crate) use with_both_proxies;
