//! What an idle connected device costs the hub. The devices live in this process; their sockets, handshakes and sessions are real.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mobo_adapters::mqtt::MqttDialer;
use mobo_adapters::quic::QuicDialer;
use mobo_adapters::websocket::WsDialer;
use mobo_core::link::Dialer;
use mobo_core::trust::KeyPair;
use mobo_protocol::JoinToken;
use mobo_runtime::clock::Clock;
use mobo_runtime::entropy;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::live::{Live, Member};
use crate::measure::{cpu, rss_kib};
use crate::place::Binaries;
use crate::plan::{Plan, Transport};
use crate::report::{Report, rounded, say, seconds};
use crate::rig::{Rig, number, text};

/// Handshakes at the same time.
const AT_ONCE: usize = 32;
/// Sockets that are open besides those of the devices.
const SPARE_FILES: u64 = 256;
/// How long the hub may go on with what connecting has left to do, before its idle time is measured.
const SETTLE: Duration = Duration::from_secs(3);

/// The hub's memory before, after enrolment, and with all devices idle; and what idling costs it.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, devices: usize, mut report: Report) -> anyhow::Result<Report> {
    allow_files(devices)?;
    let rig = Rig::start(plan, binaries, &mut report).await?;
    let booted_kib = rss_kib(rig.hub.pid)?;
    say!("w5: enrolling {devices} devices");
    let members = enrol(&rig, devices, plan.transport).await?;
    let enrolled_kib = rss_kib(rig.hub.pid)?;

    say!("w5: connecting them");
    let connecting = std::time::Instant::now();
    let cpu_before = cpu(rig.hub.pid)?;
    let lives = connect(members).await?;
    let connected_in = connecting.elapsed();
    let connecting_cpu = cpu(rig.hub.pid)?.saturating_sub(cpu_before);
    let status = rig.hub.status().await?;
    let live = status.get("devices").map_or(0, |devices| number(devices, "live"));
    anyhow::ensure!(live == devices as u64, "the hub says that {live} devices are live, not {devices}");
    tokio::time::sleep(SETTLE).await;

    say!("w5: idling for {} s", plan.seconds);
    let live_kib = rss_kib(rig.hub.pid)?;
    let (hub, own) = (cpu(rig.hub.pid)?, cpu(std::process::id())?);
    tokio::time::sleep(plan.duration()).await;
    let (hub, own) = (cpu(rig.hub.pid)?.saturating_sub(hub), cpu(std::process::id())?.saturating_sub(own));
    let idle_kib = rss_kib(rig.hub.pid)?;
    let lost: Vec<String> = lives.iter().filter_map(Live::ended).collect();
    anyhow::ensure!(lost.is_empty(), "{} devices lost their session: {}", lost.len(), lost.first().map_or("", String::as_str));

    let per_device = |kib: u64| rounded(kib as f64 / devices as f64);
    report.put("transport", plan.transport.name());
    report.put("devices", devices);
    report.put("hub_rss_booted_kib", booted_kib);
    report.put("hub_rss_enrolled_kib", enrolled_kib);
    report.put("hub_rss_live_kib", live_kib);
    report.put("hub_rss_after_idling_kib", idle_kib);
    report.put("hub_kib_per_device", per_device(idle_kib.saturating_sub(booted_kib)));
    report.put("connect_s", seconds(connected_in));
    report.put("connect_hub_cpu_ms_per_device", rounded(connecting_cpu.as_secs_f64() * 1e3 / devices as f64));
    report.put("idle_s", plan.seconds);
    report.put("idle_hub_cpu_s", seconds(hub));
    report.put("idle_hub_cpu_percent", rounded(hub.as_secs_f64() / plan.duration().as_secs_f64() * 100.0));
    report.put("idle_client_cpu_s", seconds(own));
    report.put("client_rss_kib", rss_kib(std::process::id())?);
    for live in lives {
        live.leave().await;
    }
    rig.finish(Vec::new()).await?;
    Ok(report)
}

/// Invites and enrols each device with a token of its own.
async fn enrol(rig: &Rig, devices: usize, transport: Transport) -> anyhow::Result<Vec<Member>> {
    let dialer = Arc::new(QuicDialer::default());
    let status = rig.hub.status().await?;
    // Straight to the hub: a relay has no part in what is measured here.
    let address = text(&status, "quic");
    let (mut desk, clock) = (rig.hub.desk().await?, Clock::start()?);
    let (mut joining, mut members) = (JoinSet::new(), Vec::with_capacity(devices));
    for number in 0..devices {
        let args = json!({ "name": format!("device-{number:05}"), "buckets": [] });
        let invited = desk.call("device invite", args).await?;
        let token = invited.get("token").and_then(Value::as_str).context("the hub gave no token")?;
        let full = JoinToken::parse(token)?;
        let token = JoinToken { addresses: vec![address.clone()], ..full.clone() };
        let (quic, keys) = (Arc::clone(&dialer), KeyPair::from_secret(&entropy::bytes()?));
        let own = full.addresses.into_iter().find(|address| transport.is_of(address));
        let address = if transport == Transport::Quic { address.clone() } else { own.context("the hub has no such address")? };
        joining.spawn(async move {
            let joined = mobo_edge::join::enrol(quic.as_ref(), &token, &keys).await?;
            let dialer: Arc<dyn Dialer> = match transport {
                Transport::Quic => quic,
                Transport::Mqtt => Arc::new(MqttDialer::new(keys.clone(), token.project)),
                Transport::Ws => Arc::new(WsDialer::new(keys.clone())),
            };
            anyhow::Ok(Member { keys, token, certificate: joined.signed, dialer, address, clock })
        });
        if joining.len() >= AT_ONCE
            && let Some(member) = joining.join_next().await
        {
            members.push(member??);
        }
    }
    while let Some(member) = joining.join_next().await {
        members.push(member??);
    }
    Ok(members)
}

/// Opens a session for each, and waits until each is equal to the hub and has nothing to do.
async fn connect(members: Vec<Member>) -> anyhow::Result<Vec<Live>> {
    let (mut opening, mut lives) = (JoinSet::new(), Vec::with_capacity(members.len()));
    for member in members {
        opening.spawn(Live::open(member));
        if opening.len() >= AT_ONCE
            && let Some(live) = opening.join_next().await
        {
            lives.push(live??);
        }
    }
    while let Some(live) = opening.join_next().await {
        lives.push(live??);
    }
    Ok(lives)
}

/// Each device has a socket: lets this process have enough of them.
fn allow_files(devices: usize) -> anyhow::Result<()> {
    let limits = getrlimit(Resource::Nofile);
    let wanted = devices as u64 + SPARE_FILES;
    if limits.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limits.maximum.is_some_and(|maximum| maximum < wanted) {
        anyhow::bail!("{devices} devices need {wanted} open files, and this user may have {:?}: raise `ulimit -Hn`", limits.maximum);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limits.maximum }).context("open files cannot be raised")
}
