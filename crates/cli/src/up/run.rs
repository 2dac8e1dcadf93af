//! `ieum run`: brings one more process into a mesh that `ieum up` runs. The process is a child of this one, with its terminal;
//! place, sidecar and membership are the mesh's, in `guest`.

use super::invitation::{LocalPort, Probe, Reply, Request, SOCKET, Seated, Word};
use super::link::Link;
use super::mesh::Stops;
use super::process::{PROXY_VARIABLES, signal};
use super::sockets::Sockets;
use super::state;
use crate::runtime;
use clap::Args;
use rustix::process::Signal;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long the mesh may take to forget us.
const FAREWELL: Duration = Duration::from_secs(10);

/// Run a process as part of a mesh that `ieum up` runs.
///
/// The process serves a Service of the mesh beside those that do already: it gets an identity, a sidecar, and, where the
/// mesh captures traffic, a network of its own. It takes requests once it listens, or answers --ready. Ctrl-C takes it out
/// again: nobody sends it requests any more, those in flight finish, then it is asked to stop. Without a command, what
/// listens at the port already takes part; what it calls goes its own way. Exit code: the command's; 0 after Ctrl-C; 1 if it
/// cannot join; 2 usage.
#[derive(Args)]
#[command(after_help = "Examples:\n  ieum run --service cart --port 3000 -- npm start\n  \
        ieum run --service reviews --port 9080 --label version=v2 --ready /health -- python3 reviews.py\n  \
        ieum run --service shop/cart --port http=3000 --port grpc=3001 -- ./cart\n\n\
        The command sees PORT and HOST (where to listen), POD_NAME, POD_NAMESPACE, POD_IP and, where traffic is not\n\
        captured, http_proxy (the way into the mesh).")]
pub(crate) struct Run {
    /// The Service it serves, or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    service: String,
    /// Where it listens, for the Service's port of that name or number where it has several; may be given several times.
    #[arg(long, required = true, value_name = "[PORT=]N", value_parser = local_port)]
    port: Vec<LocalPort>,
    /// Ready when this is answered with 2xx: a path at the first port, or http://localhost:PORT/PATH [default: when it
    /// listens].
    #[arg(long, value_name = "URL")]
    ready: Option<String>,
    /// A label of it beside those that the Service selects, such as version=v2; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Its service account [default: that of the workloads that serve the Service already].
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// How long it may take to end when asked.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    grace: Duration,
    /// State folder of the mesh, where several run.
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Program and arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn local_port(text: &str) -> Result<LocalPort, String> {
    let (of, local) = match text.rsplit_once('=') {
        Some((of, local)) => (Some(of.to_owned()), local),
        None => (None, text),
    };
    let local = local.parse().ok().filter(|port| *port != 0);
    Ok(LocalPort { of, local: local.ok_or("expected a port, such as 3000 or http=3000")? })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    api::duration::parse(text).map_err(|error| error.to_string())
}

/// What `--ready` says, where `first` is the first port.
fn probe(text: &str, first: u16) -> Result<Probe, String> {
    let wrong = || format!("--ready {text}: expected a path, or http://localhost:PORT/PATH");
    if text.starts_with('/') {
        return Ok(Probe { port: first, path: text.to_owned() });
    }
    let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    if !["localhost", "127.0.0.1", "0.0.0.0"].contains(&host) {
        return Err(wrong());
    }
    let port = port.parse().map_err(|_| wrong())?;
    Ok(Probe { port, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
}

impl Run {
    pub(crate) fn run(self) -> ExitCode {
        // One thread: what is started dies with the thread that started it.
        runtime::exit_code(runtime::block_on(self.take_part()))
    }

    fn request(&self) -> Result<Request, String> {
        let first = self.port.first().map_or(0, |port| port.local);
        Ok(Request {
            service: self.service.clone(),
            ports: self.port.clone(),
            labels: self.label.iter().cloned().collect(),
            service_account: self.service_account.clone(),
            probe: self.ready.as_deref().map(|text| probe(text, first)).transpose()?,
            runs_already: self.command.is_empty(),
        })
    }

    async fn take_part(&self) -> Result<ExitCode, String> {
        let mut stops = Stops::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
        let request = self.request()?;
        let mut link = reach(&self.mesh()?).await?;
        link.say(&request).await;
        let seated = tokio::select! {
            seated = seated(&mut link) => seated?,
            () = stops.next() => return Ok(ExitCode::SUCCESS),
        };
        if seated.beside.is_none() && !self.command.is_empty() {
            self.find_ports_free()?;
        }
        let child = match self.command.is_empty() {
            true => None,
            false => Some(self.start(&seated)?),
        };
        link.say(&Word::Started).await;
        let outcome = Stay { run: self, name: seated.name, child, link: &mut link }.last(&mut stops).await;
        link.close(FAREWELL).await;
        outcome
    }

    /// The state folder of the mesh.
    fn mesh(&self) -> Result<PathBuf, String> {
        if let Some(folder) = &self.state_dir {
            return Ok(folder.clone());
        }
        let mut running = state::running(std::env::var_os("XDG_STATE_HOME").map(PathBuf::from)).into_iter();
        match (running.next(), running.next()) {
            (Some(mesh), None) => Ok(mesh),
            (None, _) => {
                Err("no mesh runs with its state here; start `ieum up`, or give its --state-dir".to_owned())
            }
            (Some(first), Some(second)) => Err(format!(
                "several meshes run; choose by --state-dir {} or {}",
                first.display(),
                second.display()
            )),
        }
    }

    /// Who listens there already would be taken for the process.
    fn find_ports_free(&self) -> Result<(), String> {
        for LocalPort { local, .. } in &self.port {
            if std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, *local)).is_ok() {
                return Err(format!(
                    "port {local} of 127.0.0.1 is in use; choose another by --port, and let the command listen at $PORT"
                ));
            }
        }
        Ok(())
    }

    fn start(&self, seated: &Seated) -> Result<Child, String> {
        let ieum = std::env::current_exe().map_err(|e| format!("cannot find our own program: {e}"))?;
        let mut command = Command::new(&ieum);
        command.args(["exec-with-parent", "--parent", &std::process::id().to_string()]);
        if let Some(pid) = seated.beside {
            command.args(["--beside", &pid.to_string()]);
        }
        command.arg("--");
        let (program, arguments) = self.command.split_first().ok_or("there is no command")?;
        match program.as_str() {
            "ieum" => command.arg(ieum),
            program => command.arg(program),
        };
        for name in PROXY_VARIABLES {
            command.env_remove(name);
        }
        // In a group of its own, so that a terminal's Ctrl-C reaches us alone; there it cannot read from the terminal.
        let stdin = if std::io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() };
        command.args(arguments).envs(seated.variables.iter().cloned()).stdin(stdin);
        command.process_group(0).kill_on_drop(true);
        command.spawn().map_err(|error| format!("cannot start: {error}"))
    }
}

