//! What plain sensors send, as an operator wrote it down: one setting, the same on a device and on a hub.

use mobo_core::ingest::Rules;
use mobo_core::kernel::Fault;

use crate::config::{Config, Define, Setting};
use crate::entropy;

/// What messages mean.
pub static MQTT_INGEST: Setting<String> = Setting::new(
    "mqtt.ingest",
    "",
    "0.1.0",
    "What messages of plain sensors mean, one rule in each line: TOPIC -> COLLECTION FIELD=SOURCE. In a topic {name} takes a level, in a \
     source it stands for it; $.a.b is a member of a JSON payload, $ the whole of it, *=$ every member that the collection has a field for. \
     As in: zigbee2mqtt/{sensor} -> climate sensor={sensor} *=$. A message is acknowledged when it is durable here. Empty: none are heard.",
)
.checked(no_rules);

fn no_rules(text: &str) -> Option<String> {
    Rules::parse(text).err().map(|error| format!("no list of rules: {error}"))
}

/// The rules of the settings.
///
/// # Errors
///
/// A [`Fault`] that names the line.
pub fn rules(config: &Config) -> Result<Rules, Fault> {
    Rules::parse(&config.get(&MQTT_INGEST)).map_err(|error| {
        let advice = "write each rule in a line of its own, as in: zigbee2mqtt/{sensor} -> climate sensor={sensor} *=$";
        Fault::new(format!("{}, {error}", MQTT_INGEST.definition().key), advice)
    })
}

/// 64 random bits for a pause; 0 where the system has none to give.
#[must_use]
pub fn pause_bits() -> u64 {
    entropy::bytes().map_or(0, u64::from_le_bytes)
}
