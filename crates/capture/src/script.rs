//! Rules as a script for `nft -f`. It is one transaction: whatever of ours was in force before is replaced as a whole, so
//! that applying twice comes to the same and no packet sees half of it.

use crate::rules::{Own, Ports, Range, Ranges, Rules, SIDECAR_PORTS};
use std::fmt::{self, Display, Write};

/// The table that all rules are in.
pub const TABLE: &str = "inet ieum";

/// The script that takes all rules away, whether there are any or not.
pub fn cleaning() -> String {
    // Adding what is there already does nothing; deleting what is not there would be an error.
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

/// The script that puts `rules` in force.
pub fn script(rules: &Rules) -> String {
    let mut text = Text(cleaning());
    text.line(0, format_args!("table {TABLE} {{"));
    if let Some(port) = rules.inbound_port {
        text.inbound(rules, port);
    }
    text.private(rules);
    text.outbound(rules);
    text.line(0, "}");
    text.0
}

struct Text(String);

impl Text {
    fn line(&mut self, depth: usize, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{:1$}{line}", "", depth * 2);
    }

    fn rule(&mut self, rule: impl Display) {
        self.line(2, rule);
    }

    fn chain(&mut self, name: &str, hook: &str) {
        self.line(1, format_args!("chain {name} {{"));
        self.rule(format_args!("type {hook}; policy accept;"));
    }

    /// What comes in from elsewhere.
    fn inbound(&mut self, rules: &Rules, port: u16) {
        self.chain("inbound", "nat hook prerouting priority dstnat");
        if !rules.interfaces_except.is_empty() {
            self.rule(format_args!("iifname {} return", quoted(&rules.interfaces_except)));
        }
        for source in &rules.direct_sources {
            let family = if source.is_ipv4() { "ip" } else { "ip6" };
            self.rule(format_args!("{family} saddr {source} return"));
        }
        self.rule(format_args!("tcp dport {} return", set(&SIDECAR_PORTS)));
        if !rules.inbound_except.is_empty() {
            self.rule(format_args!("tcp dport {} return", set(&rules.inbound_except)));
        }
        match &rules.inbound {
            Ports::All => self.rule(format_args!("meta l4proto tcp redirect to :{port}")),
            Ports::Only(ports) if ports.is_empty() => {}
            Ports::Only(ports) => self.rule(format_args!("tcp dport {} redirect to :{port}", set(ports))),
        }
        self.line(1, "}");
    }

    /// What only a few may reach.
    fn private(&mut self, rules: &Rules) {
        if rules.private_ports.is_empty() {
            return;
        }
        self.chain("private", "filter hook input priority filter");
        self.rule("iifname \"lo\" accept");
        for source in &rules.direct_sources {
            let family = if source.is_ipv4() { "ip" } else { "ip6" };
            self.rule(format_args!("{family} saddr {source} accept"));
        }
        self.rule(format_args!("tcp dport {} reject with tcp reset", set(&rules.private_ports)));
        self.line(1, "}");
    }

    /// What the workload sends.
    fn outbound(&mut self, rules: &Rules) {
        self.chain("outbound", "nat hook output priority -100");
        if !rules.interfaces_except.is_empty() {
            self.rule(format_args!("oifname {} return", quoted(&rules.interfaces_except)));
        }
        let own = own(&rules.own);
        if let Some(port) = rules.inbound_port {
            // A workload that calls a service whose endpoint it is itself: to its sidecar it is a caller like any other.
            for own in &own {
                for elsewhere in ["ip daddr != 127.0.0.0/8", "ip6 daddr != ::1"] {
                    self.rule(format_args!(
                        "oifname \"lo\" {elsewhere} {own} tcp dport != 15008 redirect to :{port}"
                    ));
                }
            }
        }
        for own in &own {
            self.rule(format_args!("{own} return"));
        }
        if let Some(port) = rules.dns_port {
            // Before what stays on this machine: name servers often do.
            self.rule(format_args!("udp dport 53 redirect to :{port}"));
            self.rule(format_args!("tcp dport 53 redirect to :{port}"));
        }
        self.rule("oifname \"lo\" return");
        self.destinations(&rules.outbound_except, "return");
        if !rules.outbound_ports_except.is_empty() {
            self.rule(format_args!("tcp dport {} return", set(&rules.outbound_ports_except)));
        }
        let Some(port) = rules.outbound_port else { return self.line(1, "}") };
        let to = format!("redirect to :{port}");
        if !rules.outbound_ports.is_empty() {
            self.rule(format_args!("tcp dport {} {to}", set(&rules.outbound_ports)));
        }
        match &rules.outbound {
            Ranges::All => self.rule(format_args!("meta l4proto tcp {to}")),
            Ranges::Only(ranges) => self.destinations(ranges, &format!("meta l4proto tcp {to}")),
        }
        self.line(1, "}");
    }

    fn destinations(&mut self, ranges: &[Range], verdict: &str) {
        // One rule each: ranges of one set must not overlap, and users' may.
        for range in ranges {
            let family = if range.address.is_ipv4() { "ip" } else { "ip6" };
            self.rule(format_args!("{family} daddr {range} {verdict}"));
        }
    }
}

/// Conditions of which each is that of the sidecar's own traffic.
fn own(own: &Own) -> Vec<String> {
    let mark = own.mark.map(|mark| format!("meta mark {mark}"));
    let uid = own.uid.map(|uid| format!("meta skuid {uid}"));
    let gid = own.gid.map(|gid| format!("meta skgid {gid}"));
    mark.into_iter().chain(uid).chain(gid).collect()
}

fn set(ports: &[u16]) -> Set<'_, u16> {
    Set(ports, "")
}

