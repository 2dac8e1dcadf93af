//! Processes that somebody else runs and brings into the mesh, `ieum run`: each gets a place and a sidecar, takes part once
//! it is ready, and leaves when it says so or is gone. The process itself is its caller's, in `run`.

use super::context::Context;
use super::invitation::{Probe, Reply, Request, SOCKET, Seated, Word};
use super::link::Link;
use super::member::{GRACE, LOOK_INTERVAL, Member};
use super::network::Network;
use super::plan::{Key, Service};
use super::pod::Pod;
use super::probe;
use super::process::Life;
use super::sockets::Sockets;
use super::state;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

/// After so long it is told what is being waited for, and again after each such time.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often one looks at what costs more than a system call.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Everybody who joined by `ieum run`.
#[derive(Debug)]
pub(super) struct Guests {
    services: watch::Sender<BTreeMap<Key, Service>>,
    names: Arc<Mutex<BTreeSet<Key>>>,
    task: JoinHandle<()>,
}

impl Guests {
    /// Lets processes join from now on.
    pub(super) fn welcome(context: Arc<Context>) -> Result<Self, String> {
        let listening = Sockets::new(context.state.root()).and_then(|sockets| sockets.listen(SOCKET));
        let listener = listening.map_err(|error| format!("nobody can join by `ieum run`: {error}"))?;
        let (services, watched) = watch::channel(BTreeMap::new());
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let hall = Arc::new(Hall { context, services: watched, names: names.clone() });
        Ok(Self { services, names, task: tokio::spawn(hall.receive(listener)) })
    }

    /// Changes which Services there are.
    pub(super) fn offer(&self, services: BTreeMap<Key, Service>) {
        self.services.send_replace(services);
    }

    /// What the folders of their sidecars are called.
    pub(super) fn proxies(&self) -> Vec<String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().map(|(namespace, name)| state::proxy_name(namespace, name)).collect()
    }

    /// Waits until all have left, once the mesh is closing.
    pub(super) async fn end(self) {
        let _ = self.task.await;
    }
}

/// What they have in common.
struct Hall {
    context: Arc<Context>,
    services: watch::Receiver<BTreeMap<Key, Service>>,
    names: Arc<Mutex<BTreeSet<Key>>>,
}

impl Hall {
    async fn receive(self: Arc<Self>, listener: UnixListener) {
        let mut guests = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(guests.spawn(self.clone().host(stream))),
                    // Out of descriptors, most likely: others have to finish first.
                    Err(_) => tokio::time::sleep(ASK_INTERVAL).await,
                },
                Some(_) = guests.join_next() => {}
                () = self.context.closing.cancelled() => break,
            }
        }
        while guests.join_next().await.is_some() {}
    }

    async fn host(self: Arc<Self>, stream: UnixStream) {
        let mut link = Link::new(stream);
        let Some(request) = link.hear::<Request>().await else { return };
        let member = match self.member(&request) {
            Ok(member) => member,
            Err(why) => return link.say(&Reply::Refused(why)).await,
        };
        let key = (member.template.namespace.clone(), member.name.clone());
        match member.place().await {
            Ok((pod, _opened)) => {
                let pod = Arc::new(pod);
                let probe = request.probe.clone();
                match relays(&request, &pod, self.context.network.as_ref()) {
                    Ok(_relays) => Guest { member: &member, pod: &pod, probe, link }.live().await,
                    Err(error) => {
                        link.say(&Reply::Refused(format!("there is no way to what runs already: {error}")))
                            .await;
                    }
                }
                member.release(&pod);
            }
            Err(why) => link.say(&Reply::Refused(why)).await,
        }
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Who it will be.
    fn member(&self, request: &Request) -> Result<Member, String> {
        let (template, ports) = {
            let services = self.services.borrow();
            request.template(find(&services, &request.service)?)?
        };
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |ordinal: usize| (template.namespace.clone(), format!("{}-{ordinal}", template.workload));
        let mut ordinal = 0;
        while !names.insert(named(ordinal)) {
            ordinal += 1;
        }
        let (_, name) = named(ordinal);
        let (context, template) = (self.context.clone(), Arc::new(template));
        Ok(Member { context, template, label: name.clone(), name, ports: Some(ports) })
    }
}

