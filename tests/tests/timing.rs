//! What takes the same time whether it is nearly right or not there at all, so that nobody learns which by asking.
//!
//! Asked in turn, and compared by medians: a machine that is busy is as busy for the one as for the other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::{Duration, Instant};

use mobo_gate::key::{ApiKey, KeyKind};
use mobo_tests::cluster::Cluster;
use mobo_tests::http::Client;
use serde_json::json;

/// The medians of what two questions take, each asked so often, in turn.
fn medians<const N: usize>(rounds: usize, mut asked: [Box<dyn FnMut() + '_>; N]) -> [Duration; N] {
    let mut took: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::new());
    for round in 0..rounds {
        for turn in 0..N {
            // Nobody is always behind the same one.
            let n = (turn + round) % N;
            let began = Instant::now();
            asked[n]();
            took[n].push(began.elapsed());
        }
    }
    took.map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2]
    })
}

#[track_caller]
fn alike(what: [&str; 2], [one, other]: [Duration; 2], times: f64) {
    let ratio = one.as_secs_f64() / other.as_secs_f64();
    assert!((1.0 / times..times).contains(&ratio), "{} takes {one:?}, {} {other:?}", what[0], what[1]);
}

/// Goal: a key that was never made and one that is good no more are refused in the same time, and so are a wrong password and an unknown user.
#[test]
fn what_is_nearly_right_takes_as_long_as_what_is_not_there() {
    let cluster = Cluster::boot_with("sqlite", None, &[("http.rate_auth", "1000000")]);
    cluster.create(&[&["orders", "title:text"]]);
    let run = |words: &[&str]| cluster.cli().args(words).run().expect_success().text();
    let revoked = run(&["key", "create", "--role", "service", "--name", "old"]);
    run(&["key", "revoke", "old"]);
    let never = ApiKey::generate(KeyKind::Secret, [7; 20]).text().to_owned();
    let refused = |key: &str| {
        let mut client = cluster.hub().http().with_header("apikey", key);
        Box::new(move || drop(client.get("/rest/v1/orders").unwrap().expect_status(401))) as Box<dyn FnMut()>
    };
    alike(["a key that was never made", "a revoked one"], medians(60, [refused(&never), refused(&revoked)]), 4.0);

    let app = run(&["key", "create", "--role", "anon", "--name", "app"]);
    let admin = run(&["key", "create", "--role", "admin", "--name", "boss"]);
    let mut boss = cluster.hub().http().with_header("apikey", &admin);
    let ann = json!({ "email": "ann@example.com", "password": "correct horse battery" });
    boss.post("/auth/v1/admin/users", &ann).unwrap().expect_status(200);
    let signs_in = |email: &'static str| {
        let mut client: Client = cluster.hub().http().with_header("apikey", &app);
        let body = json!({ "email": email, "password": "wrong horse battery" });
        Box::new(move || drop(client.post("/auth/v1/token?grant_type=password", &body).unwrap().expect_status(400))) as Box<dyn FnMut()>
    };
    let took = medians(9, [signs_in("ann@example.com"), signs_in("nobody@example.com")]);
    alike(["a wrong password", "an unknown user"], took, 4.0);
}
