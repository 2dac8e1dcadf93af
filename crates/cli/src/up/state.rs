//! The folder in which a mesh keeps what its processes are told: join tokens, bootstraps, the workloads that are ready,
//! and what control plane and proxies keep for themselves. Private to its owner, and to one mesh at a time.

use super::addresses::fingerprint;
use ca::tokens::{TokenLine, random_token};
use identity::private_file;
use identity::spiffe::SpiffeId;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The folder, ours while this lives.
#[derive(Debug)]
pub(super) struct State {
    root: PathBuf,
    tokens: Mutex<BTreeMap<String, TokenLine>>,
    _lock: File,
}

/// Where the state of the mesh of `folder` is when nobody says: below `$XDG_STATE_HOME`, or else in `.ieum` here.
pub(super) fn default_path(folder: &Path, port_base: u16, state_home: Option<PathBuf>) -> PathBuf {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = format!("{:016x}", fingerprint(&format!("{}:{port_base}", folder.display())));
    let home = state_home.filter(|home| home.is_absolute());
    home.map_or_else(|| PathBuf::from(".ieum"), |home| home.join("ieum")).join(name)
}

/// The state folders of the meshes that run and keep their state where nobody said otherwise.
pub(super) fn running(state_home: Option<PathBuf>) -> Vec<PathBuf> {
    let home = state_home.filter(|home| home.is_absolute()).map(|home| home.join("ieum"));
    let places = [Some(PathBuf::from(".ieum")), home].into_iter().flatten();
    let folders = places.filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    let mut running: Vec<PathBuf> =
        folders.map(|entry| entry.path()).filter(|path| is_in_use(path)).collect();
    running.sort();
    running
}