/// The Service called `name`, or `namespace/name`.
fn find<'s>(services: &'s BTreeMap<Key, Service>, name: &str) -> Result<&'s Service, String> {
    let mut found = services.iter().filter(|((namespace, service), _)| match name.split_once('/') {
        Some((wanted, name)) => namespace == wanted && service == name,
        None => service == name,
    });
    let told = |keys: &mut dyn Iterator<Item = &Key>| {
        let names = keys.map(|(namespace, name)| match namespace.as_str() {
            "default" => name.clone(),
            _ => format!("{namespace}/{name}"),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    match (found.next(), found.next()) {
        (Some((_, service)), None) => Ok(service),
        (Some((first, _)), Some((second, _))) => {
            let both = told(&mut [first, second].into_iter());
            Err(format!("several namespaces have a Service `{name}`: {both}"))
        }
        (None, _) if services.is_empty() => {
            Err(format!("there is no Service `{name}`: the mesh has none that selects workloads"))
        }
        (None, _) => Err(format!("there is no Service `{name}`; there are: {}", told(&mut services.keys()))),
    }
}

/// One process that joined.
struct Guest<'m> {
    member: &'m Member,
    pod: &'m Arc<Pod>,
    probe: Option<Probe>,
    link: Link,
}

/// How far one is.
#[derive(Default)]
struct Progress {
    is_seated: bool,
    started: Option<Instant>,
    /// The life of the sidecar with which it takes part.
    published: Option<Life>,
    is_told: bool,
    waiting: String,
}

impl Guest<'_> {
    /// Until it is gone.
    async fn live(mut self) {
        let woken = Arc::new(Notify::new());
        let sidecar = self.pod.is_meshed().then(|| self.member.sidecar(self.pod, woken.clone()));
        let context = &self.member.context;
        let mut progress = Progress::default();
        let mut patience = tokio::time::interval(PATIENCE);
        patience.tick().await;
        let is_gone = loop {
            let pause = match (progress.is_seated, progress.is_told) {
                (false, _) => LOOK_INTERVAL,
                (true, false) => ASK_INTERVAL,
                (true, true) => Duration::from_secs(3600),
            };
            tokio::select! {
                word = self.link.hear() => match word {
                    Some(Word::Started) => progress.started = Some(Instant::now()),
                    Some(Word::Leave) => break false,
                    None => break true,
                },
                () = woken.notified() => {}
                () = tokio::time::sleep(pause) => {}
                _ = patience.tick(), if !progress.waiting.is_empty() => {
                    self.link.say(&Reply::Waiting(progress.waiting.clone())).await;
                }
                () = context.closing.cancelled() => {
                    self.link.say(&Reply::Closing).await;
                    break false;
                }
            }
            let life = sidecar.as_ref().map_or(Life::Down, |sidecar| *sidecar.life.borrow());
            self.step(&mut progress, life).await;
        };
        if !context.closing.is_cancelled() {
            self.member.withdraw();
            if !is_gone && progress.published.is_some() {
                self.member.drain(self.pod).await;
            }
        }
        if !is_gone {
            self.link.say(&Reply::Withdrawn).await;
            // Its sidecar ends after it.
            self.departure().await;
        }
        if let Some(sidecar) = sidecar {
            sidecar.stop().await;
        }
        self.member.forget();
    }

    /// Waits until the process has ended: its caller closes the connection. Only so long when the mesh closes.
    async fn departure(&mut self) {
        let closing = self.member.context.closing.clone();
        let hurry = async move {
            closing.cancelled().await;
            tokio::time::sleep(GRACE + GRACE).await;
        };
        tokio::pin!(hurry);
        loop {
            tokio::select! {
                word = self.link.hear::<Word>() => if word.is_none() { return },
                () = &mut hurry => return,
            }
        }
    }

    async fn step(&mut self, progress: &mut Progress, life: Life) {
        if progress.published.is_some_and(|known| known != life) {
            self.member.withdraw();
            (progress.published, progress.is_told) = (None, false);
        }
        if progress.published.is_none() {
            match self.look(progress, life).await {
                Ok(false) => progress.waiting.clear(),
                Ok(true) => match self.member.publish(self.pod, &pid(life).into_iter().collect::<Vec<_>>()) {
                    Ok(()) => progress.published = Some(life),
                    Err(why) => progress.waiting = why,
                },
                Err(why) => progress.waiting = why,
            }
        }
        if progress.published.is_some() && !progress.is_told {
            match self.member.context.arrived(0).await {
                None => {
                    progress.is_told = true;
                    progress.waiting.clear();
                    self.link.say(&Reply::Ready).await;
                }
                Some(why) => progress.waiting = why,
            }
        }
    }

    /// Whether it can take requests; `false` when it is not even there, an error when it should by now.
    async fn look(&mut self, progress: &mut Progress, life: Life) -> Result<bool, String> {
        if self.pod.is_meshed() && pid(life).is_none() {
            return Err("its sidecar does not run".to_owned());
        }
        self.member.look_at_sidecar(self.pod, pid(life)).await?;
        if !progress.is_seated {
            progress.is_seated = true;
            self.link.say(&Reply::Seated(self.seated(life))).await;
        }
        let Some(started) = progress.started else { return Ok(false) };
        self.member.look_at_application(self.pod, pid(life), started).await?;
        if let Some(probe) = &self.probe {
            ask(self.pod, probe).await?;
        }
        Ok(true)
    }

    fn seated(&self, life: Life) -> Seated {
        let program = self.pod.template.programs.first();
        let variables = program.map(|program| self.pod.variables(program)).unwrap_or_default();
        Seated {
            name: self.pod.name.clone(),
            address: self.pod.address.to_string(),
            beside: pid(life).filter(|_| self.pod.is_captured()),
            variables: variables.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

fn pid(life: Life) -> Option<u32> {
    match life {
        Life::Running { pid, .. } => Some(pid),
        Life::Down | Life::Ended => None,
    }
}

/// What the process itself says of whether it is ready, asked at 127.0.0.1 beside it.
async fn ask(pod: &Pod, probe: &Probe) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, probe.port));
    let status = match pod.place.clone() {
        None => probe::status(address, "GET", &probe.path).await,
        Some(place) => {
            let connect =
                move || place.inside(move || std::net::TcpStream::connect_timeout(&address, ASK_INTERVAL));
            match tokio::task::spawn_blocking(connect).await.map_err(io::Error::other).flatten() {
                Ok(stream) => probe::status_over(stream, "GET", &probe.path).await,
                Err(_) => None,
            }
        }
    };
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => {
            Err(format!("it answers {status} to GET {} at port {}, not 2xx", probe.path, probe.port))
        }
        None => Err(format!("it does not answer to GET {} at port {} yet", probe.path, probe.port)),
    }
}

