//! The client against the server: whatever happens, both end with the same resources.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::resources::{Layer, ResourceSet, VersionedResource};
use crate::server::DeltaStream;
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use std::sync::Arc;

const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

fn decode(_: &str, any: &Any) -> Result<Vec<u8>, String> {
    if any.value == b"bad" { Err("is bad".to_owned()) } else { Ok(any.value.clone()) }
}

/// A small xorshift generator: the same numbers on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// All resources, in one layer or in two.
fn set(resources: &BTreeMap<String, u64>, split: bool) -> ResourceSet {
    let mut set = ResourceSet::new("1");
    let mut layers = [Layer::default(), Layer::default()];
    for (at, (name, version)) in resources.iter().enumerate() {
        let text = version.to_string();
        let resource = VersionedResource::new(CDS, name, &text, text.as_bytes());
        layers[if split { at % 2 } else { 0 }].insert(name.as_str().into(), resource);
    }
    layers.into_iter().for_each(|layer| set.add(CDS, Arc::new(layer)));
    set
}

#[derive(Default)]
struct Mirror(BTreeMap<String, Vec<u8>>);

impl Mirror {
    fn take(&mut self, client: &mut DeltaClient, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let applied = client.apply(response, decode);
        self.0.extend(applied.accepted);
        self.0.retain(|name, _| !applied.removed.contains(name));
        applied.answer
    }
}

fn run(seed: u64, wanted: &[&str]) {
    let mut dice = Dice(seed);
    let (mut client, mut stream, mut mirror) = (DeltaClient::new(), DeltaStream::new(100), Mirror::default());
    let mut resources = BTreeMap::new();
    client.subscribe(CDS, wanted);
    let mut requests = client.resume();
    for step in 0..200 {
        // Now and then a set of other layers, as when a proxy's class changes.
        let split = dice.roll(4) == 0;
        for _ in 0..dice.roll(4) {
            let name = format!("r{}", dice.roll(8));
            if dice.roll(3) == 0 {
                resources.remove(&name);
            } else {
                resources.insert(name, step);
            }
        }
        let now = set(&resources, split);
        if dice.roll(10) == 0 {
            stream = DeltaStream::new(100);
            requests = client.resume();
        }
        let mut responses: Vec<_> =
            requests.drain(..).flat_map(|request| stream.request(request, &now).unwrap()).collect();
        responses.extend(stream.change(&now));
        requests =
            responses.into_iter().map(|response| mirror.take(&mut client, response.message())).collect();
        let is_wanted = |name: &str| wanted.contains(&"*") || wanted.contains(&name);
        let expected: BTreeMap<_, _> = resources.iter().filter(|(name, _)| is_wanted(name)).collect();
        let expected: BTreeMap<_, _> = expected
            .into_iter()
            .map(|(name, version)| (name.clone(), version.to_string().into_bytes()))
            .collect();
        assert_eq!(mirror.0, expected, "seed {seed}, step {step}, wanted {wanted:?}");
    }
}

#[test]
fn after_any_changes_and_reconnections_the_client_has_what_the_server_has() {
    for seed in 1..=50 {
        run(seed * 7919, &["*"]);
        run(seed * 7919, &["r1", "r2", "r5"]);
        run(seed * 7919, &["*", "r3"]);
    }
}

#[test]
fn a_bad_resource_is_refused_by_name_and_the_good_one_beside_it_is_used() {
    let (mut client, mut stream) = (DeltaClient::new(), DeltaStream::new(10));
    let mut now = ResourceSet::new("1");
    now.insert(CDS, "a", "1", *b"good");
    now.insert(CDS, "b", "1", *b"bad");
    let response = stream.request(client.subscribe(CDS, &["*"]), &now).unwrap().remove(0);
    let applied = client.apply(response.message(), decode);
    assert_eq!(applied.accepted, [("a".to_owned(), b"good".to_vec())]);
    assert!(stream.request(applied.answer, &now).unwrap().is_empty());
    assert_eq!(stream.take_rejections()[0].message, "b: is bad");
    assert_eq!(client.resume()[0].initial_resource_versions.keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn what_is_no_longer_wanted_is_neither_used_nor_resumed() {
    let (mut client, mut stream) = (DeltaClient::new(), DeltaStream::new(10));
    let mut now = ResourceSet::new("1");
    now.insert(CDS, "a", "1", *b"good");
    let response = stream.request(client.subscribe(CDS, &["a"]), &now).unwrap().remove(0);
    client.unsubscribe(CDS, &["a"]);
    let applied = client.apply(response.message(), decode);
    assert!(applied.accepted.is_empty() && applied.answer.error_detail.is_none());
    assert!(client.resume().is_empty());
}

#[test]
fn a_resource_that_goes_by_other_names_is_followed_under_its_own() {
    const HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
    let response = |name: &str, aliases: &[&str], is_there: bool| DeltaDiscoveryResponse {
        type_url: HOST.to_owned(),
        resources: vec![Resource {
            name: name.to_owned(),
            version: "1".to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            resource: is_there.then(Any::default),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    };
    let mut client = DeltaClient::new();
    let take = |client: &mut DeltaClient, response| {
        let applied = client.apply(response, |_, _| Ok(()));
        (applied.accepted.len(), applied.removed.join(" "))
    };
    client.subscribe(HOST, &["t/a", "t/b", "t/c"]);
    assert_eq!(take(&mut client, response("t/x", &["t/a", "t/b"], true)), (1, String::new()));
    assert_eq!(take(&mut client, response("t/x", &[], true)), (1, String::new()));
    assert_eq!(take(&mut client, response("t/y", &["t/other"], true)), (0, String::new()));
    assert_eq!(take(&mut client, response("t/c", &["t/c"], false)), (0, "t/c".to_owned()));
    client.unsubscribe(HOST, &["t/a"]);
    assert_eq!(client.resume()[0].initial_resource_versions.len(), 1);
    client.unsubscribe(HOST, &["t/b"]);
    assert!(client.resume()[0].initial_resource_versions.is_empty());
    assert_eq!(take(&mut client, response("t/x", &[], true)), (0, String::new()));
}
