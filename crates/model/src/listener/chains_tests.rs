#![allow(clippy::unwrap_used)]
use super::*;
use crate::listener::{Direction, Inspection, Network, TcpProxy};
use crate::metadata::Metadata;

fn chain(name: &str, condition: ChainMatch) -> FilterChain {
    let tcp = TcpProxy { stat_prefix: String::new(), clusters: vec![], ..TcpProxy::default() };
    FilterChain { name: name.into(), condition, tls: None, network: Network::Tcp(Box::new(tcp)) }
}

fn listener(chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: "l".into(),
        address: None,
        binding: Default::default(),
        inspect: Inspection { tls: true, ..Inspection::default() },
        chains,
        default_chain: None,
        direction: Direction::Inbound,
        metadata: Metadata::default(),
        provenance: None,
    }
}

fn chosen<'l>(l: &'l Listener, sni: Option<&str>, is_tls: bool, alpn: &[&str]) -> Option<&'l str> {
    let destination = SocketAddr::from(([127, 1, 0, 5], 9080));
    let source = SocketAddr::from(([127, 0, 0, 1], 40000));
    let facts = ConnectionFacts {
        destination,
        source,
        direct_source: source.ip(),
        server_name: sni,
        is_tls,
        application_protocols: alpn,
    };
    l.chain_for(&facts).map(|c| c.name.as_str())
}

#[test]
fn a_permissive_port_takes_mesh_tls_and_plaintext_apart_and_closes_what_is_neither() {
    let mesh = ChainMatch {
        transport_protocol: Some("tls".into()),
        application_protocols: vec!["istio".into()],
        ..Default::default()
    };
    let plain = ChainMatch { transport_protocol: Some("raw_buffer".into()), ..Default::default() };
    let l = listener(vec![chain("mesh", mesh), chain("plain", plain)]);
    assert_eq!(chosen(&l, None, true, &["istio"]), Some("mesh"));
    assert_eq!(chosen(&l, None, false, &[]), Some("plain"));
    assert_eq!(chosen(&l, None, true, &["h2"]), None);
}

#[test]
fn the_most_specific_server_name_wins() {
    let name = |n: &str| ChainMatch { server_names: vec![n.into()], ..Default::default() };
    let l = listener(vec![
        chain("any", ChainMatch::default()),
        chain("wide", name("*.com")),
        chain("narrow", name("*.b.com")),
        chain("exact", name("a.b.com")),
    ]);
    assert_eq!(chosen(&l, Some("a.b.com"), true, &[]), Some("exact"));
    assert_eq!(chosen(&l, Some("x.b.com"), true, &[]), Some("narrow"));
    assert_eq!(chosen(&l, Some("b.com"), true, &[]), Some("wide"));
    assert_eq!(chosen(&l, None, true, &[]), Some("any"));
}

#[test]
fn a_chain_lost_at_one_step_does_not_come_back_at_a_later_one() {
    let port = ChainMatch { destination_port: Some(9080), ..Default::default() };
    let port_and_name = ChainMatch { server_names: vec!["x".into()], ..port };
    let name = ChainMatch { server_names: vec!["y".into()], ..Default::default() };
    let l = listener(vec![chain("port", port_and_name), chain("name", name)]);
    assert_eq!(chosen(&l, Some("y"), true, &[]), None, "the port narrowed the choice first");
}

fn range(text: &str, prefix_length: u8) -> Vec<AddressRange> {
    vec![AddressRange { address: text.parse().unwrap(), prefix_length }]
}

fn chosen_from<'l>(l: &'l Listener, source: &str, direct: &str) -> Option<&'l str> {
    let facts = ConnectionFacts {
        destination: SocketAddr::from(([10, 0, 0, 1], 80)),
        source: source.parse().unwrap(),
        direct_source: direct.parse().unwrap(),
        server_name: None,
        is_tls: false,
        application_protocols: &[],
    };
    l.chain_for(&facts).map(|c| c.name.as_str())
}

#[test]
fn where_a_client_comes_from_narrows_the_choice_last() {
    let l = listener(vec![
        chain("any", ChainMatch::default()),
        chain("behind", ChainMatch { direct_sources: range("10.9.0.0", 16), ..Default::default() }),
        chain("local", ChainMatch { source_type: SourceType::Local, ..Default::default() }),
        chain("far", ChainMatch { sources: range("10.8.0.0", 16), ..Default::default() }),
        chain("near", ChainMatch { sources: range("10.8.1.0", 24), ..Default::default() }),
        chain("port", ChainMatch { source_ports: vec![7], ..Default::default() }),
    ]);
    assert_eq!(chosen_from(&l, "10.7.0.1:9", "10.7.0.1"), Some("any"));
    assert_eq!(chosen_from(&l, "10.7.0.1:9", "10.9.0.1"), Some("behind"));
    assert_eq!(chosen_from(&l, "127.0.0.1:9", "127.0.0.1"), Some("local"));
    assert_eq!(chosen_from(&l, "10.0.0.1:9", "10.0.0.1"), Some("local"), "its own address");
    assert_eq!(chosen_from(&l, "10.8.0.1:9", "10.8.0.1"), Some("far"));
    assert_eq!(chosen_from(&l, "10.8.1.1:9", "10.8.1.1"), Some("near"));
    assert_eq!(chosen_from(&l, "10.7.0.1:7", "10.7.0.1"), Some("port"));
    assert_eq!(chosen_from(&l, "10.8.1.1:7", "10.8.1.1"), Some("near"), "the port is asked for last");
}

#[test]
fn chains_that_take_the_same_connections_are_found() {
    let name = |n: &[&str]| ChainMatch {
        server_names: n.iter().map(|n| (*n).to_owned()).collect(),
        ..Default::default()
    };
    let of = |conditions: Vec<ChainMatch>| {
        listener(conditions.into_iter().map(|c| chain("c", c)).collect()).ambiguous_chains()
    };
    assert_eq!(of(vec![name(&["a"]), name(&["b"]), name(&[])]), None);
    assert_eq!(of(vec![name(&["a"]), name(&["a"])]), Some((0, 1)));
    assert_eq!(of(vec![name(&[]), name(&["a"]), name(&[])]), Some((0, 2)));
}