fn is_in_use(root: &Path) -> bool {
    let lock = File::open(root.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// What the folder of a proxy is called.
pub(super) fn proxy_name(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

impl State {
    /// Opens the folder at `root`, or makes it. What was ready in an earlier run is not any more.
    pub(super) fn open(root: &Path) -> Result<Self, String> {
        let told = |error: io::Error| format!("state folder {}: {error}", root.display());
        make_private(root).map_err(told)?;
        let root = root.canonicalize().map_err(told)?;
        let lock = File::create(root.join("lock")).map_err(told)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => format!(
                "state folder {} is in use by another `ieum up`; stop that one, or choose --port-base or --state-dir",
                root.display()
            ),
            TryLockError::Error(error) => told(error),
        })?;
        let state = State { root, tokens: Mutex::default(), _lock: lock };
        for folder in [state.workloads(), state.control(), state.proxies()] {
            make_private(&folder).map_err(told)?;
        }
        for entry in std::fs::read_dir(state.workloads()).map_err(told)? {
            std::fs::remove_file(entry.map_err(told)?.path()).map_err(told)?;
        }
        state.write_tokens(&BTreeMap::new()).map_err(told)?;
        Ok(state)
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of workloads that are ready: configuration for the control plane.
    pub(super) fn workloads(&self) -> PathBuf {
        self.root.join("workloads")
    }

    /// What the control plane keeps.
    pub(super) fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// The certificate by which proxies know the control plane.
    pub(super) fn roots(&self) -> PathBuf {
        self.control().join("root-cert.pem")
    }

    /// Who may ask for which certificate.
    pub(super) fn join_tokens(&self) -> PathBuf {
        self.root.join("join-tokens")
    }

    fn proxies(&self) -> PathBuf {
        self.root.join("proxies")
    }

    /// What one proxy is told and keeps.
    pub(super) fn proxy(&self, namespace: &str, name: &str) -> ProxyFolder {
        ProxyFolder(self.proxies().join(proxy_name(namespace, name)))
    }

    /// Removes what is kept of proxies that are not among `names`.
    pub(super) fn retain_proxies(&self, names: &BTreeSet<String>) {
        for entry in std::fs::read_dir(self.proxies()).into_iter().flatten().flatten() {
            if !names.contains(&*entry.file_name().to_string_lossy()) {
                ProxyFolder(entry.path()).remove();
            }
        }
    }

    /// A new join token for `identity`, in place of the last one that `holder` got.
    pub(super) fn mint(&self, holder: &str, identity: SpiffeId, reusable: bool) -> Result<String, String> {
        let token = random_token().ok_or("the system has no randomness for a join token")?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(holder.to_owned(), TokenLine { token: token.clone(), identity, reusable });
        self.write_tokens(&tokens).map_err(|e| format!("join tokens cannot be written: {e}"))?;
        Ok(token)
    }

    /// Takes the token of `holder` off the list.
    pub(super) fn forget(&self, holder: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.remove(holder).is_some() {
            // A token that stays on the list is spent; it does no harm.
            let _ = self.write_tokens(&tokens);
        }
    }

    fn write_tokens(&self, tokens: &BTreeMap<String, TokenLine>) -> io::Result<()> {
        let lines: String = tokens.values().map(|line| line.to_json() + "\n").collect();
        private_file::write(&self.join_tokens(), lines.as_bytes())
    }

    /// Says that a workload is ready.
    pub(super) fn publish(&self, namespace: &str, name: &str, entry: &Value) -> io::Result<()> {
        private_file::write(&self.entry(namespace, name), format!("{entry:#}\n").as_bytes())
    }

    /// Says that a workload is not ready any more.
    pub(super) fn withdraw(&self, namespace: &str, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.entry(namespace, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn entry(&self, namespace: &str, name: &str) -> PathBuf {
        self.workloads().join(format!("{namespace}.{name}.yaml"))
    }
}

/// What one proxy is told and keeps.
#[derive(Clone, Debug)]
pub(super) struct ProxyFolder(PathBuf);

impl ProxyFolder {
    /// Its bootstrap.
    pub(super) fn bootstrap(&self) -> PathBuf {
        self.0.join("bootstrap.json")
    }

    /// Its join token.
    pub(super) fn join_token(&self) -> PathBuf {
        self.0.join("join-token")
    }

    /// What it keeps.
    pub(super) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Writes the bootstrap.
    pub(super) fn write_bootstrap(&self, bootstrap: &Value) -> Result<(), String> {
        self.write(&self.bootstrap(), &format!("{bootstrap:#}\n"))
    }

    /// Writes the join token.
    pub(super) fn write_join_token(&self, token: &str) -> Result<(), String> {
        self.write(&self.join_token(), &format!("{token}\n"))
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), String> {
        private_file::write(path, text.as_bytes())
            .map_err(|e| format!("{} cannot be written: {e}", path.display()))
    }

    /// Removes all of it, once the proxy will not come back.
    pub(super) fn remove(&self) {
        // What stays behind is private, and replaced when the name is used again.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes a folder that nobody else can read.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ca::tokens::parse_lines;
    use serde_json::json;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_folder_is_private_and_of_one_mesh() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        let state = State::open(&root).unwrap();
        state.publish("default", "a", &json!({})).unwrap();
        assert_eq!((mode(&root), mode(&state.join_tokens())), (0o700, 0o600));
        assert!(State::open(&root).unwrap_err().contains("in use by another `ieum up`"));
        drop(state);
        let state = State::open(&root).unwrap();
        assert_eq!(std::fs::read_dir(state.workloads()).unwrap().count(), 0, "nothing is ready yet");
    }

    #[test]
    fn each_holder_has_one_token_and_the_file_tells_them_all() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let identity = |name| SpiffeId::new("cluster.local", "default", name).unwrap();
        state.mint("a", identity("a"), false).unwrap();
        let second = state.mint("a", identity("a"), false).unwrap();
        state.mint("b", identity("b"), true).unwrap();
        let read = || parse_lines(&std::fs::read_to_string(state.join_tokens()).unwrap()).0;
        let lines = read();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().any(|line| line.token == second && line.identity == identity("a")));
        assert!(lines.iter().any(|line| line.reusable && line.identity == identity("b")));
        state.forget("a");
        assert_eq!(read().len(), 1);
    }

    #[test]
    fn meshes_of_different_folders_and_ports_have_different_state() {
        let path = |folder: &str, base| default_path(Path::new(folder), base, None);
        assert_ne!(path("/a", 15000), path("/b", 15000));
        assert_ne!(path("/a", 15000), path("/a", 16000));
        assert!(path("/a", 15000).starts_with(".ieum"));
        assert!(default_path(Path::new("/a"), 1, Some("/x".into())).starts_with("/x/ieum"));
    }
}
