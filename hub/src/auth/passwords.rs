//! Passwords: argon2id, so many at a time as the machine has room for.

use std::sync::Arc;

use argon2::password_hash::{Error, Output, ParamsString, PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use mobo_core::limits;
use mobo_runtime::entropy;
use tokio::sync::Semaphore;

use super::AuthError;

/// Hashes passwords on threads of their own, a few at a time: each takes 19 MiB and tens of milliseconds.
#[derive(Debug)]
pub(super) struct Passwords {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What the password of an account that is not there is compared with, for as long.
    nobody: String,
    /// How many were compared.
    #[cfg(test)]
    pub(super) compared: std::sync::atomic::AtomicUsize,
}

fn hasher() -> Argon2<'static> {
    // OWASP's second choice: 19 MiB, two passes, one lane; these are argon2's own defaults, too.
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

fn hash(password: &str) -> Result<String, AuthError> {
    Ok(hasher().hash_password(password.as_bytes(), &salt()?).map_err(broken)?.to_string())
}

/// What nobody's password has as its hash: it takes as long to check as any other, and no time to make, which a boot would wait for.
fn nobody() -> Result<String, AuthError> {
    let salt = salt()?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(hasher().params()).map_err(broken)?,
        salt: Some(salt.as_salt()),
        hash: Some(Output::new(&entropy::bytes::<{ Params::DEFAULT_OUTPUT_LEN }>()?).map_err(broken)?),
    };
    Ok(hash.to_string())
}

fn salt() -> Result<SaltString, AuthError> {
    SaltString::encode_b64(&entropy::bytes::<16>()?).map_err(broken)
}

#[allow(clippy::needless_pass_by_value, reason = "an argument of `map_err`")]
fn broken(error: Error) -> AuthError {
    AuthError::Broken(format!("a password cannot be hashed: {error}"))
}

impl Passwords {
    pub(super) fn new() -> Result<Self, AuthError> {
        let (working, waiting) =
            (Arc::new(Semaphore::new(limits::PASSWORDS_AT_ONCE)), Arc::new(Semaphore::new(limits::PASSWORDS_WAITING_MAX)));
        Ok(Self {
            working,
            waiting,
            nobody: nobody()?,
            #[cfg(test)]
            compared: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// The hash of a new password.
    ///
    /// # Errors
    ///
    /// [`AuthError::WeakPassword`], [`AuthError::Busy`].
    pub(super) async fn hash(&self, password: &str) -> Result<String, AuthError> {
        check_length(password)?;
        let password = password.to_owned();
        self.apart(move || hash(&password)).await?
    }

    /// Whether a password is that of this hash. Without a hash it takes as long to say no.
    ///
    /// # Errors
    ///
    /// [`AuthError::Busy`].
    pub(super) async fn verify(&self, password: &str, known: Option<&str>) -> Result<bool, AuthError> {
        #[cfg(test)]
        self.compared.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let hash = known.unwrap_or(&self.nobody).to_owned();
        // Nothing longer was ever hashed; the time of a shorter one is spent all the same.
        let password: String = password.chars().take(limits::PASSWORD_CHARS_MAX + 1).collect();
        let fits = self
            .apart(move || PasswordHash::new(&hash).is_ok_and(|hash| hasher().verify_password(password.as_bytes(), &hash).is_ok()))
            .await?;
        Ok(fits && known.is_some())
    }

    async fn apart<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, AuthError> {
        let _waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| AuthError::Busy)?;
        let place = Arc::clone(&self.working).acquire_owned().await.map_err(|_| AuthError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.map_err(|error| AuthError::Broken(error.to_string()))
    }
}

fn check_length(password: &str) -> Result<(), AuthError> {
    let length = password.chars().count();
    if (limits::PASSWORD_CHARS_MIN..=limits::PASSWORD_CHARS_MAX).contains(&length) {
        return Ok(());
    }
    let (min, max) = (limits::PASSWORD_CHARS_MIN, limits::PASSWORD_CHARS_MAX);
    Err(AuthError::WeakPassword(format!("Password should be {min} to {max} characters")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_fits_and_nobody_has_none() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse", Some(&hash)).await.unwrap());
        assert!(!passwords.verify("correct horsf", Some(&hash)).await.unwrap());
        let (shape, nobody) = (|hash: &str| hash.split('$').map(str::len).collect::<Vec<_>>(), &passwords.nobody);
        assert_eq!(shape(nobody), shape(&hash), "nobody's hash takes as long to check");
        assert!(nobody.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{nobody}");
        assert!(!passwords.verify("", None).await.unwrap());
        assert!(!passwords.verify("x", Some("no hash")).await.unwrap());
        for weak in ["", "1234567", &"x".repeat(limits::PASSWORD_CHARS_MAX + 1)] {
            assert!(matches!(passwords.hash(weak).await, Err(AuthError::WeakPassword(_))), "{weak}");
        }
    }
}
