//! Resources in a compact form that people can read and compare.

use model::cluster::{Cluster, Discovery, Transport};
use model::endpoint::{Assignment, EndpointAddress};
use model::header::{HeaderEdits, HeaderMatch, HeaderTest};
use model::limits::{Limits, RetryBudget};
use model::listener::{AddressRange, FilterChain, Listener, LogFormat, Network, RouteSource};
use model::matcher::{StringMatch, StringMatchKind};
use model::provenance::Provenance;
use model::retry::RetryPolicy;
use model::route::{
    Action, HostRewrite, MirrorTarget, PathMatch, PathRewrite, Route, RouteConfiguration, RouteMatch, Target,
};
use model::tls::{DownstreamTls, PeerChecks, PeerValidation, SecretSource, UpstreamTls};
use std::fmt::Write;

macro_rules! line {
    ($out:expr, $($arg:tt)*) => { writeln!($out, $($arg)*).unwrap() };
}

fn from(provenance: Option<&Provenance>) -> String {
    provenance.map(|p| format!("  # {p}")).unwrap_or_default()
}

/// Names of the tables a listener asks for.
pub(crate) fn tables_of(listener: &Listener) -> impl Iterator<Item = &str> {
    listener.chains.iter().filter_map(|chain| match &chain.network {
        Network::Http(http) => match &http.routes {
            RouteSource::Rds(name) => Some(name.as_str()),
            RouteSource::Inline(_) => None,
        },
        Network::Tcp(_) => None,
    })
}

pub(crate) fn listener(out: &mut String, l: &Listener) {
    let address = l.address.map_or("api".to_owned(), |a| a.to_string());
    let inspect = [(l.inspect.tls, " tls-inspector"), (l.inspect.http, " http-inspector")];
    let inspect: String = inspect.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    line!(out, "listener {} {address} {:?}{inspect}{}", l.name, l.direction, from(l.provenance.as_ref()));
    l.chains.iter().for_each(|c| chain(out, c));
}

fn chain(out: &mut String, c: &FilterChain) {
    let m = &c.condition;
    let mut when = Vec::new();
    when.extend(m.transport_protocol.clone());
    if !m.server_names.is_empty() {
        when.push(format!("sni {}", m.server_names.join(",")));
    }
    let ranges = |ranges: &[AddressRange]| {
        let one = |range: &AddressRange| format!("{}/{}", range.address, range.prefix_length);
        ranges.iter().map(one).collect::<Vec<_>>().join(",")
    };
    if !m.destinations.is_empty() {
        when.push(format!("to {}", ranges(&m.destinations)));
    }
    if !m.sources.is_empty() {
        when.push(format!("from {}", ranges(&m.sources)));
    }
    if !m.application_protocols.is_empty() {
        when.push(format!("alpn {}", m.application_protocols.join(",")));
    }
    line!(
        out,
        "  chain {} [{}]{}",
        c.name,
        when.join("; "),
        c.tls.as_ref().map(downstream_tls).unwrap_or_default()
    );
    match &c.network {
        Network::Tcp(tcp) => {
            let clusters: Vec<String> =
                tcp.clusters.iter().map(|w| format!("{}*{}", w.weight, w.cluster)).collect();
            let tunnel = tcp.tunnel.as_ref().map(|t| {
                format!(" inside {} {}", t.post_path.as_deref().unwrap_or("CONNECT"), t.host.source())
            });
            let tunnel = tunnel.unwrap_or_default();
            line!(out, "    tcp {}{tunnel}{}", clusters.join(" "), logs(&tcp.access_logs));
        }
        Network::Http(http) => {
            let upgrades: Vec<&str> = http.upgrades.iter().map(|u| u.protocol.as_str()).collect();
            let edge = if http.edge { " edge" } else { "" };
            let stats = if http.stats { " stats" } else { "" };
            let path =
                if http.path == Default::default() { String::new() } else { format!(" {:?}", http.path) };
            let head =
                format!("http{edge}{stats}{path} upgrades {}{}", upgrades.join(","), logs(&http.access_logs));
            match &http.routes {
                RouteSource::Rds(name) => line!(out, "    {head} rds {name}"),
                RouteSource::Inline(table) => {
                    line!(out, "    {head} inline");
                    routes(out, table);
                }
            }
        }
    }
}

