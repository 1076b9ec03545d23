//! Where the database is, and what to say when it cannot be used.

use std::str::FromStr;

use mobo_core::limits;
use mobo_core::store::StoreError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Row};

use super::error::Failure;

/// The oldest Postgres that is known to do what this store asks of it.
const VERSION_MIN: i32 = 150_000;

/// How to reach a database, and how to name it to people.
#[derive(Clone, Debug)]
pub(super) struct Address {
    options: PgConnectOptions,
    /// User, host and database, without the password.
    pub(super) shown: String,
}

impl Address {
    /// Reads a URL such as `postgres://user:password@host:5432/database`.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| {
            StoreError::Refused(format!("store.url cannot be read: {error}; write it as postgres://user:password@host:5432/database"))
        })?;
        let options = options
            .application_name("mobo-hub")
            .statement_cache_capacity(limits::POSTGRES_STATEMENTS_MAX)
            // A pooler in between may not know it, and nothing here reads floats as text.
            .extra_float_digits(None)
            .disable_statement_logging();
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let shown = format!("{}@{place}/{database}", options.get_username());
        Ok(Self { options, shown })
    }

    /// One connection, of which it is known that the database can be used; and its version.
    pub(super) async fn connect(&self) -> Result<(PgConnection, String), StoreError> {
        let connecting = PgConnection::connect_with(&self.options);
        let mut connection = match tokio::time::timeout(limits::POSTGRES_CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.unreachable(error)),
            Err(_) => {
                let seconds = limits::POSTGRES_CONNECT_TIMEOUT.as_secs();
                return Err(StoreError::Unavailable(format!("Postgres at {} has not answered for {seconds} s", self.shown)));
            }
        };
        let version = self.check(&mut connection).await?;
        Ok((connection, version))
    }

    /// Connections that are made when they are needed, and made anew when the database was away.
    pub(super) fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(limits::POSTGRES_CONNECTIONS_MAX)
            .acquire_timeout(limits::POSTGRES_ACQUIRE_TIMEOUT)
            .connect_lazy_with(self.options.clone())
    }

    async fn check(&self, connection: &mut PgConnection) -> Result<String, StoreError> {
        const ABOUT: &str = "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
                             current_setting('server_encoding'), pg_is_in_recovery()";
        let row = sqlx::query(ABOUT).fetch_one(connection).await.map_err(|error| self.unreachable(error))?;
        let about = || {
            Ok::<_, sqlx::Error>((
                row.try_get::<i32, _>(0)?,
                row.try_get::<String, _>(1)?,
                row.try_get::<String, _>(2)?,
                row.try_get::<bool, _>(3)?,
            ))
        };
        let (number, version, encoding, is_standby) = about().map_err(|error| self.unreachable(error))?;
        if number < VERSION_MIN {
            let min = VERSION_MIN / 10_000;
            let why = format!("Postgres at {} is version {version}, and mobo needs {min} or newer: upgrade it", self.shown);
            return Err(StoreError::Refused(why));
        }
        if encoding != "UTF8" {
            let why =
                format!("the database at {} is encoded in {encoding}: create one with ENCODING 'UTF8' TEMPLATE template0", self.shown);
            return Err(StoreError::Refused(why));
        }
        if is_standby {
            let why = format!(
                "the database at {} is a standby: it takes no writes, and others' commits show on it later and in another order. Give the \
                 primary in store.url, or promote this one",
                self.shown
            );
            return Err(StoreError::Refused(why));
        }
        Ok(version)
    }

    fn unreachable(&self, error: sqlx::Error) -> StoreError {
        let (shown, failure) = (&self.shown, Failure::from(error));
        match failure.code().as_deref() {
            Some("28P01" | "28000") => {
                let Failure::Sql(error) = failure else { return failure.into() };
                StoreError::Refused(format!(
                    "Postgres at {shown} does not let this user in: check user and password in store.url ({error})"
                ))
            }
            Some("3D000") => {
                let database = self.options.get_database().unwrap_or_default();
                StoreError::Refused(format!(
                    "there is no such database at {shown}: create it with `createdb {database}`, or correct store.url"
                ))
            }
            _ => match StoreError::from(failure) {
                StoreError::Unavailable(why) => StoreError::Unavailable(format!(
                    "Postgres at {shown} cannot be reached ({why}): check that it runs and that store.url is right"
                )),
                other @ (StoreError::Contended(_)
                | StoreError::Full(_)
                | StoreError::Poisoned(_)
                | StoreError::Damaged(_)
                | StoreError::BadValue(_)
                | StoreError::Refused(_)) => other,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let cases = [
            ("postgres://ann:s3cret@db.example:5433/plant", "ann@db.example:5433/plant"),
            ("postgres:///plant?host=/run/pg&user=mobo&password=s3cret", "mobo@/run/pg/plant"),
        ];
        for (url, want) in cases {
            assert_eq!(Address::parse(url).unwrap().shown, want);
        }
        for bad in ["postgres://[::1", "postgres://host:port/x"] {
            let error = Address::parse(bad).unwrap_err();
            assert!(matches!(&error, StoreError::Refused(why) if why.contains("store.url")), "{error}");
        }
    }
}
