//! TLS on a hub's own address: clients that know nothing of ours, and certificates that are renewed while it runs.

#![allow(clippy::unwrap_used, reason = "a test: the panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobo_tests::cluster::Cluster;
use mobo_tests::script::Script;
use mobo_tests::wait;

const SOON: Duration = Duration::from_secs(60);
const TODOS: &[&str] =
    &["todos", "title:text", "done:bool", "rank:int", "score:float", "due:timestamp", "meta:json", "hours:counter", "owner:text"];
const STEPS: &[&str] = &["steps", "todo:ref:todos", "text:text"];
const NOTES: &[&str] = &["notes", "--kind", "document", "title:text", "tags:list", "likes:counter"];

/// Writes a certificate of its own and its key; gives a copy of the certificate, for who trusts it.
fn write(folder: &Path, name: &str) -> PathBuf {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    // The key first: a pair that does not go together is passed over until both files are there.
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    let trusted = folder.join(name);
    fs::write(&trusted, made.cert.pem()).unwrap();
    trusted
}

/// Goal: an unmodified client works over TLS, HTTP/2 is agreed upon, a renewed certificate is shown without a restart, and devices join as ever.
#[test]
fn a_hub_with_a_certificate_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let first = write(folder.path(), "first.pem");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let cluster = Cluster::boot_with("sqlite", None, &[("http.tls_cert", &certificate), ("http.tls_key", &key)]);
    cluster.create(&[TODOS, STEPS, NOTES]);
    let service = cluster.cli().args(["key", "create", "--role", "service", "--name", "js"]).run().expect_success().text();
    let address = cluster.hub().address("http");
    let url = format!("https://{address}");
    let client = |script: &str, trusted: &Path| {
        let script = Script::new(script).env("MOBO_URL", &url).env("MOBO_KEY", &service);
        let said = script.env("NODE_EXTRA_CA_CERTS", trusted.to_str().unwrap()).run();
        assert!(said.contains("checks held"), "{said}");
    };
    client("graphql.mjs", &first);
    let shown = || Script::new("http2.mjs").env("MOBO_URL", &url).run();
    let before = shown();
    assert!(before.starts_with("h2 200 "), "{before}");
    let plain = mobo_tests::http::Client::new(&address).get("/livez");
    assert!(plain.is_err(), "who does not speak TLS is not answered: {plain:?}");

    let second = write(folder.path(), "second.pem");
    let after = wait::until("the new certificate", SOON, || Some(shown()).filter(|shown| *shown != before));
    assert!(after.starts_with("h2 200 "), "{after}");
    client("data.mjs", &second);
    let device = cluster.device("pi");
    device.wait_collection("todos");
    cluster.converge(&[&device]);
}
