//! Transactions: begun with their limits, ended with a commit, and never left half open in the pool.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use mobo_core::ids::RecordKey;
use mobo_core::limits;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};

use super::error::Failure;
use super::live::Pending;

/// A statement with its arguments.
pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Held together by those who place records by the rules of collections, alone by whoever changes these. Any number, as long as it is the same
/// in every hub.
pub(super) const SCHEMA_LOCK: i64 = 0x6d6f_626f_7275_6c65;

/// Lets statements take their time, and the transaction stand still.
const PATIENT: &str = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

/// What a transaction is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Changes: READ COMMITTED, so that what is read after a lock is what the lock's last holder wrote.
    Write,
    /// Likewise, placing records by rules that stay the same until it ends.
    Merge,
    /// Likewise, waiting for each lock of a lane, record or bucket no longer than this.
    MergeWithin(Duration),
    /// Reads, all in one snapshot.
    Read,
    /// Likewise, the next of many rows by an index that has them in their order. A database that has not counted the rows of a new table yet takes
    /// them for few, and would read all of them for each page, to sort them.
    Pull,
    /// Reads, all in one snapshot, that may take their time.
    Audit,
    /// Likewise, and the transaction may stand still while the other end is slow.
    Cut,
}

impl Purpose {
    /// The longest run of one statement.
    const fn patience(self) -> Duration {
        match self {
            Self::Write | Self::Merge | Self::MergeWithin(_) | Self::Read | Self::Pull => limits::POSTGRES_STATEMENT_TIMEOUT,
            Self::Audit | Self::Cut => limits::POSTGRES_LONG_STATEMENT_TIMEOUT,
        }
    }

    fn begin(self) -> String {
        let (lock, idle) = (limits::POSTGRES_LOCK_TIMEOUT.as_millis(), limits::POSTGRES_IDLE_TIMEOUT.as_millis());
        let statement = self.patience().as_millis();
        let timeouts = format!(
            "SET LOCAL statement_timeout = {statement}; SET LOCAL lock_timeout = {lock}; \
             SET LOCAL idle_in_transaction_session_timeout = {idle}"
        );
        let write = format!("BEGIN ISOLATION LEVEL READ COMMITTED; {timeouts}; SET LOCAL mobo.applying = 'on'");
        match self {
            Self::Write => write,
            // With the first words, so that it costs no time: what is read next is read after it.
            Self::Merge => format!("{write}; SELECT pg_advisory_xact_lock_shared({SCHEMA_LOCK})"),
            // Rules that change take their time: whoever waits for that is kept out by no record.
            Self::MergeWithin(lock) => {
                let lock = lock.as_millis();
                format!("{write}; SELECT pg_advisory_xact_lock_shared({SCHEMA_LOCK}); SET LOCAL lock_timeout = {lock}")
            }
            Self::Read | Self::Audit => format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {timeouts}"),
            // What must be sorted all the same counts as very dear then, and would be compiled before it runs.
            Self::Pull => format!("{}; SET LOCAL enable_sort = off; SET LOCAL jit = off", Self::Read.begin()),
            Self::Cut => format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = {lock}; {PATIENT}"),
        }
    }
}

/// A transaction. Dropped in the middle, it takes its connection with it: the database rolls back what nobody will commit.
#[derive(Debug)]
pub(super) struct Tx {
    connection: PoolConnection<Postgres>,
    patience: Duration,
    open: bool,
    /// What goes into the log of changes.
    pub(super) live: Pending,
    /// While SQL is taken in: the records that are not there, yet or any more, and whose rows stand all the same, without a state, until the
    /// intake is done. Whoever waits for the lock of such a row, to write it, finds it.
    pub(super) standing: Option<BTreeSet<RecordKey>>,
}

impl Tx {
    /// Begins one.
    pub(super) async fn begin(pool: &PgPool, purpose: Purpose) -> Result<Self, Failure> {
        let connection = pool.acquire().await?;
        let mut tx = Self { connection, patience: purpose.patience(), open: true, live: Pending::default(), standing: None };
        let begin = sqlx::raw_sql(AssertSqlSafe(purpose.begin()));
        answered(tx.patience, begin.execute(&mut *tx.connection)).await?;
        Ok(tx)
    }

