#![allow(clippy::unwrap_used)]

use super::*;
use crate::object::Spec;

fn keys(parsed: &Parsed) -> Vec<String> {
    parsed.objects.iter().map(|object| format!("{} line {}", object.id(), object.origin.line)).collect()
}

fn lines(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";

#[test]
fn a_broken_document_leaves_its_neighbours_alone() {
    let broken = "apiVersion: v1\nkind: Service\nmetadata:\n  labels:\n    name: wrong\n  name: b # the one\n  namespace: \"n\"\nspec: {ports: [\n";
    let text = format!("{SERVICE}---\n{broken}---\n{}", SERVICE.replace("name: a", "name: c"));
    let parsed = parse("f.yaml", &text);
    assert_eq!(keys(&parsed), ["Service default/a line 1", "Service default/c line 15"]);
    assert_eq!(parsed.rejected.len(), 1);
    assert_eq!(parsed.rejected[0].key.as_ref().unwrap().to_string(), "Service n/b");
    let diagnostic = &parsed.diagnostics[0];
    assert_eq!((diagnostic.resource.as_str(), diagnostic.severity), ("Service n/b", Severity::Error));
    assert!((13..=14).contains(&diagnostic.line), "{diagnostic}");
}

#[test]
fn a_document_too_broken_to_name_is_rejected_without_a_key() {
    let parsed = parse("f.yaml", "just: [some\n");
    assert_eq!(parsed.rejected, [Rejected { key: None, origin: Origin { file: "f.yaml".into(), line: 1 } }]);
    assert!(parsed.objects.is_empty());
}

#[test]
fn lists_are_the_resources_in_them() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: b}\n---\napiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: c}\n  spec: {ports: [{port: 80}]}\n";
    let parsed = parse("f.yaml", text);
    assert_eq!(lines(&parsed), Vec::<String>::new());
    assert_eq!(
        keys(&parsed),
        ["ServiceAccount default/a line 4", "Namespace b line 7", "Service default/c line 14"]
    );
    assert_eq!(parsed.objects[2].line_of("spec.ports[0].port"), 15);
}

#[test]
fn a_duplicate_key_rejects_the_item_it_stands_in_only() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: a, name: x}\n- apiVersion: v1\n  kind: ServiceAccount\n  metadata: {name: b}\n";
    let parsed = parse("f.yaml", text);
    assert_eq!(keys(&parsed), ["ServiceAccount default/b line 7"]);
    assert_eq!(
        lines(&parsed),
        [
            "f.yaml:6:23: error: ServiceAccount default/a: name: `name` is written twice in one mapping, first on line 6 (keep one of them)"
        ]
    );
}

#[test]
fn json_is_read_too() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Service\",\n\"metadata\": {\"name\": \"a\"}, \"spec\": {\"ports\": [\n{\"port\": 80, \"targetPort\": \"web\"}]}}";
    let parsed = parse("f.json", text);
    assert_eq!(keys(&parsed), ["Service default/a line 1"]);
    assert_eq!(parsed.objects[0].line_of("spec.ports[0].targetPort"), 3);
}

#[test]
fn what_is_not_for_us_is_said_once_and_skipped() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: b, namespace: n}\n---\nimage: {tag: v1}\n---\n# nothing\n---\nnull\n";
    let parsed = parse("f.yaml", text);
    assert!(parsed.objects.is_empty() && parsed.rejected.is_empty());
    assert_eq!(
        lines(&parsed),
        [
            "f.yaml:2:1: info: ConfigMap a: kind ConfigMap (v1) is not supported yet; ignored",
            "f.yaml:6:1: warning: AuthorizationPolicy n/b: kind AuthorizationPolicy (security.istio.io/v1) is not supported yet; ignored (nothing enforces it: requests it would deny pass)",
            "f.yaml:9: warning: not a resource: `apiVersion`, `kind` and `metadata` are not all there; ignored",
        ]
    );
}

#[test]
fn a_misspelt_kind_or_version_is_an_error() {
    let check = |api_version: &str, kind: &str| {
        let parsed = parse("f", &format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n"));
        (parsed.rejected.len(), parsed.diagnostics[0].clone())
    };
    let (rejected, diagnostic) = check("networking.istio.io/v1", "VirtualSevice");
    assert_eq!((rejected, diagnostic.help.as_deref()), (1, Some("did you mean `VirtualService`?")));
    let (rejected, diagnostic) = check("networking.istio.io/v2", "VirtualService");
    assert_eq!(
        (rejected, diagnostic.help.as_deref()),
        (1, Some("write `apiVersion: networking.istio.io/v1`"))
    );
    let (rejected, diagnostic) = check("v1", "Deployment");
    assert_eq!((rejected, diagnostic.help.as_deref()), (1, Some("write `apiVersion: apps/v1`")));
    let (rejected, _) = check("gateway.networking.k8s.io/v1", "Gateway");
    assert_eq!(rejected, 0, "another group may have a kind of the same name");
    let (rejected, _) = check("serving.knative.dev/v1", "Service");
    assert_eq!(rejected, 0);
}

#[test]
fn the_namespace_stays_as_written_and_counts_as_default() {
    let parsed = parse("f", SERVICE);
    let object = &parsed.objects[0];
    assert_eq!((object.meta.namespace.as_deref(), object.namespace()), (None, "default"));
    assert!(matches!(object.spec, Spec::Service(_)));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_not_shift_lines() {
    let text =
        format!("\u{feff}{SERVICE}---\n{SERVICE}").replace('\n', "\r\n").replacen("name: a", "name: b", 1);
    let parsed = parse("f", &text);
    assert_eq!(keys(&parsed), ["Service default/b line 1", "Service default/a line 6"]);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse("f", &text);
    }

    /// Whatever one value of a good file is replaced by, reading it ends well.
    #[test]
    fn no_value_panics(at in 0_usize..40, value in "(\\[\\]|\\{\\}|-1|0|99999999999|\"\"|null|yes|1e9|[*]|a: b|- a|&x|[*]x|'|\"|\\PC{0,8})") {
        let good = include_str!("../../testdata/virtual-service/in.yaml");
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        let at = at % lines.len();
        if let Some((key, _)) = lines[at].clone().split_once(": ") {
            lines[at] = format!("{key}: {value}");
        }
        let _ = parse("f", &lines.join("\n"));
    }
}

#[test]
fn a_secret_is_read_from_both_of_its_fields_and_never_shown() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {tls.crt: |\n    aGVs\n    bG8=\n}\nstringData: {tls.key: hush}\n";
    let text = text.replace("{tls.crt: |\n    aGVs\n    bG8=\n}", "\n  tls.crt: |\n    aGVs\n    bG8=");
    let parsed = parse("f.yaml", &text);
    let Some(Spec::Secret(secret)) = parsed.objects.first().map(|o| &o.spec) else { panic!("{parsed:?}") };
    assert_eq!(secret.data.get("tls.crt").map(Vec::as_slice), Some(&b"hello"[..]));
    assert_eq!(secret.data.get("tls.key").map(Vec::as_slice), Some(&b"hush"[..]));
    assert!(!format!("{secret:?}").contains("hush"));
}
