//! From the texts of all files to a mesh that can be published: resources in force, what is wrong with them, and what
//! they come to. Each look is whole; nothing here waits.

use super::files::Files;
use crate::admin::ConfigurationStatus;
use crate::event::{Event, Report};
use crate::generation::Generation;
use crate::references;
use crate::source::SourceError;
use crate::store::Store;
use crate::translate::{Mesh, translate_after};
use crate::world::World;
use api::{Diagnostic, Severity};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use xds::resources::VersionedResource;

/// The configuration as it is in force.
pub(super) struct Configuration {
    files: Files,
    store: Store,
    problems: Problems,
    status: Arc<ArcSwap<ConfigurationStatus>>,
    report: Report,
    pending: Option<Pending>,
    /// What the resources in force last came to.
    mesh: Option<Arc<Mesh>>,
    /// References to what is not there.
    dangling: Vec<Diagnostic>,
    trust_domain: String,
    /// Whether anything has been read yet.
    is_loaded: bool,
}

/// A mesh that waits to be published.
pub(super) struct Pending {
    revision: u64,
    mesh: Arc<Mesh>,
    /// First part of its identities.
    pub(super) trust_domain: String,
}

impl Pending {
    /// The generation to be served after `before`.
    pub(super) fn publish(self, trust_bundle: &VersionedResource, before: Option<&Generation>) -> Generation {
        Generation::new(self.revision, self.mesh, trust_bundle.clone(), before)
    }
}

impl Configuration {
    /// The configuration at `paths`, of which nothing has been read yet.
    pub(super) fn new(paths: Vec<PathBuf>, report: Report) -> Self {
        Self {
            files: Files::new(paths),
            store: Store::default(),
            problems: Problems::default(),
            status: Arc::default(),
            report,
            pending: None,
            mesh: None,
            dangling: Vec::new(),
            trust_domain: String::new(),
            is_loaded: false,
        }
    }

    /// What it came to, kept up to date.
    pub(super) fn status(&self) -> Arc<ArcSwap<ConfigurationStatus>> {
        self.status.clone()
    }

    /// Reads everything for the first time.
    pub(super) fn load(&mut self) -> Pending {
        self.look();
        self.pending.take().unwrap_or_else(|| {
            let world = World::default();
            Pending { revision: 0, mesh: Arc::default(), trust_domain: world.trust_domain().to_owned() }
        })
    }

    /// A mesh that differs from the last one taken, if there is one.
    pub(super) fn take_pending(&mut self) -> Option<Pending> {
        self.pending.take()
    }

    /// Reads everything again. Returns when to do so once more, whatever happens.
    pub(super) fn look(&mut self) -> Option<Instant> {
        // What such files say is gone as soon as they are.
        let entries = self.store.files_of_entries();
        let reading = self.files.read(Instant::now(), |name| entries.contains(name));
        let unreadable: Vec<Diagnostic> = reading.errors.iter().map(unreadable).collect();
        if reading.changed || !self.is_loaded {
            self.is_loaded = true;
            self.compile(unreadable);
        } else if self.problems.unreadable != unreadable {
            self.tell(unreadable, self.problems.others.clone());
        }
        reading.again_at
    }

    /// Makes the texts the resources in force, and those a mesh.
    fn compile(&mut self, unreadable: Vec<Diagnostic>) {
        let before = self.store.revision();
        let mut diagnostics = self.store.update(self.files.texts()).diagnostics;
        let world = World::of(&self.store.in_order());
        let (mesh, found) = translate_after(&world, self.mesh.as_deref());
        let mesh = Arc::new(mesh);
        // Workloads refer to nothing, and nothing to them.
        if self.mesh.as_ref().is_none_or(|before| !before.differs_only_in_workloads(&mesh)) {
            self.dangling = references::check(world.objects());
        }
        diagnostics.extend_from_slice(&self.dangling);
        self.mesh = Some(mesh.clone());
        diagnostics.extend(found);
        if !self.trust_domain.is_empty() && self.trust_domain != world.trust_domain() {
            diagnostics.extend(self.trust_domain_change(&world));
        }
        diagnostics.sort();
        diagnostics.dedup();
        let revision = self.store.revision();
        if revision != before || self.trust_domain.is_empty() {
            if self.trust_domain.is_empty() {
                self.trust_domain = world.trust_domain().to_owned();
            }
            self.pending = Some(Pending { revision, mesh, trust_domain: self.trust_domain.clone() });
        }
        self.tell(unreadable, diagnostics);
        if revision != before {
            (self.report)(Event::Published { revision, resources: self.store.len() });
        }
    }

    /// Every certificate would have to change at once; that takes a restart.
    fn trust_domain_change(&self, world: &World) -> Option<Diagnostic> {
        let object = world.local_mesh_object()?;
        let text = format!(
            "the trust domain stays `{}` until the control plane is started again",
            self.trust_domain
        );
        Some(object.warning("spec.meshConfig.trustDomain", text))
    }

    fn tell(&mut self, unreadable: Vec<Diagnostic>, others: Vec<Diagnostic>) {
        let diagnostics: Vec<Diagnostic> = unreadable.iter().chain(&others).cloned().collect();
        self.problems.replace(unreadable, others, &self.report);
        self.status.store(Arc::new(ConfigurationStatus {
            revision: self.store.revision(),
            files: self.files.texts().len(),
            resources: self.store.len(),
            diagnostics,
        }));
    }
}

fn unreadable(error: &SourceError) -> Diagnostic {
    let path = match error {
        SourceError::Unreadable { path, .. }
        | SourceError::TooLarge { path, .. }
        | SourceError::NotText { path }
        | SourceError::TooDeep { path } => path,
    };
    Diagnostic::new(Severity::Error, path.to_string_lossy().into(), 0, error.to_string())
        .help("what was read from it before stays in force")
}

/// What is wrong now. Each problem is told once when it appears and once when it is gone, wherever its line moves.
#[derive(Default)]
struct Problems {
    unreadable: Vec<Diagnostic>,
    others: Vec<Diagnostic>,
}

impl Problems {
    fn replace(&mut self, unreadable: Vec<Diagnostic>, others: Vec<Diagnostic>, report: &Report) {
        let old = std::mem::replace(self, Self { unreadable, others });
        let (was, is) = (old.by_identity(), self.by_identity());
        for (_, gone) in was.iter().filter(|(identity, _)| !is.contains_key(*identity)) {
            report(Event::Mended((*gone).clone()));
        }
        for (_, new) in is.iter().filter(|(identity, _)| !was.contains_key(*identity)) {
            report(Event::Wrong((*new).clone()));
        }
    }

    fn by_identity(&self) -> BTreeMap<(&str, &str, &str, &str, Severity), &Diagnostic> {
        let all = self.unreadable.iter().chain(&self.others);
        all.map(|d| ((&*d.file, d.resource.as_str(), d.field.as_str(), d.message.as_str(), d.severity), d))
            .collect()
    }
}