fn logs(logs: &[model::listener::AccessLog]) -> String {
    let one = |log: &model::listener::AccessLog| match &log.format {
        LogFormat::Text(template) => format!(" log {} text {}", log.path, template.source().trim_end()),
        LogFormat::Json(fields) => format!(" log {} json with {} keys", log.path, fields.len()),
    };
    logs.iter().map(one).collect()
}

fn secret<T>(source: &SecretSource<T>) -> &str {
    match source {
        SecretSource::Sds(name) => name,
        SecretSource::Inline(_) => "inline",
        SecretSource::Files(files) => &files.certificates,
    }
}

fn downstream_tls(tls: &DownstreamTls) -> String {
    let certificates: Vec<&str> = tls.certificates.iter().map(secret).collect();
    let clients =
        tls.validation.as_ref().map(|v| format!(" clients by {}", secret(&v.trust))).unwrap_or_default();
    let clients = clients + &tls.validation.as_ref().map(checks).unwrap_or_default();
    let required = if tls.require_client_certificate { " required" } else { "" };
    let versions =
        if tls.versions == Default::default() { String::new() } else { format!(" {:?}", tls.versions) };
    format!(" tls({}{clients}{required} alpn {}{versions})", certificates.join(","), tls.alpn.join(","))
}

fn checks(validation: &PeerValidation) -> String {
    let PeerChecks { any_signer, keys, certificates, revoked } = &validation.checks;
    let any = if *any_signer { " whoever signed" } else { "" };
    let pins = if keys.len() + certificates.len() > 0 {
        format!(" {} keys or {} certificates", keys.len(), certificates.len())
    } else {
        String::new()
    };
    format!("{any}{pins}{}", revoked.as_ref().map(|r| format!(" but {}", secret(r))).unwrap_or_default())
}

fn upstream_tls(tls: &UpstreamTls) -> String {
    let certificate = tls.certificate.as_ref().map_or("none", secret);
    let validation = tls.validation.as_ref().map_or("any server".to_owned(), |v| {
        let names: Vec<String> = v.subject_alt_names.iter().map(|san| text(&san.matcher)).collect();
        format!("server by {}{} as {}", secret(&v.trust), checks(v), names.join("|"))
    });
    let sni = tls.sni.as_deref().unwrap_or("-");
    format!("tls({certificate}; {validation}; sni {sni}; alpn {})", tls.alpn.join(","))
}

pub(crate) fn routes(out: &mut String, table: &RouteConfiguration) {
    line!(out, "table {}{}", table.name, if table.ignore_port { " ignore-port" } else { "" });
    for host in &table.virtual_hosts {
        let tls = if host.require_tls { " require-tls" } else { "" };
        let retry = host.retry.as_ref().map(|r| format!(" retry {}", retries(r))).unwrap_or_default();
        line!(out, "  host {} [{}]{tls}{retry}", host.name, host.domains.join(" "));
        host.routes.iter().for_each(|r| route(out, r));
    }
}

fn route(out: &mut String, r: &Route) {
    line!(
        out,
        "    {}: {} -> {}{}",
        r.name,
        condition(&r.condition),
        action(&r.action),
        from(r.provenance.as_ref())
    );
    edits(out, "request", &r.request_headers);
    edits(out, "response", &r.response_headers);
    if let Some(filters) = &r.filters {
        filters.fault.iter().for_each(|f| line!(out, "      fault {:?}", f.used()));
        filters.cors.iter().for_each(|c| line!(out, "      cors {:?}", c.used()));
    }
    let Action::Forward(forward) = &r.action else { return };
    let Target::Weighted(all) = &forward.target else { return };
    for w in all {
        let host = w.host_rewrite.as_ref().map(|h| format!(" host={h}")).unwrap_or_default();
        line!(out, "      {} * {}{host}", w.weight, w.cluster);
        edits(out, "  request", &w.request_headers);
        edits(out, "  response", &w.response_headers);
    }
}