/// Leads from its place to a process that runs already on the machine around, as long as what is returned lives.
fn relays(request: &Request, pod: &Pod, network: Option<&Arc<Network>>) -> io::Result<JoinSet<()>> {
    let mut relays = JoinSet::new();
    let (Some(network), Some(place), true) = (network, &pod.place, request.runs_already) else {
        return Ok(relays);
    };
    for (_, local) in &pod.ports {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, *local));
        let listener = place.inside(move || std::net::TcpListener::bind(at))?;
        listener.set_nonblocking(true)?;
        let (listener, door) = (TcpListener::from_std(listener)?, network.door.clone());
        relays.spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else {
                    tokio::time::sleep(ASK_INTERVAL).await;
                    continue;
                };
                let door = door.clone();
                tokio::spawn(async move {
                    let mut target = door.connect(at).await?;
                    copy_bidirectional::<TcpStream, _>(&mut client, &mut target).await
                });
            }
        });
    }
    Ok(relays)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_service_that_is_not_there_is_told_with_those_that_are() {
        let folder = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {selector: {app: cart}, ports: [{port: 80}]}\n---\n\
                      apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\n\
                      apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";
        let parsed = api::parse("m.yaml", folder);
        let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
        let services = super::super::plan::plan(&objects, &[]).0.services;
        assert_eq!(find(&services, "cart").unwrap().template.namespace, "shop");
        assert_eq!(find(&services, "default/web").unwrap().template.namespace, "default");
        let error = find(&services, "crat").unwrap_err();
        assert_eq!(error, "there is no Service `crat`; there are: web, shop/cart, shop/web");
        assert!(find(&services, "web").unwrap_err().contains("several namespaces"));
    }
}
