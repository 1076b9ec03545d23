//! Plain sensors: what a broker has taken from them is at the hub once, whatever happens to the device in between.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::http::Client;
use mobo_tests::mosquitto::Mosquitto;
use mobo_tests::postgres::Database;
use mobo_tests::process::{Launch, Node};
use mobo_tests::seed::Seed;
use mobo_tests::wait;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
/// A broker that keeps everything for a client that is away.
const PATIENT: &str = "max_queued_messages 0\nmax_inflight_messages 50\n";

/// Goal: every message that the broker acknowledged to `mosquitto_pub` is one row at the hub, though the device is cut off from its hub and
/// loses its power again and again while it takes them; and a message that makes no row is in quarantine once.
/// Method: the messages are numbered; the device is killed at seeded moments. `MOBO_MESSAGES=10000` sends more.
// faults: S-1
#[test]
fn sensors_of_a_device_that_is_cut_off_and_killed_lose_nothing_on_sqlite() {
    store_and_forward(Place::Sqlite);
}

/// The same into Postgres.
// faults: S-1
#[test]
fn sensors_of_a_device_that_is_cut_off_and_killed_lose_nothing_on_postgres() {
    store_and_forward(Place::Postgres);
}

fn store_and_forward(place: Place) {
    let mut rng = Seed::from_env().rng();
    let messages: u64 = std::env::var("MOBO_MESSAGES").map_or(500, |text| text.parse().expect("MOBO_MESSAGES is a number"));
    let broker = Mosquitto::with(PATIENT);
    let mut cluster = Cluster::boot(place);
    cluster.create(&[&["climate", "--kind", "stream", "sensor:text", "n:int", "celsius:float"]]);
    let launch = cluster.joined("one").set("mqtt.ingest_url", &broker.url());
    let rules = "plant/{sensor}/t -> climate sensor={sensor} n=$.n celsius=$.celsius";
    let mut device = launch.set("mqtt.ingest", rules).boot();
    wait_live(&device);
    cluster.stop_hub();

    let text: String = (0..messages).map(line).collect();
    let mut publisher = Publisher::start(&broker, "plant/press-3/t");
    publisher.send(text.into_bytes());
    for kill in 1..=3 {
        wait::until("the device to take some", PATIENCE, || (count(&mut device.http()) >= messages * kill / 4).then_some(()));
        std::thread::park_timeout(Duration::from_micros(rng.below(20_000)));
        device = device.kill9().boot();
    }
    publisher.finish();
    let good = (0..messages).filter(|n| !is_bad(*n)).count() as u64;
    wait::until("all rows on the device", PATIENCE, || (count(&mut device.http()) >= good).then_some(()));
    wait::until("all bad ones aside", PATIENCE, || (device.status()["quarantined"] == messages - good).then_some(()));

    cluster.start_hub();
    cluster.converge(&[&device]);
    let want: Vec<u64> = (0..messages).filter(|n| !is_bad(*n)).collect();
    assert_eq!(numbers(&mut device.http()), want, "each message is one row on the device");
    assert_eq!(numbers(&mut cluster.api()), want, "each message is one row at the hub");
    let aside = device.cli().args(["quarantine", "list", "-o", "json", "--limit", "1000"]).run().expect_success().json();
    assert!(aside.as_array().unwrap().iter().all(|message| message["topic"] == "plant/press-3/t"), "{aside}");
    cluster.healthy();
}

/// Goal: every message that the broker acknowledged to `mosquitto_pub` is one row of a hub that hears it itself, though hub and broker are killed
/// while it takes them; and a message that makes no row is in quarantine once. Method: as above; the broker has saved what it has before it dies.
// faults: S-1
#[test]
fn sensors_of_a_hub_that_is_killed_count_once_on_sqlite() {
    heard_by_the_hub(Place::Sqlite);
}

