//! What SQLite says, sorted by what the caller does next.

use mobo_core::cbor::Malformed;
use mobo_core::store::StoreError;
use rusqlite::{Error, ErrorCode, ffi};

/// Why a piece of work on a connection ended: a [`StoreError`] that `?` makes out of everything that happens there.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) StoreError);

impl Failure {
    /// What was read is not what was written.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self(StoreError::Damaged(what.into()))
    }

    /// It cannot be done as asked.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self(StoreError::Refused(why.into()))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Self {
        Self::damaged(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(sorted(&error))
    }
}

/// A number or a slice out of the database as the type that it must be.
pub(crate) fn known<T>(value: Option<T>, what: &str) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::damaged(format!("the database holds no valid {what} where one must be")))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rusqlite's list is long and open: what is not named here is a request that cannot be fulfilled"
)]
fn sorted(error: &Error) -> StoreError {
    let text = error.to_string();
    match error {
        Error::SqliteFailure(failure, _) => of_code(*failure, text),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..)
        | Error::InvalidColumnType(..)
        | Error::QueryReturnedNoRows => StoreError::Damaged(text),
        _ => StoreError::Refused(text),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "SQLite's list is long and open: what is not named here is a request that cannot be fulfilled"
)]
fn of_code(failure: ffi::Error, text: String) -> StoreError {
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full(text),
        ErrorCode::SystemIoFailure => of_io(failure.extended_code, text),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Damaged(text),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted => {
            StoreError::Unavailable(text)
        }
        ErrorCode::ConstraintViolation if failure.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE => StoreError::Refused(format!(
            "{text}: a UNIQUE index that somebody has put on this table does not take what was merged elsewhere; drop it, or make it a plain one"
        )),
        ErrorCode::ReadOnly => StoreError::Unavailable(format!("{text}: the file or its file system is read-only")),
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::FileLockingProtocolFailed | ErrorCode::NoLargeFileSupport => {
            StoreError::Unavailable(format!("{text}: check the data folder and who may write there"))
        }
        _ => StoreError::Refused(text),
    }
}

/// A read that fails has harmed nothing; after a write or sync that fails, nobody knows what is on the disk.
fn of_io(extended: i32, text: String) -> StoreError {
    match extended {
        ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA => {
            StoreError::Damaged(text)
        }
        ffi::SQLITE_IOERR_NOMEM | ffi::SQLITE_IOERR_LOCK | ffi::SQLITE_IOERR_RDLOCK | ffi::SQLITE_IOERR_BLOCKED => {
            StoreError::Unavailable(text)
        }
        ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full(text),
        _ => StoreError::Poisoned(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_what_the_caller_does_next() {
        let cases = [
            (ffi::SQLITE_FULL, "full"),
            (ffi::SQLITE_IOERR_WRITE, "failed while writing"),
            (ffi::SQLITE_IOERR_FSYNC, "failed while writing"),
            (ffi::SQLITE_IOERR_READ, "damaged"),
            (ffi::SQLITE_CORRUPT, "damaged"),
            (ffi::SQLITE_NOTADB, "damaged"),
            (ffi::SQLITE_BUSY, "not available"),
            (ffi::SQLITE_READONLY, "read-only"),
            (ffi::SQLITE_CONSTRAINT, "constraint"),
        ];
        for (code, want) in cases {
            let Failure(error) = Error::SqliteFailure(ffi::Error::new(code), None).into();
            assert!(error.to_string().contains(want), "{code}: {error}");
        }
    }
}
