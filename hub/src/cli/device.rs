//! The verbs about devices.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use mobo_core::limits;
use mobo_runtime::config::Kind;
use mobo_runtime::output::Failure;
use serde_json::json;

use super::{Common, talk};

/// `device …`
#[derive(Debug, Subcommand)]
pub enum DeviceVerb {
    /// Print a token with which one device can join.
    Invite {
        /// The device's name.
        #[arg(long, default_value = "")]
        name: String,
        /// A bucket that it may read and write; by default `all`.
        #[arg(long = "bucket", value_name = "KEY")]
        buckets: Vec<String>,
        /// What is said of the device, as NAME=VALUE: with site=plant-4, a rule site:{site} gives it the bucket site:plant-4.
        #[arg(long = "claim", value_name = "NAME=VALUE")]
        claims: Vec<String>,
        /// How long the token can be used, as in 10m, 24h or 7d; by default 24h.
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        ttl: Option<Duration>,
    },
    /// All devices.
    List,
    /// One device.
    Show {
        /// Its name or id.
        name: String,
    },
    /// Give a device buckets, or another right on those that it has; at once, if it is connected.
    Grant {
        /// Its name or id.
        name: String,
        /// A bucket that it may read and write.
        #[arg(long = "bucket", value_name = "KEY", required = true)]
        buckets: Vec<String>,
        /// It may read them, and not write there.
        #[arg(long)]
        read_only: bool,
    },
    /// Take buckets away from a device, also such as its claims give it; at once, if it is connected.
    Ungrant {
        /// Its name or id.
        name: String,
        /// A bucket that it may neither read nor write any more.
        #[arg(long = "bucket", value_name = "KEY", required = true)]
        buckets: Vec<String>,
        /// What becomes of edits that have not come yet: accept_if_made_before_revoke, or reject.
        #[arg(long, value_name = "POLICY", default_value = "accept_if_made_before_revoke")]
        late: String,
    },
    /// Take in what a device has exported to a file, on a USB stick for instance, with `mobo-edge backup export`. It may be taken in again, and
    /// the device may sync the same by itself: nothing happens twice.
    Import {
        /// The file.
        file: PathBuf,
        /// Write what became of it to this file, for `mobo-edge backup import` on the device.
        #[arg(long, value_name = "FILE")]
        receipt: Option<PathBuf>,
    },
    /// Shut a device out, at once and for good.
    Revoke {
        /// Its name or id.
        name: String,
    },
}

pub(super) fn run(common: &Common, verb: DeviceVerb) -> Result<ExitCode, Failure> {
    let (verb, args) = match verb {
        DeviceVerb::Invite { name, buckets, claims, ttl } => {
            let ttl_ms = ttl.and_then(|ttl| u64::try_from(ttl.as_millis()).ok());
            return talk::invite(common, &json!({ "name": name, "buckets": buckets, "claims": claims, "ttl_ms": ttl_ms }));
        }
        DeviceVerb::List => ("device list", json!({})),
        DeviceVerb::Show { name } => ("device show", json!({ "name": name })),
        DeviceVerb::Grant { name, buckets, read_only } => {
            ("device grant", json!({ "name": name, "buckets": buckets, "read_only": read_only }))
        }
        DeviceVerb::Ungrant { name, buckets, late } => ("device ungrant", json!({ "name": name, "buckets": buckets, "late": late })),
        DeviceVerb::Import { file, receipt } => {
            let receipt = receipt.as_deref().map(absolute).transpose()?;
            ("device import", json!({ "file": absolute(&file)?, "receipt": receipt }))
        }
        DeviceVerb::Revoke { name } => ("device revoke", json!({ "name": name })),
    };
    talk::plain(common, verb, args)
}

/// The hub reads it from where it runs.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display()), "name a file"))
}

/// How long a token lives, as it is written.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let max = limits::INVITE_TTL_MAX;
    match Duration::parse(text) {
        Some(ttl) if !ttl.is_zero() && ttl <= max => Ok(ttl),
        Some(_) => Err(format!("a token lives for more than nothing, and at most {} days", max.as_secs() / 86_400)),
        None => Err(format!("it is not {}", Duration::EXPECTED)),
    }
}
