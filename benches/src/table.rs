//! Tables at full speed, in one line: SQL in on a device, where another process inserts rows into its database and the device takes them in;
//! then w1 to w4 with rows, and with documents beside them. The floor stands in each w1.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;

use crate::place::Binaries;
use crate::plan::{Bench, Kind, Plan};
use crate::report::{Report, rounded, say, seconds};
use crate::rig::{Rig, entries, number};
use crate::{records, w1, w2, w3, w4};

/// Rows, when nobody says otherwise.
const RECORDS: usize = 50_000;
/// How long an intake may take.
const INTAKE_MAX: Duration = Duration::from_secs(120);

/// All of it.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, report: Report) -> anyhow::Result<Report> {
    let mut report = intake(&Plan { kind: Kind::Table, ..plan.clone() }, binaries, report).await?;
    for kind in [Kind::Table, Kind::Document] {
        let plan = Plan { kind, ..plan.clone() };
        let begin = |bench| Report::begin(&Plan { bench, ..plan.clone() }, binaries);
        let runs = [
            (Bench::W1, w1::run(&plan, binaries, begin(Bench::W1)).await?),
            (Bench::W2, w2::run(&plan, binaries, begin(Bench::W2)).await?),
            (Bench::W3, w3::run(&plan, binaries, begin(Bench::W3)).await?),
            (Bench::W4, w4::run(&plan, binaries, begin(Bench::W4)).await?),
        ];
        for (bench, run) in runs {
            report.put_run(&format!("{}_{}", bench.name(), kind.name()), run);
        }
    }
    Ok(report)
}

/// From the first statement until the last row is sealed, with a commit after each batch; then everything is synced.
async fn intake(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let count = plan.records_or(RECORDS);
    let rig = Rig::start(plan, binaries, &mut report).await?;
    let device = rig.device("device").await?;
    rig.cut(&[&device]).await?;

    say!("table: {count} rows by SQL, {} to a transaction", plan.batch);
    let (path, made, batch) = (device.folder.join("edge.db"), records::make(plan.seed, count), plan.batch);
    let started = Instant::now();
    let (writing, taken) = tokio::task::spawn_blocking(move || write(&path, &made, batch)).await??;
    let sealed = entries(&device.status().await?);
    report.put("records", count);
    report.put("entries", sealed);
    report.put("sql_writing_s", seconds(writing));
    report.put("taken_in_s", seconds(taken));
    report.put("wall_s", seconds(started.elapsed()));
    report.put("sql_rows_per_s", rounded(count as f64 / writing.as_secs_f64()));
    report.put("intake_rows_per_s", rounded(count as f64 / taken.as_secs_f64()));

    rig.relay.open();
    let hub = rig.converge(&[&device]).await?;
    anyhow::ensure!(number(&hub, "records") == count as u64, "the hub has {} records, not {count}", number(&hub, "records"));
    rig.finish(vec![device]).await?;
    Ok(report)
}

/// Inserts the rows; gives the time until the last commit, and until nothing waits to be taken in.
fn write(path: &PathBuf, made: &[Value], batch: usize) -> anyhow::Result<(Duration, Duration)> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(INTAKE_MAX)?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")?;
    let names: Vec<&str> = records::FIELDS.iter().map(|field| field.0).collect();
    let marks = vec!["?"; names.len() + 1].join(", ");
    let sql = format!("INSERT INTO {}(id, {}) VALUES ({marks})", records::COLLECTION, names.join(", "));
    let started = Instant::now();
    for some in made.chunks(batch) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut statement = transaction.prepare_cached(&sql)?;
        for record in some {
            let cell = |name: &str| match record.get(name) {
                None | Some(Value::Null) => Sql::Null,
                Some(Value::Bool(value)) => Sql::Integer(i64::from(*value)),
                Some(Value::Number(value)) => value.as_i64().map_or_else(|| Sql::Real(value.as_f64().unwrap_or_default()), Sql::Integer),
                Some(Value::String(text)) => Sql::Text(text.clone()),
                Some(other @ (Value::Array(_) | Value::Object(_))) => Sql::Text(other.to_string()),
            };
            statement.execute(params_from_iter(std::iter::once("id").chain(names.iter().copied()).map(cell)))?;
        }
        drop(statement);
        transaction.commit()?;
    }
    let writing = started.elapsed();
    while connection.query_row("SELECT count(*) FROM mobo_intake", [], |row| row.get::<_, i64>(0))? > 0 {
        anyhow::ensure!(started.elapsed() < INTAKE_MAX, "the rows were not taken in within {} s", INTAKE_MAX.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((writing, started.elapsed()))
}