/// A process that takes part.
struct Stay<'r> {
    run: &'r Run,
    name: String,
    /// `None` where it is none of ours.
    child: Option<Child>,
    link: &'r mut Link,
}

impl Stay<'_> {
    /// Until it ends, is asked to, or the mesh does.
    async fn last(mut self, stops: &mut Stops) -> Result<ExitCode, String> {
        loop {
            tokio::select! {
                reply = self.link.hear() => match reply {
                    Some(Reply::Ready) => {
                        eprintln!("ieum: {} takes requests for {}", self.name, self.run.service);
                    }
                    Some(Reply::Waiting(why)) => eprintln!("ieum: waiting: {why}"),
                    Some(Reply::Refused(why)) => return Err(why),
                    Some(Reply::Closing) => {
                        eprintln!("ieum: the mesh ends");
                        self.end(stops).await;
                        return Ok(ExitCode::SUCCESS);
                    }
                    Some(Reply::Withdrawn | Reply::Seated(_)) => {}
                    None => {
                        self.end(stops).await;
                        return Err("the mesh has ended".to_owned());
                    }
                },
                status = ended(&mut self.child) => return status,
                () = stops.next() => {
                    eprintln!("ieum: {} leaves; once more Ctrl-C to hurry", self.name);
                    self.withdraw(stops).await;
                    self.end(stops).await;
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }

    /// Until nobody sends it requests any more.
    async fn withdraw(&mut self, stops: &mut Stops) {
        self.link.say(&Word::Leave).await;
        loop {
            tokio::select! {
                reply = self.link.hear() => if matches!(reply, None | Some(Reply::Withdrawn)) { return },
                _ = ended(&mut self.child) => return,
                () = stops.next() => return,
            }
        }
    }

    /// Asks the process to end, and makes it after its grace.
    async fn end(&mut self, stops: &mut Stops) {
        let Some(child) = &mut self.child else { return };
        let pid = child.id();
        signal(pid, Signal::TERM);
        tokio::select! {
            _ = child.wait() => {}
            () = tokio::time::sleep(self.run.grace) => {}
            () = stops.next() => {}
        }
        // What it started is of its group and does not outlive it.
        signal(pid, Signal::KILL);
        let _ = child.wait().await;
    }
}

/// How the command ended by itself; never without one.
async fn ended(child: &mut Option<Child>) -> Result<ExitCode, String> {
    let Some(child) = child else { return std::future::pending().await };
    let pid = child.id();
    let status = child.wait().await.map_err(|error| format!("lost sight of the command: {error}"))?;
    signal(pid, Signal::KILL);
    Ok(exit_code(status))
}

/// As a shell's.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The connection to the mesh whose state is in this folder.
async fn reach(mesh: &Path) -> Result<Link, String> {
    let told = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!("no mesh runs with its state in {}; start `ieum up`", mesh.display())
        }
        _ => format!("the mesh with its state in {} cannot be reached: {error}", mesh.display()),
    };
    let sockets = Sockets::new(mesh).map_err(told)?;
    Ok(Link::new(sockets.connect(SOCKET).await.map_err(told)?))
}

/// Waits for a place.
async fn seated(link: &mut Link) -> Result<Seated, String> {
    loop {
        match link.hear().await {
            Some(Reply::Seated(seated)) => return Ok(seated),
            Some(Reply::Refused(why)) => return Err(why),
            Some(Reply::Waiting(why)) => eprintln!("ieum: waiting: {why}"),
            Some(Reply::Closing) | None => return Err("the mesh ends".to_owned()),
            Some(Reply::Ready | Reply::Withdrawn) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_ready_is_asked_by_a_path_or_an_address_of_its_own() {
        let told = |text: &str| probe(text, 3000).map(|probe| (probe.port, probe.path));
        assert_eq!(told("/health").unwrap(), (3000, "/health".to_owned()));
        assert_eq!(told("http://localhost:9000/up?full=1").unwrap(), (9000, "/up?full=1".to_owned()));
        assert_eq!(told("http://127.0.0.1:9000").unwrap(), (9000, "/".to_owned()));
        for wrong in ["health", "http://example.com:80/", "http://localhost/", "https://localhost:1/"] {
            assert!(told(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_numbers_with_or_without_the_name_of_a_services() {
        assert_eq!(local_port("3000").unwrap(), LocalPort { of: None, local: 3000 });
        assert_eq!(local_port("http=3000").unwrap(), LocalPort { of: Some("http".to_owned()), local: 3000 });
        assert!(local_port("0").is_err() && local_port("http").is_err());
    }
}