fn quoted(names: &[String]) -> Set<'_, String> {
    Set(names, "\"")
}

struct Set<'s, T>(&'s [T], &'static str);

impl<T: Display> Display for Set<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(items, quote) = self;
        let items: Vec<String> = items.iter().map(|item| format!("{quote}{item}{quote}")).collect();
        write!(f, "{{ {} }}", items.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_rules_are_one_transaction_that_replaces_what_was_there() {
        let text = script(&Rules::all(Own::ISTIO));
        let expected = "\
table inet ieum
delete table inet ieum
table inet ieum {
  chain inbound {
    type nat hook prerouting priority dstnat; policy accept;
    tcp dport { 15008, 15020, 15021, 15090 } return
    meta l4proto tcp redirect to :15006
  }
  chain outbound {
    type nat hook output priority -100; policy accept;
    oifname \"lo\" ip daddr != 127.0.0.0/8 meta skuid 1337 tcp dport != 15008 redirect to :15006
    oifname \"lo\" ip6 daddr != ::1 meta skuid 1337 tcp dport != 15008 redirect to :15006
    oifname \"lo\" ip daddr != 127.0.0.0/8 meta skgid 1337 tcp dport != 15008 redirect to :15006
    oifname \"lo\" ip6 daddr != ::1 meta skgid 1337 tcp dport != 15008 redirect to :15006
    meta skuid 1337 return
    meta skgid 1337 return
    udp dport 53 redirect to :15053
    tcp dport 53 redirect to :15053
    oifname \"lo\" return
    meta l4proto tcp redirect to :15001
  }
}
";
        assert_eq!(text, expected);
    }

    #[test]
    fn exceptions_come_before_what_they_are_exceptions_of() {
        let rules = Rules {
            inbound: Ports::Only(vec![80]),
            inbound_except: vec![22],
            outbound: Ranges::Only(vec![Range::parse("10.0.0.0/8").unwrap()]),
            outbound_except: vec![Range::parse("fd00::/8").unwrap()],
            outbound_ports: vec![25],
            outbound_ports_except: vec![5432],
            interfaces_except: vec!["eth1".to_owned()],
            direct_sources: vec!["10.77.0.1".parse().unwrap()],
            private_ports: vec![15000],
            ..Rules::all(Own::MARK)
        };
        let text = script(&rules);
        let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line} is not in\n{text}"));
        assert!(at("tcp dport { 22 } return") < at("tcp dport { 80 } redirect to :15006"));
        assert!(at("ip saddr 10.77.0.1 return") < at("tcp dport { 80 } redirect to :15006"));
        assert!(
            at("ip6 daddr fd00::/8 return") < at("ip daddr 10.0.0.0/8 meta l4proto tcp redirect to :15001")
        );
        assert!(at("tcp dport { 5432 } return") < at("tcp dport { 25 } redirect to :15001"));
        at("iifname { \"eth1\" } return");
        at("oifname { \"eth1\" } return");
        at("meta mark 1337 return");
        assert!(at("ip saddr 10.77.0.1 accept") < at("tcp dport { 15000 } reject with tcp reset"));
        assert!(!text.contains("skuid"));
    }
}