/// The same into Postgres, where another hub of the same database goes on.
// faults: S-1
#[test]
fn sensors_of_hubs_that_are_killed_count_once_on_postgres() {
    heard_by_the_hub(Place::Postgres);
}

fn heard_by_the_hub(place: Place) {
    let mut rng = Seed::from_env().rng();
    let messages: u64 = std::env::var("MOBO_MESSAGES").map_or(500, |text| text.parse().expect("MOBO_MESSAGES is a number"));
    let mut broker = Mosquitto::saving(PATIENT);
    let database = (place == Place::Postgres).then(Database::fresh);
    let store = database.as_ref().map_or_else(|| "sqlite".to_owned(), Database::url);
    let rules = "plant/{sensor}/t -> climate sensor={sensor} n=$.n celsius=$.celsius\nplant/{sensor}/t -> sensors id={sensor} seen=$.n";
    let settings = [("mqtt.ingest_url", broker.url()), ("mqtt.ingest", rules.to_owned())];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let mut cluster = Cluster::boot_with(&store, database, &settings);
    cluster.create(&[&["climate", "--kind", "stream", "sensor:text", "n:int", "celsius:float"], &["sensors", "seen:int"]]);
    wait_live(cluster.hub());
    let mut other = (place == Place::Postgres).then(|| beside(&cluster, &store, &settings));
    let mut publisher = Publisher::start(&broker, "plant/press-3/t");
    publisher.send((0..messages).map(line).collect::<String>().into_bytes());
    for kill in 1..=2 {
        let mut api = other.as_ref().filter(|_| kill == 2).map_or_else(|| cluster.api(), api_of);
        wait::until("the hub to take some", PATIENCE, || (count(&mut api) >= messages * kill / 4).then_some(()));
        std::thread::park_timeout(Duration::from_micros(rng.below(20_000)));
        match other.take_if(|_| kill == 2) {
            Some(other) => drop(other.kill9()),
            None => {
                cluster.kill_hub();
                if kill == 1 && place == Place::Sqlite {
                    cluster.start_hub();
                }
            }
        }
    }
    publisher.finish();
    broker.save();
    broker.kill();
    broker.start_again();
    cluster.start_hub();
    let want: Vec<u64> = (0..messages).filter(|n| !is_bad(*n)).collect();
    let mut api = cluster.api();
    wait::until("all rows at the hub", PATIENCE, || (count(&mut api) >= want.len() as u64).then_some(()));
    let bad = messages - want.len() as u64;
    wait::until("all bad ones aside", PATIENCE, || (cluster.hub().status()["quarantined"] == bad).then_some(()));
    assert_eq!(numbers(&mut api), want, "each message is one row");
    let last = want.last().unwrap();
    assert_eq!(api.get("/rest/v1/sensors?select=id,seen").unwrap().json(), json!([{ "id": "press-3", "seen": last }]), "in their order");
    let aside = cluster.cli().args(["quarantine", "list", "-o", "json"]).run().expect_success().json();
    assert!(aside.as_array().unwrap().iter().all(|message| message["topic"] == "plant/press-3/t"), "{aside}");
    assert_eq!(aside.as_array().unwrap().len() as u64, bad, "{aside}");
    let name = aside[0]["n"].as_str().unwrap();
    let shown = cluster.cli().args(["quarantine", "show", name, "-o", "json"]).run().expect_success().json();
    assert!(shown["payload"].as_str().unwrap().contains("broken"), "{shown}");
    cluster.cli().args(["quarantine", "retry", name]).run().expect_code(2);
    cluster.cli().args(["quarantine", "drop", name]).run().expect_success();
    assert_eq!(cluster.hub().status()["quarantined"], bad - 1);
    cluster.healthy();
}

