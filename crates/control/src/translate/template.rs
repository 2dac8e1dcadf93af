//! What WorkloadEntries have from elsewhere than their own `spec`: from the WorkloadGroup that they name, as what is
//! registered automatically does; and from their status, whether they are healthy. Nobody here looks after their health.

use crate::world::World;
use api::networking::{WorkloadEntry, WorkloadGroup};
use api::yaml::Node;
use api::{Object, networking};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// Annotation with the WorkloadGroup of a WorkloadEntry.
const GROUP: &str = "istio.io/autoRegistrationGroup";
/// Annotation of a WorkloadEntry whose health is looked after: until that is known, it is not healthy.
const HEALTH_CHECKED: &str = "proxy.istio.io/health-checks-enabled";
/// The condition in its status.
const HEALTHY: &str = "Healthy";

/// Every WorkloadGroup, by namespace and name.
#[derive(Debug)]
pub(super) struct Templates<'w> {
    groups: HashMap<(&'w str, &'w str), &'w WorkloadGroup>,
}

impl<'w> Templates<'w> {
    pub(super) fn of(world: &'w World) -> Self {
        let mut groups = HashMap::new();
        for (object, group) in world.workload_groups() {
            groups.entry((object.namespace(), object.meta.name.as_str())).or_insert(group);
        }
        Self { groups }
    }

    /// The entry with what its group says where it says nothing itself, and the annotations of both.
    pub(super) fn fill<'e>(
        &self,
        object: &'e Object,
        entry: &'e WorkloadEntry,
    ) -> (Cow<'e, WorkloadEntry>, Cow<'e, BTreeMap<String, String>>) {
        let own = &object.meta.annotations;
        let group = own.get(GROUP).and_then(|name| self.groups.get(&(object.namespace(), name.as_str())));
        let Some(group) = group else { return (Cow::Borrowed(entry), Cow::Borrowed(own)) };
        let metadata = group.metadata.as_ref();
        let layered = |layers: [Option<&BTreeMap<String, String>>; 3]| {
            let all = layers.into_iter().flatten().flatten();
            all.map(|(key, value)| (key.clone(), value.clone())).collect::<BTreeMap<_, _>>()
        };
        let template = &group.template;
        let or = |own: &String, other: &String| if own.is_empty() { other.clone() } else { own.clone() };
        let filled = WorkloadEntry {
            address: or(&entry.address, &template.address),
            ports: if entry.ports.is_empty() { template.ports.clone() } else { entry.ports.clone() },
            labels: layered([Some(&template.labels), metadata.map(|m| &m.labels), Some(&entry.labels)]),
            network: or(&entry.network, &template.network),
            locality: or(&entry.locality, &template.locality),
            weight: if entry.weight == 0 { template.weight } else { entry.weight },
            service_account: or(&entry.service_account, &template.service_account),
        };
        let annotations = layered([metadata.map(|m| &m.annotations), Some(own), None]);
        (Cow::Owned(filled), Cow::Owned(annotations))
    }
}

/// Whether requests may be sent to the workload: not where its status says otherwise.
pub(super) fn is_healthy(object: &Object) -> bool {
    let condition = object.source().field("status").and_then(|status| healthy(status));
    let is_checked = object.meta.annotations.get(HEALTH_CHECKED).is_some_and(|value| value == "true");
    match condition {
        Some(text) => {
            !text.eq_ignore_ascii_case("false") && (!is_checked || text.eq_ignore_ascii_case("true"))
        }
        None => !is_checked,
    }
}

fn healthy(status: &Node) -> Option<&str> {
    let conditions = status.field("conditions")?.items();
    let named = |one: &&Node| one.field("type").and_then(Node::text) == Some(HEALTHY);
    conditions.iter().find(named)?.field("status")?.text()
}

/// Of the WorkloadEntries of a world, those to which requests may be sent.
pub(super) fn healthy_entries(world: &World) -> impl Iterator<Item = &std::sync::Arc<Object>> {
    let of = |(object, _): (_, &networking::WorkloadEntry)| object;
    world.workload_entries().map(of).filter(|object| is_healthy(object))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::SourceFile;
    use crate::store::Store;
    use api::Spec;

    fn world(text: &str) -> World {
        let mut store = Store::default();
        let update = store.update(&[SourceFile { name: "a.yaml".into(), text: text.into() }]);
        assert!(update.diagnostics.is_empty(), "{:?}", update.diagnostics);
        World::of(store.objects())
    }

    fn entry(metadata: &str, spec: &str, status: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: e{metadata}}}\nspec: {{{spec}}}\n{status}\n"
        )
    }

    #[test]
    fn an_entry_has_from_its_group_what_it_does_not_say_itself() {
        let group = "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: g}\nspec:\n  \
                     metadata: {labels: {a: group, b: group}, annotations: {x: group, y: group}}\n  \
                     template: {labels: {a: template, c: template}, ports: {http: 8080}, serviceAccount: sa, weight: 7, locality: r/z}\n---\n";
        let own = entry(
            ", annotations: {istio.io/autoRegistrationGroup: g, y: own}",
            "address: 10.0.0.1, labels: {b: own}, weight: 2",
            "",
        );
        let world = world(&format!("{group}{own}"));
        let templates = Templates::of(&world);
        let (object, _) = world.workload_entries().next().unwrap();
        let Spec::WorkloadEntry(entry) = &object.spec else { panic!("no entry") };
        let (filled, annotations) = templates.fill(object, entry);
        let text = |all: &BTreeMap<String, String>| {
            all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(&filled.labels), "a=group b=own c=template");
        assert_eq!(
            (filled.weight, filled.service_account.as_str(), filled.locality.as_str()),
            (2, "sa", "r/z")
        );
        assert_eq!(filled.ports.get("http"), Some(&8080));
        assert_eq!(text(&annotations), "istio.io/autoRegistrationGroup=g x=group y=own");
    }

    #[test]
    fn a_workload_whose_status_says_that_it_is_not_healthy_gets_no_requests() {
        let seen = |metadata: &str, status: &str| {
            let condition =
                |text: &str| format!("status: {{conditions: [{{type: Healthy, status: \"{text}\"}}]}}");
            let status = if status.is_empty() { String::new() } else { condition(status) };
            healthy_entries(&world(&entry(metadata, "address: 10.0.0.1", &status))).count() == 1
        };
        let checked = ", annotations: {proxy.istio.io/health-checks-enabled: \"true\"}";
        assert!(seen("", "") && seen("", "True") && !seen("", "False"));
        // Until its health is known it has none.
        assert!(!seen(checked, "") && seen(checked, "True") && !seen(checked, "Unknown"));
    }
}