    /// All rows of a statement.
    pub(super) async fn rows(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, Failure> {
        answered(self.patience, statement.fetch_all(&mut *self.connection)).await
    }

    /// All rows of a statement, unless one of them is too much.
    pub(super) async fn rows_while(
        &mut self,
        statement: Statement<'_>,
        mut fits: impl FnMut(&PgRow) -> Result<(), Failure>,
    ) -> Result<Vec<PgRow>, Failure> {
        let patience = self.patience;
        let mut stream = statement.fetch(&mut *self.connection);
        let mut rows = Vec::new();
        while let Some(row) = answered(patience, async { stream.next().await.transpose() }).await? {
            fits(&row)?;
            rows.push(row);
        }
        Ok(rows)
    }

    /// The row of a statement that gives at most one.
    pub(super) async fn row(&mut self, statement: Statement<'_>) -> Result<Option<PgRow>, Failure> {
        answered(self.patience, statement.fetch_optional(&mut *self.connection)).await
    }

    /// Runs a statement; gives the number of rows that it changed.
    pub(super) async fn run(&mut self, statement: Statement<'_>) -> Result<u64, Failure> {
        answered(self.patience, statement.execute(&mut *self.connection)).await.map(|done| done.rows_affected())
    }

    /// Runs statements without arguments, one after the other.
    pub(super) async fn script(&mut self, sql: String) -> Result<(), Failure> {
        answered(self.patience, sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *self.connection)).await.map(|_| ())
    }

    /// The same, where they give rows: those of all of them.
    pub(super) async fn script_rows(&mut self, sql: String) -> Result<Vec<PgRow>, Failure> {
        answered(self.patience, sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *self.connection)).await
    }

    /// Puts rows into a table by the `COPY … FROM STDIN` that is given.
    pub(super) async fn copy(&mut self, sql: &str, rows: Vec<u8>) -> Result<(), Failure> {
        let copied = async {
            let mut copy = self.connection.copy_in_raw(sql).await?;
            copy.send(rows).await?;
            copy.finish().await
        };
        answered(self.patience, copied).await.map(|_| ())
    }

    /// Lets statements take their time, and the transaction stand still while the other end of a move is slow.
    pub(super) async fn patient(&mut self) -> Result<(), Failure> {
        self.patience = limits::POSTGRES_LONG_STATEMENT_TIMEOUT;
        self.script(PATIENT.to_owned()).await
    }

    /// The connection itself, for what a statement cannot do.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Commits when `result` is good, rolls back when it is not.
    pub(super) async fn finish<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Ok(done) => self.end("COMMIT").await.map(|()| done),
            Err(failure) => {
                if failure.keeps_connection() {
                    // What went wrong is already known; a rollback that fails closes the connection.
                    let _ = self.end("ROLLBACK").await;
                }
                Err(failure)
            }
        }
    }

    /// Ends without any change.
    pub(super) async fn rollback(self) -> Result<(), Failure> {
        self.end("ROLLBACK").await
    }

    /// Ends without any change, where the transaction cannot be given away. Nothing more may be asked.
    pub(super) async fn reset(&mut self) -> Result<(), Failure> {
        self.script("ROLLBACK".to_owned()).await?;
        self.open = false;
        Ok(())
    }

    async fn end(mut self, how: &'static str) -> Result<(), Failure> {
        answered(self.patience, sqlx::raw_sql(how).execute(&mut *self.connection)).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if self.open {
            self.connection.close_on_drop();
        }
    }
}

/// A connection for one statement. Dropped before that has answered, it is closed.
struct Alone {
    connection: PoolConnection<Postgres>,
    is_done: bool,
}

impl Drop for Alone {
    fn drop(&mut self) {
        if !self.is_done {
            self.connection.close_on_drop();
        }
    }
}

/// The rows of one statement that reads little, outside any transaction: the database keeps no limit on it but its own, and after
/// [`limits::POSTGRES_STATEMENT_TIMEOUT`] nobody waits for it any more.
pub(super) async fn alone(pool: &PgPool, statement: Statement<'_>) -> Result<Vec<PgRow>, Failure> {
    let mut alone = Alone { connection: pool.acquire().await?, is_done: false };
    let rows = answered(limits::POSTGRES_STATEMENT_TIMEOUT, statement.fetch_all(&mut *alone.connection)).await;
    alone.is_done = rows.as_ref().map_or_else(Failure::keeps_connection, |_| true);
    rows
}

/// Runs statements on a connection of one's own, outside any transaction.
pub(super) async fn script(connection: &mut PgConnection, sql: &'static str) -> Result<(), Failure> {
    answered(limits::POSTGRES_LONG_STATEMENT_TIMEOUT, sqlx::raw_sql(sql).execute(connection)).await.map(|_| ())
}

/// The answer of the database, if it comes. Well beyond the limit that the database itself keeps, the line is dead.
async fn answered<T>(patience: Duration, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failure> {
    let limit = patience + limits::POSTGRES_ACQUIRE_TIMEOUT;
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::unavailable(format!("Postgres has not answered for {} s", limit.as_secs()))),
    }
}
