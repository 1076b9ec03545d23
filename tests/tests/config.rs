//! Settings as an operator meets them: all mistakes at once, changes while a node runs, and secrets that stay secret.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mobo_tests::cli::Cli;
use mobo_tests::postgres::Database;
use mobo_tests::process::{Launch, Node, Signal};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

/// Goal: ten kinds of mistake in one file are ten problems in one answer, with exit code 2 and nothing started.
#[test]
fn ten_kinds_of_mistake_are_ten_problems_in_one_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let text = "[http]\nlisten = 8000\nlisen = \"127.0.0.1:0\"\n[quic]\nlisten = \"localhost\"\nadvertise = [\"a:1\"]\n\
                [store]\nurl = \"mysql://ada:canary-sekret@db/x\"\n[log]\nlevel = \"lo=u=d\"\nformat = \"xml\"\nfiles_max = \"5\"\n\
                file_bytes_max = \"10 pages\"\n[zoo]\nbear = 1\n[metrics]\nlisten = \"127.0.0.1:99999\"\n[health]\ninterval = \"1ms\"\n";
    fs::write(&file, text).unwrap();
    let want = [
        "http.listen takes a text: write it in quotes",
        "there is no setting http.lisen: did you mean http.listen?",
        "quic.listen: \"localhost\" is not an address with its port",
        "quic.advertise takes a text: write it in quotes",
        "store.url: its value is not `sqlite`, or postgres://",
        "log.level: \"lo=u=d\" is not a log level",
        "log.format: \"xml\" is none of text, json",
        "log.files_max takes a whole number: write it without quotes",
        "log.file_bytes_max: \"10 pages\" is not a size with its unit",
        "there is no setting zoo.bear: `config example` lists all there are",
        "metrics.listen: \"127.0.0.1:99999\" is not an address with its port",
        "health.interval: \"1ms\" is not from 100ms to 1h",
    ];
    let data = folder.path().join("hub");
    for verb in [&["config", "check"][..], &["config", "show"], &["boot"]] {
        let cli = Cli::hub(&data).args(["--config", file.to_str().unwrap()]).args(verb.iter().copied());
        let outcome = cli.run().expect_code(2);
        let found = outcome.stderr.lines().filter(|line| line.contains("bad.toml: ")).count();
        assert_eq!(found, want.len(), "{}", outcome.stderr);
        for problem in want {
            assert!(outcome.stderr.contains(problem), "no \"{problem}\" in {}", outcome.stderr);
        }
        assert!(outcome.stderr.contains("config example") && !outcome.stderr.contains("canary-sekret"), "{}", outcome.stderr);
        assert!(outcome.stdout.is_empty() && !data.exists(), "nothing was started");
    }
}

fn setting(shown: &Value, key: &str) -> Value {
    let rows = shown.as_array().unwrap();
    rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no {key} in {shown}")).clone()
}

/// Goal: a running node takes what is hot on SIGHUP and when its file changes, names what is cold, and keeps what it has when there is
/// a mistake.
#[test]
fn a_running_node_reads_its_settings_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    Cli::hub(&data).args(["init"]).run().expect_success();
    let file = data.join("mobo.toml");
    let log = folder.path().join("hub.log");
    let write = |level: &str, rest: &str| {
        let text = format!("[log]\nlevel = \"{level}\"\nfile = \"{}\"\n{rest}", log.display());
        fs::write(data.join("mobo.new"), text).unwrap();
        fs::rename(data.join("mobo.new"), &file).unwrap();
    };
    write("warn", "");
    let hub = Launch::hub(&data).boot();
    assert!(!fs::read_to_string(&log).unwrap().contains("INFO"));
    let told = events(&hub);

    write("info", "[quic]\nadvertise = \"hub.example:1\"\n");
    told.wait(|event| event["taken"] == 2 && event["waiting"] == "");
    let token = hub.cli().args(["device", "invite", "--name", "x"]).run().expect_success().text();
    assert!(mobo_protocol::JoinToken::parse(&token).unwrap().addresses.iter().any(|address| address.contains("hub.example:1")), "{token}");

    write("info", "[quic]\nadvertise = \"hub.example:1\"\n[log.unknown]\nx = 1\n");
    told.wait(|event| {
        event["taken"] == 0 && event["detail"].as_str().is_some_and(|detail| detail.contains("there is no setting log.unknown"))
    });
    write("info", "[metrics]\nlisten = \"127.0.0.1:0\"\n");
    told.wait(|event| event["waiting"] == "metrics.listen");
    let checked = hub.cli().args(["config", "check"]).run().expect_success();
    let line = "metrics.listen: the running node has \"\" and takes \"127.0.0.1:0\" at its next boot";
    assert!(checked.stdout.contains(line), "{}", checked.stdout);
    let checked = hub.cli().args(["config", "check", "-o", "json"]).run().expect_success().json();
    assert_eq!(checked["pending"], json!([{"key": "metrics.listen", "running": "", "wanted": "127.0.0.1:0"}]));
    hub.signal(Signal::HUP);
    told.wait(|event| event["waiting"] == "metrics.listen");
    let log = fs::read_to_string(&log).unwrap();
    for words in ["the settings were read again", "this setting takes effect at the next boot only", "nothing was changed", "SIGHUP"] {
        assert!(log.contains(words), "no \"{words}\" in {log}");
    }
    assert_eq!(hub.status()["state"], "ready", "it has served all the while");
}

/// What the node tells of its settings.
struct Events(std::sync::Mutex<std::sync::mpsc::Receiver<Value>>);

