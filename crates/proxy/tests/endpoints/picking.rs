//! Which endpoint a request goes to: by hash, subset, priority, or as the client says.

use super::*;
use model::affinity::{AffinityCookie, HashPolicy, HashSource};
use model::balance::{Fallback, LoadBalancing, MAGLEV_SIZE, SubsetSelector, Subsets};
use model::metadata::Value;

/// Four endpoints that answer with their numbers, behind a cluster that hashes.
async fn four() -> (Vec<Upstream>, Cluster) {
    let mut all = Vec::new();
    for name in ["0", "1", "2", "3"] {
        all.push(Upstream::start(move |_, _| ok(name)).await);
    }
    let addresses: Vec<SocketAddr> = all.iter().map(|upstream| upstream.address).collect();
    let hashing = Cluster { load_balancing: LoadBalancing::Maglev(MAGLEV_SIZE), ..cluster("a", &addresses) };
    (all, hashing)
}

fn hashed(source: HashSource) -> Vec<Route> {
    forwarding(Forward { hash_policies: vec![HashPolicy { source, terminal: false }], ..to("a") })
}

#[test]
fn requests_with_the_same_header_go_to_the_same_endpoint() {
    in_time(async {
        let (_upstreams, hashing) = four().await;
        let proxy = Proxy::new(hashed(HashSource::Header("x-user".parse().unwrap())), vec![hashing]);
        let mut used = BTreeSet::new();
        for user in 0..12 {
            let mut answers = BTreeSet::new();
            for _ in 0..3 {
                let request = Request::get("/").header("host", "shop").header("x-user", user.to_string());
                answers.insert(proxy.send(request.body(Full::default()).unwrap()).await.into_body());
            }
            assert_eq!(answers.len(), 1);
            used.extend(answers);
        }
        assert!(used.len() > 1);
    });
}

#[test]
fn a_client_without_the_cookie_is_given_one_that_leads_it_back() {
    in_time(async {
        let (_upstreams, hashing) = four().await;
        let cookie = AffinityCookie {
            name: "user".into(),
            ttl: Some(Duration::from_secs(60)),
            path: "/".into(),
            attributes: vec![("SameSite".into(), "Lax".into())],
        };
        let proxy = Proxy::new(hashed(HashSource::Cookie(cookie)), vec![hashing]);
        for _ in 0..4 {
            let first = proxy.fetch("/").await;
            let given = first.headers()["set-cookie"].to_str().unwrap();
            assert!(given.ends_with("; Max-Age=60; Path=/; SameSite=Lax; HttpOnly"), "{given}");
            let (pair, _) = given.split_once(';').unwrap();
            for _ in 0..5 {
                let request = Request::get("/").header("host", "shop").header("cookie", pair);
                let again = proxy.send(request.body(Full::default()).unwrap()).await;
                assert_eq!(again.body(), first.body());
                assert!(!again.headers().contains_key("set-cookie"));
            }
        }
    });
}

#[test]
fn a_route_may_ask_for_a_subset_of_endpoints() {
    in_time(async {
        let (_upstreams, mut subsets) = four().await;
        subsets.load_balancing = LoadBalancing::RoundRobin;
        Arc::make_mut(&mut subsets.spread).subsets = Some(Subsets {
            fallback: Fallback::None,
            selectors: vec![SubsetSelector {
                keys: ["version".to_owned()].into(),
                ..SubsetSelector::default()
            }],
            ..Subsets::default()
        });
        if let Discovery::Static(assignment) = &mut subsets.discovery {
            for (at, endpoint) in assignment.localities[0].endpoints.iter_mut().enumerate() {
                endpoint.metadata.set("envoy.lb", "version", if at < 2 { "v1" } else { "v2" });
            }
        }
        let asking = |version: &str| {
            let subset = [("version".to_owned(), Value::from(version))].into();
            forwarding(Forward { subset, ..to("a") })
        };
        let proxy = Proxy::new(asking("v2"), vec![subsets.clone()]);
        for _ in 0..8 {
            assert!(["2", "3"].contains(&std::str::from_utf8(proxy.fetch("/").await.body()).unwrap()));
        }
        proxy.configure(asking("v3"), vec![subsets]);
        assert_eq!(proxy.fetch("/").await.status(), 503);
    });
}

#[test]
fn the_next_priority_takes_over_when_the_first_has_nothing_healthy() {
    in_time(async {
        let (first, second) =
            (Upstream::start(|_, _| ok("first")).await, Upstream::start(|_, _| ok("second")).await);
        let with = |health: Health| {
            let mut two = cluster("a", &[first.address]);
            if let Discovery::Static(assignment) = &mut two.discovery {
                assignment.localities[0].endpoints[0].health = health;
                let other = cluster("b", &[second.address]);
                let Discovery::Static(mut more) = other.discovery else { unreachable!() };
                more.localities[0].priority = 1;
                assignment.localities.append(&mut more.localities);
            }
            vec![two]
        };
        let proxy = Proxy::new(forwarding(to("a")), with(Health::Healthy));
        assert_eq!(proxy.fetch("/").await.body().as_ref(), b"first");
        proxy.configure(forwarding(to("a")), with(Health::Unhealthy));
        assert_eq!(proxy.fetch("/").await.body().as_ref(), b"second");
    });
}

#[test]
fn a_client_may_name_the_endpoint_where_the_cluster_says_so() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("named")).await;
        let mut named = Cluster::new("a", Discovery::OriginalDestination);
        Arc::make_mut(&mut named.spread).destination_header = Some("x-to".parse().unwrap());
        let proxy = Proxy::new(forwarding(to("a")), vec![named]);
        let request = Request::get("/").header("host", "shop").header("x-to", upstream.address.to_string());
        let answer = proxy.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.body().as_ref(), b"named");
        assert_eq!(proxy.fetch("/").await.status(), 503);
    });
}

#[test]
fn a_cluster_of_clusters_uses_the_first_that_is_healthy() {
    in_time(async {
        let upstream = Upstream::start(|_, _| ok("second")).await;
        let all = Cluster::new("a", Discovery::Aggregate(vec!["b".into(), "nobody".into(), "c".into()]));
        let clusters = vec![all, cluster("b", &[]), cluster("c", &[upstream.address])];
        let proxy = Proxy::new(forwarding(to("a")), clusters);
        assert_eq!(proxy.fetch("/").await.body().as_ref(), b"second");
        let itself = Cluster::new("a", Discovery::Aggregate(vec!["a".into()]));
        proxy.configure(forwarding(to("a")), vec![itself]);
        assert_eq!(proxy.fetch("/").await.status(), 503);
    });
}
