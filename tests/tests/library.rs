//! A device inside a program: the same device, with Rust types.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::time::Duration;

use mobo_edge::{Changed, Node};
use mobo_tests::cluster::{Cluster, Place};
use serde_json::{Value, json};

const SETTINGS: &[(&str, &str)] = &[("http.listen", "127.0.0.1:0")];
const PATIENCE: Duration = Duration::from_secs(60);

/// Goal: a program joins, writes while the hub is away, hears what others write, and finds everything again after it was started anew.
#[test]
fn a_program_is_a_device() {
    let mut cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["pumps", "site:text", "setpoint:float", "runs:counter"], &["climate", "--kind", "stream", "celsius:float"]]);
    let (folder, token) = (cluster.folder("program"), cluster.invite("program"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut api = runtime.block_on(async {
        let node = Node::open(&folder, SETTINGS).await.unwrap();
        assert!(!node.has_joined());
        assert!(node.put("pumps", "7", &json!({})).await.unwrap_err().message.contains("knows no collection"));
        node.join(&token).await.unwrap();
        assert!(node.join(&token).await.unwrap_err().message.contains("has joined the hub"));
        assert!(node.sync(PATIENCE).await.unwrap());

        cluster.stop_hub();
        node.put("pumps", "7", &json!({ "site": "plant-4", "setpoint": 21.5, "runs": { "$inc": 1 } })).await.unwrap();
        node.patch("pumps", "7", &json!({ "setpoint": 22.0 })).await.unwrap();
        node.append("climate", &[json!({ "celsius": 20.5 }), json!({ "celsius": 21.5 })]).await.unwrap();
        let pump: (String, f64, i64) = of(&node.get::<Value>("pumps", "7").await.unwrap().unwrap());
        assert_eq!(pump, ("plant-4".to_owned(), 22.0, 1));
        assert_eq!(node.get::<Value>("pumps", "8").await.unwrap(), None);
        assert!(node.put("pumps", "7", &json!({ "setpoint": "hot" })).await.is_err());

        cluster.start_hub();
        assert!(node.sync(PATIENCE).await.unwrap());
        let mut changes = node.watch("pumps").unwrap();
        let mut api = cluster.api();
        api.post("/rest/v1/pumps", &json!({ "id": "9", "site": "harbour" })).unwrap().expect_status(201);
        let heard = tokio::time::timeout(PATIENCE, async {
            loop {
                match changes.next().await.unwrap() {
                    Changed::Records(ids) if ids.contains(&"9".to_owned()) => return,
                    Changed::Records(_) | Changed::Unknown => {}
                }
            }
        });
        heard.await.expect("the device hears what others write");
        node.stop().await;

        let node = Node::open(&folder, SETTINGS).await.unwrap();
        assert!(node.has_joined());
        assert_eq!(node.list::<Value>("pumps", 10).await.unwrap().len(), 2);
        assert_eq!(node.list::<Value>("climate", 10).await.unwrap().len(), 2);
        node.put("pumps", "8", &json!({ "site": "for a moment" })).await.unwrap();
        node.delete("pumps", "8").await.unwrap();
        assert!(node.sync(PATIENCE).await.unwrap());
        assert!(Node::open(&folder, SETTINGS).await.is_err(), "a folder has one node");
        node.stop().await;
        api
    });
    let rows = api.get("/rest/v1/pumps?select=id,site,setpoint,runs&order=id").unwrap().expect_status(200).json();
    assert_eq!(rows, json!([pump("7", "plant-4", json!(22.0), 1), pump("9", "harbour", Value::Null, 0)]));
    cluster.healthy();
}

fn pump(id: &str, site: &str, setpoint: Value, runs: i64) -> Value {
    json!({ "id": id, "site": site, "setpoint": setpoint, "runs": runs })
}

fn of(pump: &Value) -> (String, f64, i64) {
    (pump["site"].as_str().unwrap().to_owned(), pump["setpoint"].as_f64().unwrap(), pump["runs"].as_i64().unwrap())
}
