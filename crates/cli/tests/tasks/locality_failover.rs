//! examples/locality-failover: the nearest place answers, and the next one when it cannot.

use crate::asking::{get_through, until};
use crate::task::{Proxy, with_both_proxies};

with_both_proxies!(the_nearest_place_that_can_answers);

async fn the_nearest_place_that_can_answers(proxy: Proxy) {
    let mesh = proxy.run("locality-failover");
    let client = mesh.way_out("client");
    let ask = || get_through(&client, "http://hello:8000/");
    let all_from = async |place: &str| {
        for _ in 0..20 {
            let answer = ask().await;
            assert_eq!((answer.status, answer.version().as_str()), (200, place), "{answer:?}");
        }
    };
    all_from("near").await;

    // A failure is enough for the near one to be left alone.
    assert_eq!(get_through(&client, "http://hello:8000/?status=500").await.status, 500);
    until("next answers", ask, |answer| answer.status == 200 && answer.version() == "next").await;
    all_from("next").await;

    // Its replicas end, without a failed request.
    let app = mesh.text("app.yaml");
    let (head, tail) = app.split_at(app.find("name: hello-next").unwrap());
    mesh.save("app.yaml", &(head.to_owned() + &tail.replacen("replicas: 1", "replicas: 0", 1)));
    let far = |answer: &crate::asking::Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.version() == "far"
    };
    until("far answers", ask, far).await;
    all_from("far").await;
}
