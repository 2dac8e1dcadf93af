//! What one delta stream answers, request by request.
#![allow(clippy::unwrap_used)]

use envoy_types::pb::google::rpc::Status;

use super::*;

const CDS: &str = MAKE_ORDER[0];
const LDS: &str = MAKE_ORDER[2];

fn set(resources: &[(&str, &str, &str)]) -> ResourceSet {
    let mut set = ResourceSet::new("1");
    for (type_url, name, version) in resources {
        set.insert(type_url, name, version, version.as_bytes());
    }
    set
}

fn ask(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn names(response: &DeltaResponse) -> Vec<String> {
    response.message().resources.into_iter().map(|resource| resource.name).collect()
}

#[test]
fn an_empty_first_request_is_a_wildcard_and_a_change_sends_only_what_changed() {
    let mut stream = DeltaStream::new(10);
    let first = stream.request(ask(CDS, &[]), &set(&[(CDS, "a", "1"), (CDS, "b", "1")])).unwrap().remove(0);
    assert_eq!(names(&first), ["a", "b"]);
    let next = stream.change(&set(&[(CDS, "a", "1"), (CDS, "b", "2")]));
    assert_eq!(next.len(), 1);
    assert_eq!(names(&next[0]), ["b"]);
}

#[test]
fn an_empty_wildcard_is_answered() {
    assert!(DeltaStream::new(10).request(ask(CDS, &[]), &set(&[])).unwrap().len() == 1);
}

#[test]
fn an_absent_name_is_said_to_be_absent_once_and_sent_when_it_appears() {
    let mut stream = DeltaStream::new(10);
    let first = stream.request(ask(CDS, &["a"]), &set(&[])).unwrap().remove(0);
    assert_eq!(first.message().removed_resources, ["a"]);
    assert!(stream.change(&set(&[(CDS, "b", "1")])).is_empty());
    assert_eq!(names(&stream.change(&set(&[(CDS, "a", "1")]))[0]), ["a"]);
}

#[test]
fn a_reconnecting_client_gets_only_what_it_missed() {
    let mut request = ask(CDS, &["*"]);
    request.initial_resource_versions =
        [("a", "1"), ("b", "1"), ("gone", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let now = set(&[(CDS, "a", "1"), (CDS, "b", "2")]);
    let answer = DeltaStream::new(10).request(request, &now).unwrap().remove(0);
    assert_eq!(
        (names(&answer), answer.message().removed_resources),
        (vec!["b".to_owned()], vec!["gone".to_owned()])
    );
}

#[test]
fn a_refusal_is_recorded_once_with_its_names_and_not_sent_again() {
    let mut stream = DeltaStream::new(10);
    let now = set(&[(CDS, "a", "1")]);
    let first = stream.request(ask(CDS, &["a"]), &now).unwrap().remove(0);
    let mut refusal = ask(CDS, &[]);
    refusal.response_nonce = first.nonce().to_owned();
    refusal.error_detail = Some(Status { message: "bad a".to_owned(), ..Status::default() });
    assert!(stream.request(refusal.clone(), &now).unwrap().is_empty());
    assert!(stream.request(refusal, &now).unwrap().is_empty(), "the nonce is stale by now");
    let rejections = stream.take_rejections();
    assert_eq!(rejections.len(), 1);
    assert_eq!(
        (rejections[0].names.as_slice(), rejections[0].message.as_str()),
        (&["a".to_owned()][..], "bad a")
    );
    assert_eq!(stream.change(&set(&[(CDS, "a", "2")])).len(), 1);
}

#[test]
fn additions_go_from_clusters_to_listeners_and_removals_back() {
    let mut stream = DeltaStream::new(10);
    let old = set(&[(LDS, "old", "1"), (CDS, "old", "1")]);
    stream.request(ask(LDS, &[]), &old).unwrap();
    stream.request(ask(CDS, &[]), &old).unwrap();
    let next = stream.change(&set(&[(LDS, "new", "1"), (CDS, "new", "1")]));
    let order: Vec<_> = next.iter().map(|r| (r.type_url(), r.message().removed_resources.len())).collect();
    assert_eq!(order, [(CDS, 0), (LDS, 0), (LDS, 1), (CDS, 1)]);
}

#[test]
fn an_unsubscribed_name_is_no_longer_sent() {
    let mut stream = DeltaStream::new(10);
    stream.request(ask(CDS, &["a"]), &set(&[(CDS, "a", "1")])).unwrap();
    let mut leave = ask(CDS, &[]);
    leave.resource_names_unsubscribe = vec!["a".to_owned()];
    assert!(stream.request(leave, &set(&[(CDS, "a", "1")])).unwrap().is_empty());
    assert!(stream.change(&set(&[(CDS, "a", "2")])).is_empty());
}

#[test]
fn a_stream_over_its_bound_is_refused() {
    let error = DeltaStream::new(2).request(ask(CDS, &["a", "b"]), &set(&[])).unwrap_err();
    assert_eq!(error, TooManySubscriptions { wanted: 3, limit: 2 });
}

#[test]
fn stock_envoy_is_sent_the_endpoints_of_a_changed_cluster_once_more() {
    const EDS: &str = MAKE_ORDER[1];
    for repeats in [false, true] {
        let mut stream = DeltaStream::new(10);
        if repeats {
            stream.repeat_endpoints();
        }
        let old = [(CDS, "a", "1"), (CDS, "b", "1"), (EDS, "a", "1"), (EDS, "b", "1"), (EDS, "c", "1")];
        stream.request(ask(CDS, &[]), &set(&old)).unwrap();
        stream.request(ask(EDS, &["a", "b", "c"]), &set(&old)).unwrap();
        let mut new = old;
        (new[0].2, new[4].2) = ("2", "2");
        let sent = stream.change(&set(&new));
        let sent: Vec<_> = sent.iter().map(|response| (response.type_url(), names(response))).collect();
        let endpoints: &[&str] = if repeats { &["a", "c"] } else { &["c"] };
        let endpoints = endpoints.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(sent, [(CDS, vec!["a".to_owned()]), (EDS, endpoints)]);
    }
}

#[test]
fn a_long_answer_comes_in_pieces_that_are_acknowledged_one_by_one() {
    let mut now = ResourceSet::new("1");
    for n in 0..10 {
        now.insert(CDS, &format!("c{n}"), "1", vec![b'x'; 800 << 10]);
    }
    let mut stream = DeltaStream::new(100);
    let pieces = stream.request(ask(CDS, &[]), &now).unwrap();
    assert_eq!(pieces.iter().map(DeltaResponse::size).collect::<Vec<_>>(), [2; 5]);
    let nonces: BTreeSet<_> = pieces.iter().map(|piece| piece.nonce().to_owned()).collect();
    assert_eq!(nonces.len(), 5);

    let mut refusal = ask(CDS, &[]);
    refusal.response_nonce = pieces[3].nonce().to_owned();
    refusal.error_detail = Some(Status { message: "no".to_owned(), ..Status::default() });
    stream.request(refusal, &now).unwrap();
    assert_eq!(stream.take_rejections()[0].names, ["c6", "c7"]);

    // Changes as well, and what is gone is told once.
    let mut later = ResourceSet::new("2");
    for n in 0..9 {
        later.insert(CDS, &format!("c{n}"), "2", vec![b'y'; 800 << 10]);
    }
    let told = stream.change(&later);
    assert_eq!(told.iter().map(DeltaResponse::size).collect::<Vec<_>>(), [2, 2, 2, 2, 1, 1]);
    assert_eq!(told[5].removed(), ["c9"]);
}