/// Another hub of the same database, which waits for its turn.
fn beside(cluster: &Cluster, store: &str, settings: &[(&str, &str)]) -> Node {
    let folder = cluster.folder("other");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(cluster.hub().folder().join("hub.key"), folder.join("hub.key")).unwrap();
    let ports = ["http.listen", "quic.listen", "mqtt.listen"].map(|key| (key, "127.0.0.1:0"));
    let all = settings.iter().chain(&ports).chain(&[("store.url", store)]).copied().collect::<Vec<_>>();
    let other = all.into_iter().fold(Launch::hub(folder), |launch, (key, value)| launch.set(key, value)).boot();
    wait::until("the other hub to wait", PATIENCE, || (other.status()["ingest"]["state"] == "standby").then_some(()));
    other
}

fn api_of(hub: &Node) -> Client {
    let key = hub.cli().args(["key", "create", "--role", "service", "--name", "other"]).run().expect_success().text();
    hub.http().with_header("apikey", &key)
}

/// One in a hundred cannot be taken.
fn is_bad(n: u64) -> bool {
    n % 100 == 37
}

fn line(n: u64) -> String {
    if is_bad(n) { format!("{{\"n\":\"{n}, broken\n") } else { format!("{{\"n\":{n},\"celsius\":{}.5}}\n", n % 40) }
}