fn edits(out: &mut String, which: &str, edits: &HeaderEdits) {
    for name in &edits.remove {
        line!(out, "      {which} remove {name}");
    }
    for edit in &edits.add {
        line!(out, "      {which} {:?} {}: {}", edit.action, edit.name.as_str(), edit.value.source());
    }
}

fn text(m: &StringMatch) -> String {
    match &m.kind {
        StringMatchKind::Exact(s) => format!("={s}"),
        StringMatchKind::Prefix(s) => format!("^{s}"),
        StringMatchKind::Suffix(s) => format!("{s}$"),
        StringMatchKind::Contains(s) => format!("~{s}"),
        StringMatchKind::Regex(p) => format!("{p:?}"),
    }
}

fn condition(m: &RouteMatch) -> String {
    let mut parts = vec![match &m.path {
        PathMatch::Exact(p) => format!("={p}"),
        PathMatch::Prefix(p) => format!("{p}*"),
        PathMatch::SegmentPrefix(p) => format!("{p}/*"),
        PathMatch::Regex(p) => format!("{p:?}"),
        PathMatch::Template(t) => t.source().to_owned(),
        PathMatch::Connect => "CONNECT".to_owned(),
    }];
    if !m.case_sensitive {
        parts.push("any-case".to_owned());
    }
    parts.extend(m.headers.iter().map(header));
    parts.extend(
        m.query.iter().map(|q| format!("?{}{}", q.name, q.value.as_ref().map(text).unwrap_or_default())),
    );
    parts.join(" ")
}

fn header(h: &HeaderMatch) -> String {
    let test = match &h.test {
        HeaderTest::Present(_) => String::new(),
        HeaderTest::Value(m) => text(m),
        HeaderTest::Range { start, end } => format!("{start}..{end}"),
    };
    format!("{}{}{test}", if h.invert { "!" } else { "" }, h.name.as_str())
}

fn path(rewrite: &PathRewrite) -> String {
    match rewrite {
        PathRewrite::Prefix(p) => format!("prefix {p}"),
        PathRewrite::Full(p) => format!("full {p}"),
        PathRewrite::Regex(s) => format!("/{}/ -> {}", s.pattern, s.replacement),
        PathRewrite::Template(t) => format!("template {}", t.source()),
        PathRewrite::Formatted(t) => format!("full {}", t.source()),
    }
}

fn action(a: &Action) -> String {
    match a {
        Action::Respond(r) => format!("respond {} {:?}", r.status, String::from_utf8_lossy(&r.body)),
        Action::Redirect(r) => format!(
            "redirect {} {:?} {:?} {:?} {:?}",
            r.status,
            r.scheme,
            r.host,
            r.port,
            r.path.as_ref().map(path)
        ),
        Action::Forward(f) => {
            let mut parts = vec![match &f.target {
                Target::Cluster(name) => name.clone(),
                Target::Weighted(_) => "weighted".to_owned(),
                Target::Header(name) => format!("by header {name}"),
            }];
            parts.extend(f.path_rewrite.as_ref().map(|p| format!("path({})", path(p))));
            parts.extend(f.host_rewrite.as_ref().map(|h| match h {
                HostRewrite::Literal(host) => format!("host={host}"),
                HostRewrite::Endpoint => "host=endpoint".to_owned(),
                HostRewrite::Header(name) => format!("host by {name}"),
                HostRewrite::Path(s) => format!("host /{}/ -> {}", s.pattern, s.replacement),
                HostRewrite::Formatted(t) => format!("host={}", t.source()),
            }));
            parts.extend(f.timeout.map(|t| format!("timeout {t:?}")));
            parts.extend(f.retry.as_ref().map(|r| format!("retry {}", retries(r))));
            parts.extend(f.mirrors.iter().map(|m| match &m.target {
                MirrorTarget::Cluster(name) => {
                    let share = m.share.map(|s| format!(" {}/{}", s.numerator, s.denominator));
                    format!("copy({name}{})", share.unwrap_or_default())
                }
                MirrorTarget::Header(name) => format!("copy by {name}"),
            }));
            parts.extend(f.hash_policies.iter().map(|h| format!("hash {:?}", h.source)));
            if f.upgrades.iter().any(|u| u.terminate_connect) {
                parts.push("terminate".to_owned());
            }
            parts.join(" ")
        }
    }
}

