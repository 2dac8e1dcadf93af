//! The client against the server: whatever happens, both end with the same resources.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::resources::ResourceSet;
use crate::sotw::SotwStream;

const CDS: &str = MAKE_ORDER[0];
const EDS: &str = MAKE_ORDER[1];

/// A resource as small as can be.
#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    says: String,
}

fn body(name: &str, says: &str) -> Vec<u8> {
    Sample { name: name.to_owned(), says: says.to_owned() }.encode_to_vec()
}

fn decode(_: &str, any: &Any) -> Result<Vec<u8>, String> {
    if any.value.ends_with(b"bad") { Err("is bad".to_owned()) } else { Ok(any.value.clone()) }
}

fn set(type_url: &str, resources: &[(&str, &str)]) -> ResourceSet {
    let mut set = ResourceSet::new("7");
    for (name, says) in resources {
        set.insert(type_url, name, says, body(name, says));
    }
    set
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

struct World {
    dice: Dice,
    client: SotwClient,
    stream: SotwStream,
    mirror: BTreeMap<String, Vec<u8>>,
    resources: BTreeMap<String, String>,
}

impl World {
    fn set(&self, type_url: &str) -> ResourceSet {
        let resources: Vec<_> = self.resources.iter().map(|(n, s)| (n.as_str(), s.as_str())).collect();
        set(type_url, &resources)
    }

    fn change(&mut self, step: u64) {
        for _ in 0..self.dice.roll(4) {
            let name = format!("r{}", self.dice.roll(8));
            match self.dice.roll(3) {
                0 => self.resources.remove(&name),
                _ => self.resources.insert(name, step.to_string()),
            };
        }
    }

    /// Sends requests, and answers responses until nothing is left to say.
    fn settle(&mut self, mut requests: Vec<DiscoveryRequest>, type_url: &str) {
        let now = self.set(type_url);
        let mut responses = self.stream.change(&now);
        while !requests.is_empty() || !responses.is_empty() {
            let answers =
                requests.drain(..).filter_map(|request| self.stream.request(request, &now).unwrap());
            responses.extend(answers.collect::<Vec<_>>());
            for response in responses.drain(..) {
                let applied = self.client.apply(response, decode);
                self.mirror.retain(|name, _| !applied.removed.contains(name));
                self.mirror.extend(applied.accepted);
                requests.extend(applied.answer);
            }
        }
    }
}

fn run(seed: u64, type_url: &str, wanted: &[&str]) {
    let mut world = World {
        dice: Dice(seed),
        client: SotwClient::new(),
        stream: SotwStream::new(100),
        mirror: BTreeMap::new(),
        resources: BTreeMap::new(),
    };
    let mut wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    let mut requests = vec![world.client.subscribe(type_url, &wanted.iter().copied().collect::<Vec<_>>())];
    for step in 0..200 {
        world.change(step);
        if world.dice.roll(10) == 0 {
            world.stream = SotwStream::new(100);
            requests = world.client.resume();
        }
        if world.dice.roll(10) == 0 {
            if wanted.insert("r7") {
                requests.push(world.client.subscribe(type_url, &["r7"]));
            } else {
                wanted.remove("r7");
                world.mirror.retain(|name, _| name != "r7" || wanted.contains("*"));
                requests.extend(world.client.unsubscribe(type_url, &["r7"]));
            }
        }
        world.settle(std::mem::take(&mut requests), type_url);
        let is_wanted = |name: &str| wanted.contains("*") || wanted.contains(name);
        let expected: BTreeMap<_, _> = world.resources.iter().filter(|(name, _)| is_wanted(name)).collect();
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(name, says)| (name.clone(), body(name, says))).collect();
        if !is_whole(type_url) {
            // What only the server dropped stays, until whatever refers to it goes.
            world.mirror.retain(|name, _| expected.contains_key(name));
        }
        assert_eq!(world.mirror, expected, "seed {seed}, step {step}, {type_url}, wanted {wanted:?}");
    }
}