impl Events {
    #[track_caller]
    fn wait(&self, wanted: impl Fn(&Value) -> bool) {
        let events = self.0.lock().unwrap();
        let mut seen = Vec::new();
        while let Ok(event) = events.recv_timeout(PATIENCE) {
            if wanted(&event) {
                return;
            }
            seen.push(event);
        }
        panic!("it did not come: {seen:?}");
    }
}

fn events(hub: &Node) -> Events {
    let (sender, receiver) = std::sync::mpsc::sync_channel(64);
    let folder = hub.folder().to_owned();
    let (began, begins) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = mobo_runtime::control::ControlClient::connect(&folder).await.unwrap();
            began.send(()).unwrap();
            let heard = |event: Value| {
                // The test may be over.
                let _ = sender.send(event.get("data").cloned().unwrap_or(event));
            };
            let _ = client.stream("events tail", json!({ "topic": "system.config", "replay": 16, "follow": true }), heard).await;
        });
    });
    begins.recv_timeout(PATIENCE).unwrap();
    Events(std::sync::Mutex::new(receiver))
}

/// Goal: a secret reaches a node from a file, from a credential and from the sealed file, and is nowhere to be seen.
#[test]
fn secrets_come_from_files_that_show_nothing() {
    const PASSWORD: &str = "canary-password";
    let folder = tempfile::tempdir().unwrap();
    let database = Database::fresh();
    let url = format!("{}&password={PASSWORD}", database.url());
    let (credentials, file, data) = (folder.path().join("credentials"), folder.path().join("url"), folder.path().join("hub"));
    fs::create_dir(&credentials).unwrap();
    fs::write(&file, format!("{url}\n")).unwrap();

    let refused = Cli::hub(&data).args(["--set", &format!("store.url={url}"), "config", "check"]).run().expect_code(2);
    assert!(refused.stderr.contains("every user of this machine can read a command line"), "{}", refused.stderr);
    Cli::hub(&data).args(["init"]).run().expect_success();
    Cli::hub(&data).args(["config", "seal", "http.listen"]).input("127.0.0.1:0").run().expect_code(2);
    Cli::hub(&data).args(["config", "seal", "store.ulr"]).input("x").run().expect_code(4);
    Cli::hub(&data).args(["config", "seal", "store.url"]).input("mysql://x").run().expect_code(2);
    let sealed = Cli::hub(&data).args(["config", "seal", "store.url"]).input(url.clone()).run().expect_success();
    let whose = |cli: Cli| setting(&cli.args(["config", "show", "--origin", "-o", "json"]).run().expect_success().json(), "store.url");
    let shown = whose(Cli::hub(&data));
    assert!(shown["origin"].as_str().unwrap().ends_with("secrets.sealed"), "{shown}");
    assert!(shown["value"].as_str().unwrap().contains("password=***"), "{shown}");

    fs::copy(&file, credentials.join("store.url")).unwrap();
    let with_credentials = || Cli::hub(&data).env("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    let shown = whose(with_credentials());
    assert!(shown["origin"].as_str().unwrap().starts_with("credential "), "{shown}");
    let shown = whose(with_credentials().env("MOBO_STORE__URL_FILE", file.to_str().unwrap()));
    assert_eq!(shown["origin"], "env MOBO_STORE__URL_FILE");

    let hub = Launch::hub(&data).set("log.level", "debug").boot();
    assert!(hub.status()["store"].as_str().unwrap().starts_with("postgres"), "the sealed URL is in force: {}", hub.status());
    let mut places = vec![("an answer".to_owned(), sealed.stdout.into_bytes()), ("the log".to_owned(), hub.stderr().into_bytes())];
    places.push(("the process's arguments".to_owned(), fs::read(format!("/proc/{}/cmdline", hub.pid())).unwrap()));
    places.push(("its environment".to_owned(), fs::read(format!("/proc/{}/environ", hub.pid())).unwrap()));
    for entry in fs::read_dir(&data).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_file()) {
        places.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
    }
    for (place, bytes) in &places {
        let is_there = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!is_there, "the password is in {place}");
    }
    for name in ["secrets.sealed", "secrets.key"] {
        assert_eq!(fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

/// Goal: `config check` says what a part of the node would refuse at boot, with code 2, though the node itself would start.
#[test]
fn check_looks_at_rules_and_lists_too() {
    let folder = tempfile::tempdir().unwrap();
    let check = |cli: Cli, setting: &str| cli.args(["--set", setting, "config", "check"]).run();
    for (setting, words) in [
        ("http.rate_rules=orders=5/1s", "http.rate_rules: \"orders=5/1s\" is no list of rules: \"orders=5/1s\": a label is"),
        ("pusher.webhook_urls=ftp://example.com/s3cret", "pusher.webhook_urls: its value is no list of addresses such as https://"),
        ("pusher.webhook_events=channel_full", "there is no \"channel_full\", but"),
        ("mqtt.ingest=zigbee2mqtt/# climate", "is no list of rules: line 1: a rule is TOPIC -> COLLECTION"),
    ] {
        let refused = check(Cli::hub(folder.path()), setting).expect_code(2);
        assert!(refused.stderr.contains(words) && !refused.stderr.contains("s3cret"), "{}", refused.stderr);
    }
    check(Cli::edge(folder.path()), "mqtt.ingest=a -> b c=$").expect_success();
    check(Cli::edge(folder.path()), "mqtt.ingest=a").expect_code(2);
}
