//! What a device cannot send, carried to its hub on a USB stick: taken once, from its own device, and whole.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::fs;
use std::path::Path;

use mobo_tests::cli::Outcome;
use mobo_tests::cluster::{Cluster, Place, digest};
use mobo_tests::process::{Launch, Node};
use serde_json::{Value, json};

const ORDERS: &[&str] = &["orders", "title:text", "hours:counter"];
const SPEEDS: &[&str] = &["speeds", "--kind", "stream", "speed:float"];
const SECRET: &str = "nobody-else-reads-this";

fn words<'a>(verb: &[&'a str], file: &'a Path) -> Vec<&'a str> {
    verb.iter().copied().chain([file.to_str().unwrap(), "-o", "json"]).collect()
}

#[track_caller]
fn export(device: &Launch, file: &Path) -> Value {
    device.cli().args(words(&["backup", "export"], file)).run().expect_success().json()
}

#[track_caller]
fn import(cluster: &Cluster, file: &Path) -> Outcome {
    cluster.cli().args(words(&["device", "import"], file)).run()
}

#[track_caller]
fn write(device: &Node, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let fields = json!({"title": SECRET, "hours": {"$inc": 1}}).to_string();
        device.cli().args(["put", "orders", &format!("o-{number}"), &fields]).run().expect_success();
    }
    device.cli().args(["append", "speeds", r#"[{"speed": 1.5}, {"speed": 2.5}]"#]).run().expect_success();
    device.cli().args(["patch", "orders", "shared", r#"{"hours": {"$inc": 10}}"#]).run().expect_success();
}

/// A counter of a record on the hub, and how many rows and samples there are.
#[track_caller]
fn at_hub(cluster: &Cluster) -> (Value, usize, usize) {
    let mut api = cluster.api();
    let mut rows = |path: &str| api.get(path).unwrap().json();
    let count = |rows: &Value| rows.as_array().unwrap().len();
    let shared = rows("/rest/v1/orders?id=eq.shared");
    (shared[0]["hours"].clone(), count(&rows("/rest/v1/orders")), count(&rows("/rest/v1/speeds")))
}

/// A hub and a device that have met, and the hub is gone since.
fn alone(place: Place) -> (Cluster, Node) {
    let mut cluster = Cluster::boot(place);
    cluster.create(&[ORDERS, SPEEDS]);
    let device = cluster.device("pump-7");
    cluster.converge(&[&device]);
    device.cli().args(["put", "orders", "shared", r#"{"hours": {"$inc": 1}}"#]).run().expect_success();
    cluster.converge(&[&device]);
    cluster.stop_hub();
    (cluster, device)
}

fn carried(place: Place) {
    let (mut cluster, device) = alone(place);
    write(&device, 0..4);
    let (stick, receipt) = (cluster.folder("a.bundle"), cluster.folder("a.receipt"));
    let exported = export(&device.launch_here(), &stick);
    assert_eq!((&exported["entries"], exported["lanes"].as_array().unwrap().len()), (&json!(6), 2), "{exported}");
    let bytes = fs::read(&stick).unwrap();
    assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "it is sealed");
    let again = device.cli().args(words(&["backup", "export"], &stick)).run().expect_code(1);
    assert!(again.stderr.contains("exists"), "{}", again.stderr);
    // Written after the bundle was: only the device has it.
    device.cli().args(["put", "orders", "later", "{}"]).run().expect_success();
    let device = device.kill9();

    cluster.start_hub();
    let told =
        cluster.cli().args(words(&["device", "import", "--receipt", receipt.to_str().unwrap()], &stick)).run().expect_success().json();
    let counts = |told: &Value| ["entries", "merged", "known", "refused"].map(|key| told[key].as_u64().unwrap());
    assert_eq!(counts(&told), [6, 6, 0, 0], "{told}");
    assert_eq!(at_hub(&cluster), (json!(11), 5, 2));
    for _ in 0..2 {
        assert_eq!(counts(&import(&cluster, &stick).expect_success().json()), [6, 0, 6, 0], "once is enough");
    }
    // The hub says what it has, without a link.
    for acknowledged in [6, 0] {
        let taken = device.cli().args(words(&["backup", "import"], &receipt)).run().expect_success().json();
        assert_eq!(taken, json!({"acknowledged": acknowledged, "refused": 0}));
    }
    let rest = cluster.folder("rest.bundle");
    assert_eq!(export(&device, &rest)["entries"], 1, "what the hub has is not carried again");

    // The device comes back by itself, with a push of what the second bundle holds.
    let device = device.boot();
    cluster.converge(&[&device]);
    assert_eq!(counts(&import(&cluster, &rest).expect_success().json()), [1, 0, 1, 0]);
    assert_eq!(at_hub(&cluster), (json!(11), 6, 2));
    assert_eq!(digest(&device.status()), digest(&cluster.hub().status()));
    let nothing = cluster.folder("nothing.bundle");
    assert_eq!(export(&device.launch_here(), &nothing)["entries"], 0);
    assert!(!nothing.exists());
    assert_eq!(cluster.healthy()["ok"], true);
}

/// Goal: a device without any link gets its writes to the hub, exactly once, whatever is carried twice or sent again by itself.
/// Method: a bundle of a running device, imported three times; its receipt; then the device connects.
#[test]
fn a_bundle_arrives_once_on_sqlite() {
    carried(Place::Sqlite);
}

/// The same on Postgres.
#[test]
fn a_bundle_arrives_once_on_postgres() {
    carried(Place::Postgres);
}

/// Goal: nothing is taken of a bundle that is cut, forged, or meant for somebody else; the sentence says which.
#[test]
fn a_bundle_that_is_not_right_is_refused_by_name() {
    let (mut cluster, device) = alone(Place::Sqlite);
    write(&device, 0..2);
    let stick = cluster.folder("a.bundle");
    export(&device.launch_here(), &stick);
    device.kill9();
    cluster.start_hub();
    let before = at_hub(&cluster);
    let whole = fs::read(&stick).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        (whole[..whole.len() - 1].to_vec(), "is cut off after"),
        (whole[..100].to_vec(), "is cut off after"),
        (Vec::new(), "is cut off after 0 bytes"),
        (flipped(whole.len() - 20), "is damaged or forged at byte"),
        (flipped(200), "is damaged or forged at byte"),
        ([whole.as_slice(), b"!"].concat(), "something behind the end"),
        (b"PK\x03\x04 a holiday picture".to_vec(), "no bundle of mobo"),
    ];
    for (bytes, sentence) in cases {
        let path = cluster.folder("bad.bundle");
        fs::write(&path, bytes).unwrap();
        let refused = import(&cluster, &path).expect_code(1);
        assert!(refused.stderr.contains(sentence), "{sentence}: {}", refused.stderr);
    }
    assert!(import(&cluster, &cluster.folder("none")).expect_code(1).stderr.contains("cannot use"));
    assert!(import(&cluster, cluster.folder("hub").as_path()).expect_code(1).stderr.contains("it is not a file"));

    let other = Cluster::boot(Place::Sqlite);
    assert!(import(&other, &stick).expect_code(1).stderr.contains("of another project"));
    assert_eq!(at_hub(&cluster), before, "nothing of them was taken");

    cluster.cli().args(["device", "revoke", "pump-7"]).run().expect_success();
    assert!(import(&cluster, &stick).expect_code(1).stderr.contains("was revoked"));
    assert_eq!(at_hub(&cluster), before);
}

/// Goal: the device hears of what was refused, and a hub that was put back takes a bundle of everything.
// faults: B-1
#[test]
fn a_receipt_tells_what_was_refused_and_a_restored_hub_takes_everything() {
    let (mut cluster, device) = alone(Place::Sqlite);
    let old = cluster.folder("old");
    copy(&cluster.folder("hub"), &old);
    write(&device, 0..2);
    let (first, second, all) = (cluster.folder("1.bundle"), cluster.folder("2.bundle"), cluster.folder("all.bundle"));
    export(&device.launch_here(), &first);
    let device = device.kill9();
    cluster.start_hub();
    let receipt = cluster.folder("1.receipt");
    cluster.cli().args(["device", "ungrant", "pump-7", "--bucket", "all", "--late", "reject"]).run().expect_success();
    let told =
        cluster.cli().args(words(&["device", "import", "--receipt", receipt.to_str().unwrap()], &first)).run().expect_success().json();
    // Samples are nobody's to write: the right that was taken away is about records.
    assert_eq!((&told["merged"], &told["refused"]), (&json!(4), &json!(3)), "{told}");
    cluster.stop_hub();
    let device = device.boot();
    let taken = device.cli().args(words(&["backup", "import"], &receipt)).run().expect_success().json();
    assert_eq!(taken["refused"], 3, "{taken}");
    let inbox = device.cli().args(["quarantine", "list", "-o", "json"]).run().expect_success().json();
    assert_eq!(inbox.as_array().unwrap().len(), 3, "{inbox}");

    // Back to where the hub had none of it, and the right was not yet taken away.
    device.cli().args(["put", "orders", "after", "{}"]).run().expect_success();
    export(&device.launch_here(), &second);
    fs::remove_dir_all(cluster.folder("hub")).unwrap();
    copy(&old, &cluster.folder("hub"));
    let device = device.kill9();
    cluster.start_hub();
    let gap = import(&cluster, &second).expect_code(1);
    assert!(gap.stderr.contains("export --all"), "{}", gap.stderr);
    device.cli().args(words(&["backup", "export", "--all"], &all)).run().expect_success();
    import(&cluster, &all).expect_success();
    let rows = cluster.api().get("/rest/v1/orders").unwrap().json();
    assert!(rows.as_array().unwrap().iter().any(|row| row["id"] == "after"), "{rows}");
    let device = device.boot();
    cluster.converge(&[&device]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
