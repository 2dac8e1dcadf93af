//! What files say of how proxies are run: MeshConfig, ProxyConfigs and the annotation of pods. What they mean for a process
//! is for `context` and `replica`.

use api::kubernetes::TemplateMetadata;
use api::local_mesh::LocalMesh;
use api::mesh_config;
use api::networking::ProxyConfig;
use api::{Object, Spec};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Annotation of pods with settings of their proxy.
const ANNOTATION: &str = "proxy.istio.io/config";
/// Namespace of settings for all in meshes that name none.
const ROOT_NAMESPACE: &str = "istio-system";

/// How a proxy is run, as far as somebody says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Settings {
    /// Worker threads; 0 for one per core.
    pub(super) threads: Option<u32>,
    /// How long requests may go on when it is told to end.
    pub(super) drain: Option<Duration>,
}

impl Settings {
    fn of(written: &mesh_config::ProxyConfig) -> Self {
        Self { threads: threads(written.concurrency), drain: written.termination_drain_duration }
    }

    /// These, and where they say nothing the `others`.
    fn or(self, others: Self) -> Self {
        Self { threads: self.threads.or(others.threads), drain: self.drain.or(others.drain) }
    }
}

fn threads(written: Option<i32>) -> Option<u32> {
    u32::try_from(written?).ok()
}

/// Where settings are written.
pub(super) struct Sources<'s> {
    pub(super) objects: &'s [Arc<Object>],
    pub(super) meshes: &'s [&'s LocalMesh],
}

impl Sources<'_> {
    /// The settings of a proxy in `namespace`: as a ProxyConfig says that selects it, else its annotation, else the
    /// namespace's ProxyConfig, else the mesh's, else MeshConfig.
    pub(super) fn settings(&self, namespace: &str, metadata: &TemplateMetadata) -> Settings {
        let annotation = metadata.annotations.get(ANNOTATION);
        // What is wrong with it is told where it is read as a part of its Deployment.
        let annotation = annotation.and_then(|text| mesh_config::ProxyConfig::read(text).ok());
        let mesh = self.meshes.first().map(|mesh| &mesh.mesh_config);
        let root = mesh.map(|mesh| mesh.root_namespace.as_str()).filter(|name| !name.is_empty());
        let general = |namespace: &str| self.written(namespace, |labels| labels.is_empty());
        let selects = |labels: &BTreeMap<String, String>| {
            !labels.is_empty() && labels.iter().all(|(key, value)| metadata.labels.get(key) == Some(value))
        };
        let default = mesh.and_then(|mesh| mesh.default_config.as_ref()).map(Settings::of);
        self.written(namespace, selects)
            .or(annotation.as_ref().map(Settings::of).unwrap_or_default())
            .or(general(namespace))
            .or(general(root.unwrap_or(ROOT_NAMESPACE)))
            .or(default.unwrap_or_default())
    }

    /// What the first ProxyConfig of a namespace says whose selector is `wanted`.
    fn written(&self, namespace: &str, wanted: impl Fn(&BTreeMap<String, String>) -> bool) -> Settings {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let labels = |config: &ProxyConfig| match &config.selector {
            Some(selector) => wanted(&selector.match_labels),
            None => wanted(&NONE),
        };
        let all = self.objects.iter().filter(|object| object.namespace() == namespace);
        let mut all = all.filter_map(|object| match &object.spec {
            Spec::ProxyConfig(config) => Some(config),
            _ => None,
        });
        let found = all.find(|config| labels(config));
        Settings { threads: found.and_then(|config| threads(config.concurrency)), drain: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(namespace: &str, selector: &str, threads: u32) -> String {
        format!(
            "---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: a{threads}, namespace: {namespace}}}\n\
             spec: {{{selector}concurrency: {threads}}}\n"
        )
    }

    #[test]
    fn the_settings_nearest_to_a_proxy_count() {
        let mesh = "apiVersion: ieum.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: m}\n\
                    spec: {meshConfig: {defaultConfig: {concurrency: 1, terminationDrainDuration: 9s}}}\n";
        let all = [
            config("istio-system", "", 2),
            config("shop", "", 3),
            config("shop", "selector: {matchLabels: {app: a}}, ", 5),
        ];
        let seen = |count: usize, namespace: &str, app: &str, annotation: &str| {
            let parsed = api::parse("m.yaml", &format!("{mesh}{}", all[..count].concat()));
            assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
            let objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
            let meshes: Vec<&LocalMesh> = objects
                .iter()
                .filter_map(|object| match &object.spec {
                    Spec::LocalMesh(mesh) => Some(&**mesh),
                    _ => None,
                })
                .collect();
            let mut metadata = TemplateMetadata::default();
            metadata.labels.insert("app".to_owned(), app.to_owned());
            metadata.annotations.insert(ANNOTATION.to_owned(), annotation.to_owned());
            let sources = Sources { objects: &objects, meshes: &meshes };
            let settings = sources.settings(namespace, &metadata);
            (settings.threads.unwrap(), settings.drain.unwrap().as_secs())
        };
        assert_eq!(seen(0, "shop", "a", ""), (1, 9));
        assert_eq!(seen(1, "shop", "a", ""), (2, 9));
        assert_eq!(seen(3, "shop", "b", ""), (3, 9));
        assert_eq!(seen(3, "shop", "b", "{concurrency: 4, terminationDrainDuration: 7s}"), (4, 7));
        assert_eq!(seen(3, "shop", "a", "concurrency: 4"), (5, 9));
        assert_eq!(seen(3, "other", "a", ""), (2, 9));
    }
}
