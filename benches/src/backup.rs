//! Backup, verification and restore of everything that a hub holds; beside `pg_dump` and `pg_restore` of the same database, where it has one.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::process::Command;

use crate::place::Binaries;
use crate::plan::Plan;
use crate::postgres::Database;
use crate::report::{Report, rounded, say, seconds};
use crate::rig::{Rig, insert, noun};
use crate::{measure, records, shipping};

/// Records, when nobody says otherwise.
const RECORDS: usize = 50_000;

/// A vault is plugged in where records are, more are written at an even pace, shipped and not shipped in turn; then its repository is verified,
/// and restored into an empty folder.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let count = plan.records_or(RECORDS);
    let rig = Rig::start(plan, binaries, &mut report).await?;
    let home = rig.hub.folder.parent().context("a folder without a parent")?.to_owned();
    let (vault, restored) = (home.join("vault"), home.join("restored"));
    let key = rig.hub.ask("key create", json!({ "name": "bench", "role": "service" })).await?;
    let client = rig.hub.http(key.get("key").and_then(Value::as_str).map(str::to_owned)).await?;
    say!("backup: writing {count} {}", noun(plan.kind));
    insert(&client, &records::make(plan.seed, count), plan.batch).await?;
    let held = held_bytes(&rig).await?;

    say!("backup: a vault is plugged in");
    let (began, before) = (Instant::now(), measure::cpu(rig.hub.pid)?);
    rig.hub.ask("component swap", json!({ "name": "store.vault", "address": vault.display().to_string() })).await?;
    rig.hub.ask("backup create", json!({})).await?;
    let took = began.elapsed();
    let stored = folder_bytes(&vault)?;
    report.put("records", count);
    report.put("store_bytes", held);
    report.put("vault_bytes", stored);
    report.put("vault_bytes_per_record", rounded(stored as f64 / count as f64));
    report.put("backup_cpu_s", seconds(measure::cpu(rig.hub.pid)?.saturating_sub(before)));
    put(&mut report, "backup", took, (count, held));

    let written = shipping::measure(&rig, &client, (plan, count), &mut report).await?;
    let (count, held) = (count + written, held_bytes(&rig).await?);
    let entries = rig.hub.ask("status", json!({})).await?.pointer("/backup/safe").and_then(Value::as_u64).unwrap_or(1);
    report.put("entries", entries);
    report.put("vault_bytes_after", folder_bytes(&vault)?);
    report.put("vault_bytes_per_entry", rounded(folder_bytes(&vault)? as f64 / entries.max(1) as f64));

    let backup_key = rig.hub.folder.join("backup.key");
    let hub = |words: &[&OsStr]| {
        // Not where somebody keeps a node of his own.
        let mut command = Command::new(&binaries.hub);
        command.current_dir(&home).args(words).arg(&vault).arg("--key-file").arg(&backup_key).args(["-o", "json"]);
        command
    };
    let took = timed(hub(&["backup".as_ref(), "verify".as_ref()])).await?;
    put(&mut report, "verify", took, (count, held));
    let mut command = hub(&["--data-dir".as_ref(), restored.as_os_str(), "restore".as_ref()]);
    command.args(["--store", "sqlite"]);
    let took = timed(command).await?;
    put(&mut report, "restore", took, (count, held));
    report.put("restore_s_per_gib", rounded(took.as_secs_f64() / (folder_bytes(&restored)? as f64 / f64::from(1 << 30))));
    if let Some(database) = &rig.database {
        dump(database, &home, &mut report, (count, held)).await?;
    }
    rig.finish(Vec::new()).await?;
    Ok(report)
}

/// The same with Postgres's own tools.
async fn dump(database: &Database, home: &Path, report: &mut Report, size: (usize, u64)) -> anyhow::Result<()> {
    const COPY: &str = "mobo_bench_restored";
    let file = home.join("dump");
    let mut command = Command::new("pg_dump");
    command.args(["--format=custom", "--file"]).arg(&file).arg(&database.url);
    put(report, "pg_dump", timed(command).await?, size);
    report.put("pg_dump_bytes", std::fs::metadata(&file)?.len());
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {COPY}"))).execute(&mut database.connect().await?).await?;
    let copy = database.url.replacen("mobo_bench", COPY, 1);
    let mut command = Command::new("pg_restore");
    command.arg("--dbname").arg(copy).arg(&file);
    put(report, "pg_restore", timed(command).await?, size);
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE {COPY} WITH (FORCE)"))).execute(&mut database.connect().await?).await?;
    Ok(())
}

fn put(report: &mut Report, what: &str, took: Duration, (count, bytes): (usize, u64)) {
    let per_second = |amount: f64| rounded(amount / took.as_secs_f64());
    report.put(&format!("{what}_s"), seconds(took));
    report.put(&format!("{what}_records_per_s"), per_second(count as f64));
    report.put(&format!("{what}_mb_per_s"), per_second(bytes as f64 / 1e6));
}

/// How long a command takes, which must succeed.
async fn timed(mut command: Command) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().await.with_context(|| format!("{command:?} does not start"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(began.elapsed())
}

/// What the hub holds: its folder, and its database where that is elsewhere.
async fn held_bytes(rig: &Rig) -> anyhow::Result<u64> {
    let folder = folder_bytes(&rig.hub.folder)?;
    let Some(database) = &rig.database else { return Ok(folder) };
    let size = sqlx::query("SELECT pg_database_size(current_database())").fetch_one(&mut database.connect().await?).await?;
    Ok(folder + size.try_get::<i64, _>(0)?.unsigned_abs())
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { folder_bytes(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}