/// Goal: what zigbee2mqtt, Tasmota, ThingsBoard gateways and bare sensors publish arrives at the hub as rows; what cannot be taken is shown
/// with its topic, and taken once its rule is mended.
#[test]
fn messages_of_every_kind_arrive_as_rows() {
    let broker = Mosquitto::with(PATIENT);
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[
        &["climate", "--kind", "stream", "sensor:text", "temperature:float", "battery:int", "occupancy:bool"],
        &["power", "--kind", "stream", "plug:text", "watts:float"],
        &["sensors", "model:text", "state:bool"],
    ]);
    let rules = "zigbee2mqtt/{sensor} -> climate sensor={sensor} *=$\n\
                 tele/{plug}/SENSOR -> power plug={plug} watts=$.ENERGY.Power at=$.Time\n\
                 plant/{sensor}/t -> climate sensor={sensor} temperature=$\n\
                 v1/gateway/telemetry -> climate sensor={device} *=$\n\
                 v1/gateway/attributes -> sensors id={device} *=$\n\
                 stat/{plug}/POWER -> sensors id={plug} state=$\n\
                 later/x -> not_yet_there v=$";
    let launch = cluster.joined("one").set("mqtt.ingest_url", &broker.url()).set("mqtt.ingest", rules);
    let device = launch.boot();
    wait_live(&device);
    assert_eq!(device.status()["ingest"]["unknown_collections"], json!(["not_yet_there"]));
    for (topic, payload) in [
        ("zigbee2mqtt/attic", r#"{"battery":97,"humidity":53.46,"linkquality":134,"temperature":21.44,"voltage":2975}"#),
        ("zigbee2mqtt/hall", r#"{"battery":100,"linkquality":78,"occupancy":true}"#),
        ("tele/press-3/SENSOR", r#"{"Time":"2026-03-01T12:30:05","ENERGY":{"Total":148.223,"Power":61,"Voltage":231}}"#),
        ("plant/tank/t", "-3.5"),
        ("plant/tank/t", "broken"),
        (
            "v1/gateway/telemetry",
            r#"{"A":[{"ts":1772368205000,"values":{"temperature":1}}],"B":[{"ts":1772368205000,"values":{"battery":9}}]}"#,
        ),
        ("v1/gateway/attributes", r#"{"A":{"model":"X1"}}"#),
        ("stat/press-3/POWER", "ON"),
    ] {
        let mut publisher = Publisher::start(&broker, topic);
        publisher.send(format!("{payload}\n").into_bytes());
        publisher.finish();
    }
    wait::until("all messages taken", PATIENCE, || (device.status()["ingest"]["rows"] == 8).then_some(()));
    wait::until("the bad one aside", PATIENCE, || (device.status()["quarantined"] == 1).then_some(()));
    cluster.converge(&[&device]);
    let mut api = cluster.api();
    let mut get = |path: &str| api.get(path).unwrap().expect_status(200).json();
    assert_eq!(
        get("/rest/v1/climate?select=sensor,temperature,battery,occupancy&order=sensor"),
        json!([
            {"sensor": "A", "temperature": 1.0, "battery": null, "occupancy": null},
            {"sensor": "B", "temperature": null, "battery": 9, "occupancy": null},
            {"sensor": "attic", "temperature": 21.44, "battery": 97, "occupancy": null},
            {"sensor": "hall", "temperature": null, "battery": 100, "occupancy": true},
            {"sensor": "tank", "temperature": -3.5, "battery": null, "occupancy": null},
        ])
    );
    assert_eq!(get("/rest/v1/power?select=plug,watts"), json!([{"plug": "press-3", "watts": 61.0}]));
    assert_eq!(
        get("/rest/v1/sensors?select=id,model,state&order=id"),
        json!([{"id": "A", "model": "X1", "state": null}, {"id": "press-3", "model": null, "state": true}])
    );
    let cli = |args: &[&str]| device.cli().args(args).run();
    let aside = cli(&["quarantine", "list", "-o", "json"]).expect_success().json();
    let name = aside[0]["n"].as_str().unwrap().to_owned();
    let shown = cli(&["quarantine", "show", &name, "-o", "json"]).expect_success().json();
    assert_eq!((&shown["topic"], &shown["payload"]), (&json!("plant/tank/t"), &json!("broken")), "{shown}");
    assert!(shown["detail"].as_str().unwrap().contains("temperature"), "{shown}");
    cli(&["quarantine", "retry", &name]).expect_code(2);
    cli(&["quarantine", "drop", &name]).expect_success();
    assert_eq!(device.status()["quarantined"], 0);
}

/// Goal: a line that is no rule is told at boot, by its line and what would do.
#[test]
fn a_rule_that_is_none_is_told_at_boot() {
    let cluster = Cluster::boot(Place::Sqlite);
    let device = cluster.joined("one").set("mqtt.ingest", "t -> c x=$\nzigbee2mqtt/# climate").spawn();
    device.wait_line(PATIENCE, |line| line.contains("mqtt.ingest, line 2: a rule is TOPIC -> COLLECTION"));
    device.wait_line(PATIENCE, |line| line.contains("degraded: an optional component is out"));
}

/// Goal: what a program writes to `append`, line by line, is there; a line that is none is told by its number, and what was before it stays.
#[test]
fn lines_of_standard_input_are_samples() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["climate", "--kind", "stream", "sensor:text", "n:int", "celsius:float", "ok:bool"]]);
    let device = cluster.device("one");
    device.wait_collection("climate");
    let append = |args: &[&str], text: String| device.cli().args(["append", "climate"]).args(args).input(text).run();
    let lines = (0..1_200).map(|n| format!("{{\"n\":{n},\"celsius\":{n}.5}}\n")).collect();
    let said = append(&["-o", "json"], lines).expect_success().json();
    assert_eq!(said, json!({ "appended": 1_200, "ack": "local" }));
    let csv = "sensor,n,celsius,ok,at\nattic,1200,21.5,ON,2026-03-01T12:30:05Z\n\"a, b\",1201,,false,1772368205\n";
    append(&["--format", "csv", "--wait", "hub"], csv.to_owned()).expect_success();
    let wrong = append(&[], "{\"n\":1202}\n\nseven\n{\"n\":1203}\n".to_owned()).expect_code(2);
    assert!(wrong.stderr.contains("line 3: this is not JSON"), "{}", wrong.stderr);
    assert_eq!(numbers(&mut device.http()), (0..=1_202).collect::<Vec<u64>>());
    let path = "/rest/v1/climate?select=sensor,celsius,ok,at&n=in.(1200,1201)&order=n";
    // The hub decides when that was by its own clock.
    let at = "2026-03-01T12:30:05";
    let rows = cluster.api().get(path).unwrap().expect_status(200).json();
    let strip = |row: &Value| (row["sensor"].clone(), row["celsius"].clone(), row["ok"].clone());
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| (strip(row), row["at"].as_str().unwrap()[..16].to_owned())).collect();
    let want = |sensor: &str, celsius: Value, ok: bool| ((json!(sensor), celsius, json!(ok)), at[..16].to_owned());
    assert_eq!(rows, [want("attic", json!(21.5), true), want("a, b", Value::Null, false)]);
}

