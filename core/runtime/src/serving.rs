//! How the API is served: the settings of it that a device and a hub have alike.

use mobo_core::kernel::Fault;
use mobo_core::limits;
use mobo_core::rates::Rules;

use crate::config::{Config, Define, Setting, listed};

/// How often which requests may be made.
pub static RATE_RULES: Setting<String> = Setting::new(
    "http.rate_rules",
    limits::RATE_RULES,
    "0.1.0",
    "How many requests of a kind one caller may make in a time, beside the general quotas: LABEL=COUNT/TIME, with commas between several, as in \
     orders:create=10/1s. A label is COLLECTION:ACTION (read, create, update, delete or *; *:create is any collection), *:auth for passwords, links \
     and refresh tokens, or a path with all below it, as in /rest/v1/orders or POST /graphql/v1. LABEL@guest holds for whoever shows nothing or only \
     a mobo_pub_ key, by address; LABEL@auth for tokens and secret keys, by those. The most special label of what is done counts, and the longest \
     path. TIME is 1s to 24h. Empty: only the general quotas.",
)
.checked(no_rules);

/// Whether answers say how long their parts took.
pub static SERVER_TIMING: Setting<bool> = Setting::new(
    "http.server_timing",
    "false",
    "0.1.0",
    "True: answers have a header Server-Timing, as PostgREST spells it: jwt, parse, plan, db and response in milliseconds. Anybody who is answered reads it.",
);
/// Whether those in a channel are told how many they are.
pub static SUBSCRIPTION_COUNT: Setting<bool> = Setting::new(
    "pusher.subscription_count",
    "false",
    "0.1.0",
    "True: everybody in a channel of the app that is not one of presence is told how many connections are in it, as pusher:subscription_count, \
     whenever that changes; in a channel of more than 100 every few seconds.",
);
/// Who is told what happens in channels.
pub static WEBHOOK_URLS: Setting<String> = Setting::new(
    "pusher.webhook_urls",
    "",
    "0.1.0",
    "Where servers of the app of pusher.id take its webhooks, as in https://example.com/hooks, with commas between several: what happens in channels, \
     signed with the app's secret. A hub sends them, each of the hubs of a store its own; a device does not. Empty: nobody is told.",
)
.url()
.checked(no_receivers);

fn no_rules(text: &str) -> Option<String> {
    Rules::parse(text).err().map(|bad| format!("no list of rules: {bad}"))
}

/// What they are told in full, where a hub makes its requests; here, what can be none of them.
fn no_receivers(text: &str) -> Option<String> {
    let is_one = |url: &str| {
        let host = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        host.is_some_and(|host| !host.is_empty() && url.chars().all(|c| c.is_ascii_graphic()))
    };
    match listed(text).count() {
        count if count > limits::WEBHOOK_URLS_MAX => Some(format!("{count} addresses: keep {} of them", limits::WEBHOOK_URLS_MAX)),
        _ if !listed(text).all(is_one) => Some("no list of addresses such as https://example.com/hooks".to_owned()),
        _ => None,
    }
}

/// The rules of the settings.
///
/// # Errors
///
/// A [`Fault`] that names the rule.
pub fn rate_rules(config: &Config) -> Result<Rules, Fault> {
    Rules::parse(&config.get(&RATE_RULES)).map_err(|bad| {
        Fault::new(
            format!("{} has {bad}", RATE_RULES.definition().key),
            "write each rule as orders:create@guest=10/1s, with commas between them",
        )
    })
}