#[test]
fn after_any_changes_and_reconnections_the_client_has_what_the_server_has() {
    for seed in 1..=50 {
        run(seed * 7919, CDS, &["*"]);
        run(seed * 7919, CDS, &["r1", "r2", "r5"]);
        run(seed * 7919, CDS, &["*", "r3"]);
        run(seed * 7919, EDS, &["r1", "r2", "r5"]);
    }
}

#[test]
fn a_refusal_keeps_the_last_accepted_version_and_the_good_resources_are_used() {
    let (mut client, mut stream) = (SotwClient::new(), SotwStream::new(10));
    let good = set(CDS, &[("a", "1"), ("b", "1"), ("c", "1")]);
    let first = client.subscribe(CDS, &["*"]);
    assert!(first.resource_names.is_empty(), "older servers know no `*`");
    let response = stream.request(first, &good).unwrap().unwrap();
    let accepted = client.apply(response, decode).answer.unwrap();
    assert_eq!((accepted.version_info.as_str(), accepted.error_detail.is_none()), ("7", true));
    stream.request(accepted, &good).unwrap();
    let mut worse = ResourceSet::new("8");
    worse.insert(CDS, "a", "2", body("a", "2"));
    worse.insert(CDS, "b", "2", body("b", "bad"));
    let applied = client.apply(stream.change(&worse).remove(0), decode);
    assert_eq!(applied.accepted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(applied.removed, ["c"], "absent is gone; refused stays");
    let answer = applied.answer.unwrap();
    assert_eq!(answer.version_info, "7");
    stream.request(answer, &worse).unwrap();
    assert_eq!(stream.take_rejections()[0].message, "b: is bad");
}

#[test]
fn wrapped_resources_are_unwrapped_and_nameless_ones_refused_without_removing_others() {
    let mut client = SotwClient::new();
    client.subscribe(CDS, &["*"]);
    let bare = |bytes: Vec<u8>| Any { type_url: CDS.to_owned(), value: bytes };
    let wrapped = Resource { resource: Some(bare(body("a", "1"))), ..Resource::default() };
    let wrapped = Any { type_url: WRAPPER.to_owned(), value: wrapped.encode_to_vec() };
    let response =
        |resources| DiscoveryResponse { type_url: CDS.to_owned(), resources, ..Default::default() };
    assert_eq!(client.apply(response(vec![wrapped]), decode).accepted[0].0, "a");
    let applied = client.apply(response(vec![bare(Vec::new()), bare(vec![0xff])]), decode);
    assert_eq!(applied.rejected[0], ("resource 0".to_owned(), "has no name".to_owned()));
    assert!(applied.rejected[1].1.contains("cannot be read") && applied.removed.is_empty());
    assert!(applied.answer.unwrap().error_detail.is_some());
}

#[test]
fn a_type_that_was_never_asked_for_is_not_answered() {
    let response = DiscoveryResponse { type_url: CDS.to_owned(), ..Default::default() };
    assert!(SotwClient::new().apply(response, decode).answer.is_none());
}

#[test]
fn a_new_stream_claims_a_version_only_where_it_covers_all_that_is_wanted() {
    let (mut client, mut stream) = (SotwClient::new(), SotwStream::new(10));
    let now = set(EDS, &[("a", "1")]);
    let response = stream.request(client.subscribe(EDS, &["a"]), &now).unwrap().unwrap();
    client.apply(response, decode);
    let again = client.resume();
    assert_eq!((again[0].version_info.as_str(), again[0].response_nonce.as_str()), ("7", ""));
    client.subscribe(EDS, &["b"]);
    assert_eq!(client.resume()[0].version_info, "");
    client.unsubscribe(EDS, &["a", "b"]).unwrap();
    assert!(client.resume().is_empty());
}

#[test]
fn everything_cannot_be_given_up_where_no_name_was_sent() {
    let mut client = SotwClient::new();
    client.subscribe(CDS, &["*"]);
    assert!(client.unsubscribe(CDS, &["*"]).is_none());
}
