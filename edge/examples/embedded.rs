//! A program that is a device: `cargo run -p mobo-edge --example embedded -- FOLDER [TOKEN]`
//!
//! On the hub: `mobo-hub collection create pumps site:text setpoint:float runs:counter`, and `mobo-hub device invite` prints the token.

use std::time::Duration;

use mobo_edge::{Changed, Node};
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Deserialize)]
struct Pump {
    setpoint: Option<f64>,
    runs: i64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: embedded FOLDER [TOKEN]")?;
    let node = Node::open(folder, &[("http.listen", "127.0.0.1:0")]).await?;
    if let Some(token) = args.next().filter(|_| !node.has_joined()) {
        node.join(&token).await?;
        node.sync(Duration::from_secs(30)).await?;
    }
    let mut changes = node.watch("pumps")?;
    // Counters add up, whoever writes at the same time; everything else is the latest by field.
    node.put("pumps", "7", &json!({ "site": "plant-4", "setpoint": 21.5, "runs": { "$inc": 1 } })).await?;
    while let Some(Changed::Records(ids)) = changes.next().await {
        for id in ids {
            if let Some(pump) = node.get::<Pump>("pumps", &id).await? {
                println!("pump {id}: {:?} after {} runs", pump.setpoint, pump.runs);
            }
        }
        if node.sync(Duration::from_secs(5)).await? {
            break;
        }
    }
    node.stop().await;
    Ok(())
}
