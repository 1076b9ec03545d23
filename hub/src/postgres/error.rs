//! What Postgres says, sorted by what the caller does next.

use mobo_core::cbor::Malformed;
use mobo_core::limits;
use mobo_core::store::StoreError;

/// Why a piece of work ended: what `?` makes out of everything that happens in a transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// The driver or the database.
    Sql(sqlx::Error),
    /// Ourselves.
    Store(StoreError),
    /// Somebody has inserted a row by SQL where a record is being made.
    Met,
}

impl Failure {
    /// What was read is not what was written.
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Store(StoreError::Damaged(what.into()))
    }

    /// It cannot be done as asked.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Store(StoreError::Refused(why.into()))
    }

    /// It cannot be done now.
    pub(super) fn unavailable(why: impl Into<String>) -> Self {
        Self::Store(StoreError::Unavailable(why.into()))
    }

    /// The five letters by which Postgres names an error; `None` for what does not come from there.
    pub(super) fn code(&self) -> Option<String> {
        let Self::Sql(sqlx::Error::Database(error)) = self else { return None };
        error.code().map(|code| code.into_owned())
    }

    /// True if the same transaction may succeed when it is run again: somebody else was in the way.
    pub(super) fn is_retryable(&self) -> bool {
        // Serialisation failure, deadlock, a row that somebody else has just made, and the end of a transaction that took too long between
        // its statements: half of it may be quick enough.
        const RETRYABLE: [&str; 4] = ["40001", "40P01", "23505", "25P03"];
        matches!(self, Self::Met) || self.code().is_some_and(|code| RETRYABLE.contains(&code.as_str()))
    }

    /// True if a row was written where somebody else has just made one.
    pub(super) fn is_met(&self) -> bool {
        matches!(self, Self::Met) || self.code().is_some_and(|code| code == "23505")
    }

    /// True if somebody else held a lock for longer than this waits: a smaller transaction may have no need of it.
    pub(super) fn is_locked_out(&self) -> bool {
        self.code().is_some_and(|code| code == "55P03")
    }

    /// True if the database answered and the connection is good for a rollback.
    pub(super) fn keeps_connection(&self) -> bool {
        match self {
            Self::Store(StoreError::Unavailable(_)) => false,
            Self::Store(_) | Self::Met => true,
            // 57P…: an administrator ended the connection. 25P03: it stood still for too long.
            Self::Sql(sqlx::Error::Database(_)) => self.code().is_some_and(|code| !code.starts_with("57P") && code != "25P03"),
            Self::Sql(_) => false,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::PoolTimedOut = error {
            crate::metrics::waited_in_vain();
        }
        Self::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Self {
        Self::damaged(error.to_string())
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => error,
            Failure::Sql(error) => sorted(&error),
            Failure::Met => StoreError::Unavailable("SQL writes the same records again and again".to_owned()),
        }
    }
}

/// A number or a slice out of the database as the type that it must be.
pub(super) fn known<T>(value: Option<T>, what: &str) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::damaged(format!("the database holds no valid {what} where one must be")))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the driver may add errors: what is not known is tried again")]
fn sorted(error: &sqlx::Error) -> StoreError {
    let text = error.to_string();
    match error {
        sqlx::Error::Database(database) => of_code(&database.code().unwrap_or_default(), database.message()),
        sqlx::Error::PoolTimedOut => StoreError::Unavailable(format!(
            "no connection to Postgres within {} s: it is down, or too busy",
            limits::POSTGRES_ACQUIRE_TIMEOUT.as_secs()
        )),
        sqlx::Error::PoolClosed => StoreError::Unavailable("the store is closed".to_owned()),
        sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_) => StoreError::Damaged(text),
        sqlx::Error::Encode(_) => StoreError::Refused(text),
        _ => StoreError::Unavailable(text),
    }
}

/// Only what the data themselves are to blame for is refused: a merge sets such an entry aside, while for anything else it waits.
fn of_code(code: &str, message: &str) -> StoreError {
    match code {
        "53100" => StoreError::Full(format!("Postgres has no room left: {message}")),
        "25006" => StoreError::Unavailable(format!(
            "Postgres is read-only ({message}): is store.url a standby, or was the database closed to writes?"
        )),
        "40001" | "40P01" | "55P03" => StoreError::Unavailable(format!("others hold the same records: {message}")),
        "42501" => StoreError::Unavailable(format!("Postgres refuses: {message}; give the hub's user its tables back")),
        "XX000" | "XX001" | "XX002" => StoreError::Damaged(message.to_owned()),
        _ if ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)) => StoreError::Refused(message.to_owned()),
        _ => StoreError::Unavailable(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_the_caller_does_next() {
        let cases = [
            ("53100", "full"),
            ("25006", "standby"),
            ("40P01", "not available"),
            ("57P01", "not available"),
            ("08006", "not available"),
            ("42P01", "not available"),
            ("42501", "not available"),
            ("XX001", "damaged"),
            ("22008", "out of range"),
        ];
        for (code, want) in cases {
            let error = of_code(code, "out of range").to_string();
            assert!(error.contains(want), "{code}: {error}");
        }
    }

    #[test]
    fn a_pool_without_connections_says_so() {
        let error = StoreError::from(Failure::from(sqlx::Error::PoolTimedOut));
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("5 s")), "{error}");
        assert!(!Failure::from(sqlx::Error::PoolTimedOut).is_retryable());
    }
}