fn retries(r: &RetryPolicy) -> String {
    let codes = r.conditions.status_codes.as_ref().map(|c| format!(" {c:?}")).unwrap_or_default();
    let each = r.per_try_timeout.map(|t| format!(" each {t:?}")).unwrap_or_default();
    let after = r.more.as_ref().and_then(|more| more.leaves_priorities_after);
    let leaves = after.map(|after| format!(" elsewhere after {after}")).unwrap_or_default();
    format!("{}x({}{codes}{each} picks {}{leaves})", r.retries, r.conditions.tokens(), r.host_picks)
}

pub(crate) fn cluster(out: &mut String, c: &Cluster) {
    let discovery = match &c.discovery {
        Discovery::Eds(name) if *name == c.name => "eds".to_owned(),
        Discovery::Eds(name) => format!("eds {name}"),
        Discovery::Static(a) => format!("static {}", addresses(a)),
        Discovery::StrictDns(a) => format!("dns {}", addresses(a)),
        Discovery::LogicalDns(a) => format!("dns-one {}", addresses(a)),
        Discovery::OriginalDestination => "original".to_owned(),
        Discovery::Aggregate(of) => format!("aggregate {of:?}"),
    };
    let idle = c.idle_timeout.map_or("never".to_owned(), |t| format!("{t:?}"));
    line!(
        out,
        "cluster {} {discovery} {:?} {:?} connect {:?} idle {idle}{}",
        c.name,
        c.load_balancing,
        c.http,
        c.connect_timeout,
        from(c.provenance.as_ref())
    );
    let budget = RetryBudget { percent: 20.0, minimum: 100, ..Default::default() };
    let mut usual = Limits::default();
    if c.limits.default.retry_budget == Some(budget) {
        usual.default.retry_budget = Some(budget);
    }
    said(out, "limits", &*c.limits, &usual);
    said(out, "outliers", &c.outlier_detection, &None);
    said(out, "proxy header", &c.proxy_header, &None);
    said(out, "errors", &c.error_statuses, &Vec::new());
    said(out, "spread", &c.spread, &Default::default());
    said(out, "connections", &c.connections, &Default::default());
    for m in &c.transport_matches {
        let labels: Vec<String> =
            m.labels.iter().map(|(k, v)| format!("{k}={}", v.as_text().unwrap_or_default())).collect();
        line!(out, "  if {}: {}", labels.join(","), transport(&m.transport));
    }
    if c.transport != Transport::Plain {
        line!(out, "  {}", transport(&c.transport));
    }
}

/// A part, if it says more than what is usual.
fn said<T: PartialEq + std::fmt::Debug>(out: &mut String, name: &str, part: &T, usual: &T) {
    if part != usual {
        line!(out, "  {name} {part:?}");
    }
}

fn transport(t: &Transport) -> String {
    match t {
        Transport::Plain => "plain".to_owned(),
        Transport::Tls(tls) => upstream_tls(tls),
    }
}

fn addresses(a: &Assignment) -> String {
    let all: Vec<String> = a.endpoints().map(|e| e.address.to_string()).collect();
    all.join(" ")
}

pub(crate) fn endpoints(out: &mut String, a: &Assignment) {
    line!(out, "endpoints {}", a.cluster);
    for place in &a.localities {
        let l = &place.locality;
        for e in &place.endpoints {
            let address = match &e.address {
                EndpointAddress::Socket(a) => a.to_string(),
                EndpointAddress::Name(name, port) => format!("{name}:{port}"),
            };
            let tls = e.metadata.string("envoy.transport_socket_match", "tlsMode").unwrap_or("plain");
            let workload = e.metadata.string("istio", "workload").unwrap_or_default();
            let locality = if l.region.is_empty() {
                String::new()
            } else {
                format!(" {}/{}/{}", l.region, l.zone, l.sub_zone)
            };
            let priority =
                if place.priority == 0 { String::new() } else { format!(" priority {}", place.priority) };
            line!(out, "  {address} weight {} {:?} {tls} {workload}{locality}{priority}", e.weight, e.health);
        }
    }
}
