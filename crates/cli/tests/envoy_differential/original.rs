//! Connections that the kernel redirects: listeners, chains and clusters by where they wanted to go. In a network of its
//! own, with rules of nftables.

use super::bench::{self, Bench, Server, both, get_on, in_own_network, run};
use std::net::SocketAddr;
use testing::exchange::Connection;

#[test]
fn connections_go_where_they_wanted_to_go_as_in_envoy() {
    if !in_own_network("original::connections_go_where_they_wanted_to_go_as_in_envoy") {
        return;
    }
    for address in
        ["10.1.0.5", "10.1.0.6", "10.1.0.8", "10.1.0.9", "10.1.0.10", "10.9.0.1", "10.9.0.2", "10.9.0.3"]
    {
        run("ip", &format!("addr add {address}/32 dev lo"));
    }
    for address in ["fd00::5", "fd00::9"] {
        run("ip", &format!("addr add {address}/128 dev lo nodad"));
    }
    run("ip", "route add 10.2.0.0/16 dev lo");
    let ports: Vec<u16> = (0..4).map(|_| testing::process::free_port()).collect();
    let rules = format!(
        "table inet captured {{ chain output {{ type nat hook output priority -100;
           meta l4proto tcp ip saddr 10.9.0.1 redirect to :{}
           meta l4proto tcp ip6 saddr fd00::9 redirect to :{}
           meta l4proto tcp ip saddr 10.9.0.2 redirect to :{}
           meta l4proto tcp ip saddr 10.9.0.3 redirect to :{}
        }}
        }}",
        ports[0], ports[1], ports[2], ports[3]
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    run("nft", &format!("-f {}", file.path().display()));
    let at = |address: &str| address.parse::<SocketAddr>().unwrap();
    let (port, address, other) = (Server::start("port"), Server::start("address"), Server::start("other"));
    let _five = Server::start_at("five", at("10.1.0.5:9000"));
    let _six = Server::start_at("six", at("10.1.0.6:82"));
    let _six_too = Server::start_at("six, moved", at("10.1.0.6:9000"));
    let _five6 = Server::start_at("five6", at("[fd00::5]:9000"));
    let given = [
        ("OUT", ports[0]),
        ("OUT6", ports[1]),
        ("FILTER", ports[2]),
        ("UNASKED", ports[3]),
        ("PORT", port.port()),
        ("ADDRESS", address.port()),
        ("OTHER", other.port()),
    ];
    let ask = |from: &str, to: &str, path: &str, lines: &[&str]| {
        let mut connection = Connection::open_from(at(from), at(to));
        bench::shown(&get_on(&mut connection, path, lines))
    };
    let play = |bench: &Bench| {
        let direct = bench::shown(&bench.get("OUT", "/", &[]));
        let named = "x-envoy-original-dst-host: 10.1.0.5:9000";
        vec![
            ask("10.9.0.1:0", "10.1.0.5:9000", "/", &[]),
            ask("[fd00::9]:0", "[fd00::5]:9000", "/", &[]),
            ask("10.9.0.1:0", "10.1.0.5:7", "/", &[]),
            ask("10.9.0.1:0", "10.1.0.10:9000", "/", &[]),
            ask("10.9.0.1:0", "10.2.0.5:9000", "/", &[]),
            direct,
            ask("10.9.0.1:0", "10.1.0.5:80", "/", &[]),
            ask("10.9.0.1:0", "10.1.0.8:81", "/", &[]),
            ask("10.9.0.1:0", "10.1.0.9:81", "/", &[]),
            ask("10.9.0.1:0", "10.1.0.6:82", "/", &[]),
            ask("10.9.0.1:0", "10.1.0.6:82", "/named", &[named]),
            ask("10.9.0.1:0", "10.1.0.6:82", "/named", &["x-envoy-original-dst-host: nonsense"]),
            ask("10.9.0.1:0", "10.1.0.6:82", "/moved", &[]),
            ask("10.9.0.1:0", "10.1.0.9:82", "/", &[]),
            ask("10.9.0.2:0", "10.1.0.6:82", "/", &[]),
            ask("10.9.0.2:0", "10.1.0.5:80", "/", &[]),
            ask("10.9.0.3:0", "10.1.0.6:82", "/", &[]),
            ask("10.9.0.3:0", "10.1.0.6:82", "/named", &[named]),
        ]
    };
    both(
        include_str!("original.yaml"),
        &given,
        play,
        &[
            "five",
            "five6",
            "port",
            "address",
            "other",
            "other",
            "by port",
            "by address",
            "closed",
            "six",
            "five",
            "six",
            "six, moved",
            "503",
            "six",
            "503",
            "503",
            "five",
        ],
    );
}
