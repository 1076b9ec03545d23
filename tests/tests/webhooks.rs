//! What an app's own servers are told of its channels, checked by Pusher's own packages; and what happens while nobody takes it.

#![allow(clippy::unwrap_used, reason = "a test: the panic is the report")]

use std::path::Path;
use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place, quiet_address};
use mobo_tests::http::Client;
use mobo_tests::process::{Launch, Node};
use mobo_tests::script::Script;
use mobo_tests::wait;

const SOON: Duration = Duration::from_secs(60);
/// No part of it may be shown anywhere.
const SECRET: &str = "app-secret";

fn secret(folder: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let file = folder.join("secret");
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A hub with an app whose webhooks go there.
fn hub(folder: &Path, url: &str) -> Launch {
    let hub = Launch::hub(folder.join("hub")).set("metrics.listen", "127.0.0.1:0").set("pusher.id", "1").set("pusher.key", "app-key");
    hub.set("pusher.webhook_urls", url).env("MOBO_PUSHER__SECRET_FILE", &secret(folder))
}

/// The value of a metric, summed over its labels.
fn counted(hub: &Node, name: &str) -> f64 {
    let text = Client::new(&hub.address("metrics")).get("/metrics").unwrap().expect_status(200).text();
    let values = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Goal: an unmodified receiver accepts every webhook as signed, hears each kind in its order, and after it was away gets what it has missed.
#[test]
fn servers_are_told_what_happens_in_channels() {
    let folder = tempfile::tempdir().unwrap();
    let hooks = format!("http://{}/hooks?from=mobo", quiet_address());
    let hub = hub(folder.path(), &hooks).set("pusher.subscription_count", "true").boot();
    let script = Script::new("webhooks.mjs").env("MOBO_URL", &format!("http://{}", hub.address("http"))).env("MOBO_HOOKS", &hooks);
    let said = script.run();
    for part in ["presence: fine", "caches: fine", "outages: fine", "counts: fine"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(counted(&hub, "mobo_webhook_events_sent_total") >= 10.0 && counted(&hub, "mobo_webhook_failed_total") >= 2.0);
    assert!(counted(&hub, "mobo_webhook_events_dropped_total") < 0.5, "nothing was given up");
}

/// Goal: a receiver that is away keeps nobody from talking or the hub from stopping, and the hub says so; the secret is nowhere.
#[test]
fn a_receiver_that_is_away_is_told_and_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub(folder.path(), &format!("http://{}/path-of-theirs", quiet_address())).boot();
    let said = Script::new("pusher.mjs").env("MOBO_URL", &format!("http://{}", hub.address("http"))).run();
    assert!(said.contains("clients: fine"), "{said}");
    let health = wait::until("the hub to say so", SOON, || {
        let text = hub.http().get("/readyz?verbose").unwrap().text();
        text.contains("cannot be reached").then_some(text)
    });
    assert!(health.contains("webhooks wait") && !health.contains("path-of-theirs"), "{health}");
    assert!(counted(&hub, "mobo_webhook_failed_total") >= 1.0);
    let shown = hub.cli().args(["config", "show"]).run().expect_success().stdout;
    assert!(shown.contains("pusher.webhook_urls"), "{shown}");
    hub.terminate();
    let log = hub.stderr();
    assert!(log.contains("events of webhooks were given up"), "{log}");
    for text in [&health, &shown, &log] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

/// Goal: what cannot be is refused at boot, by the name of its setting: the part of a hub that is optional alone, and the rest as a whole.
#[test]
fn what_cannot_be_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |url: &str| hub(folder.path(), url);
    let bare = "http://example.com";
    for (launch, word) in [
        (at("ftp://example.com/s3cret"), "pusher.webhook_urls holds what is no address"),
        (at(bare).set("pusher.webhook_events", "channel_full"), "pusher.webhook_events names \"channel_full\""),
        (at(bare).set("pusher.key", ""), "pusher.webhook_urls is set, and there is no app"),
    ] {
        let mut node = launch.spawn();
        node.wait_line(SOON, |line| line.contains(word));
        node.terminate();
        assert!(!node.stderr().contains("s3cret"), "{}", node.stderr());
    }
    let cluster = Cluster::boot(Place::Sqlite);
    for (launch, words) in [
        (at("").set("http.rate_rules", "orders=5/1s"), ["boot refused: gate: rate rules", "http.rate_rules has \"orders=5/1s\""]),
        (
            cluster.joined("pi").set("pusher.webhook_urls", bare),
            ["boot refused: gate: webhooks", "pusher.webhook_urls is set, and a device sends no"],
        ),
    ] {
        let mut node = launch.spawn();
        assert_eq!(node.wait_exit(SOON).unwrap().code(), Some(1), "{}", node.stderr());
        let said = node.stderr();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}
