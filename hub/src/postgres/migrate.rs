//! Brings a database to the tables of this version, once, whoever comes first.

use sqlx::{Connection, PgConnection, Row};

use super::error::Failure;
use super::session::script;

/// The steps, in order; version n is the nth. What was released is never changed: another step follows.
const STEPS: [(&str, &str); 15] = [
    ("hub", include_str!("schema/0001_hub.sql")),
    ("changes", include_str!("schema/0002_changes.sql")),
    ("rights", include_str!("schema/0003_rights.sql")),
    ("recovery", include_str!("schema/0004_recovery.sql")),
    ("live", include_str!("schema/0005_live.sql")),
    ("backup", include_str!("schema/0006_backup.sql")),
    ("intake", include_str!("schema/0007_intake.sql")),
    ("conflicts", include_str!("schema/0008_conflicts.sql")),
    ("accounts", include_str!("schema/0009_accounts.sql")),
    ("versions", include_str!("schema/0010_versions.sql")),
    ("inserts", include_str!("schema/0011_inserts.sql")),
    ("trace", include_str!("schema/0012_trace.sql")),
    ("tried", include_str!("schema/0013_tried.sql")),
    ("publisher", include_str!("schema/0014_publisher.sql")),
    ("ingest", include_str!("schema/0015_ingest.sql")),
];

/// Any number, as long as it is the same in every hub.
const LOCK: i64 = 0x6d6f_626f_6d69_6772;

/// Takes the steps that this database has not taken. All of them are one transaction, and only one hub at a time comes here.
pub(super) async fn migrate(connection: &mut PgConnection, shown: &str) -> Result<(), Failure> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    let applied = applied(&mut tx, shown).await?;
    let known = STEPS.len();
    if applied > known {
        return Err(Failure::refused(format!(
            "the database {shown} was made by a newer mobo-hub (step {applied}; this one knows {known}): upgrade this hub"
        )));
    }
    for (version, (name, sql)) in (1_i32..).zip(STEPS).skip(applied) {
        script(&mut tx, sql).await?;
        let note = sqlx::query("INSERT INTO mobo.migration(version, name) VALUES ($1, $2)").bind(version).bind(name);
        note.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn applied(connection: &mut PgConnection, shown: &str) -> Result<usize, Failure> {
    const LOOK: &str = "SELECT to_regnamespace('mobo') IS NOT NULL, to_regclass('mobo.migration') IS NOT NULL";
    let row = sqlx::query(LOOK).fetch_one(&mut *connection).await?;
    match (row.try_get(0)?, row.try_get(1)?) {
        (false, _) => Ok(0),
        (true, false) => Err(Failure::refused(format!(
            "the database {shown} has a schema \"mobo\" that is not ours: rename it, or give the hub a database of its own"
        ))),
        (true, true) => {
            let row = sqlx::query("SELECT coalesce(max(version), 0) FROM mobo.migration").fetch_one(connection).await?;
            Ok(usize::try_from(row.try_get::<i32, _>(0)?).unwrap_or(usize::MAX))
        }
    }
}