/// Goal: a device that is told to reports how its machine is, with those figures that the stream has a field for.
#[test]
fn a_device_reports_how_its_machine_is() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["vitals", "--kind", "stream", "memory:float", "uptime:int", "disk_free:int", "cpu:float"]]);
    let device = cluster.joined("one").set("vitals.every", "1s").boot();
    device.wait_collection("vitals");
    let mut api = cluster.api();
    let rows = wait::until("two samples at the hub", PATIENCE, || {
        let rows = api.get("/rest/v1/vitals?select=memory,uptime,disk_free,cpu&cpu=not.is.null").ok()?.json();
        (rows.as_array()?.len() > 1).then_some(rows)
    });
    for row in rows.as_array().unwrap() {
        let (memory, cpu) = (row["memory"].as_f64().unwrap(), row["cpu"].as_f64().unwrap());
        assert!((0.0..=100.0).contains(&memory) && (0.0..=100.0).contains(&cpu), "{row}");
        assert!(row["uptime"].as_i64().unwrap() > 0 && row["disk_free"].as_i64().unwrap() > 0, "{row}");
    }
}

fn wait_live(device: &Node) {
    wait::until("the sensors to be heard", PATIENCE, || (device.status()["ingest"]["state"] == "live").then_some(()));
}

fn count(api: &mut Client) -> u64 {
    let rows = api.get("/rest/v1/climate?select=n&limit=1&order=n.desc").ok().filter(|answer| answer.status == 200);
    rows.and_then(|answer| answer.json()[0]["n"].as_u64()).map_or(0, |_| numbers(api).len() as u64)
}

fn numbers(api: &mut Client) -> Vec<u64> {
    let mut numbers: Vec<u64> = Vec::new();
    loop {
        let path = format!("/rest/v1/climate?select=n&order=n&limit=1000&offset={}", numbers.len());
        let page = api.get(&path).unwrap().expect_status(200).json();
        let page: &Vec<Value> = page.as_array().unwrap();
        numbers.extend(page.iter().map(|row| row["n"].as_u64().unwrap()));
        if page.len() < 1_000 {
            return numbers;
        }
    }
}

/// `mosquitto_pub`, which publishes each line with QoS 1 and ends when the broker has acknowledged all.
struct Publisher {
    child: Child,
    writing: Option<std::thread::JoinHandle<()>>,
}

impl Publisher {
    fn start(broker: &Mosquitto, topic: &str) -> Self {
        let url = broker.url();
        let (host, port) = url.trim_start_matches("mqtt://").rsplit_once(':').unwrap();
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", host, "-p", port, "-q", "1", "-t", topic, "-l"]).stdin(Stdio::piped());
        let child = command.spawn().expect("mosquitto_pub is not installed: run tests/run, or install the package `mosquitto-clients`");
        Self { child, writing: None }
    }

    fn send(&mut self, text: Vec<u8>) {
        let mut input = self.child.stdin.take().unwrap();
        self.writing = Some(std::thread::spawn(move || input.write_all(&text).unwrap()));
    }

    fn finish(mut self) {
        self.writing.take().unwrap().join().unwrap();
        assert!(self.child.wait().unwrap().success(), "mosquitto_pub has its acknowledgements");
    }
}
