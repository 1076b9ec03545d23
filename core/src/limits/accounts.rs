//! Limits of accounts, tokens and rights.

use std::time::Duration;

/// Bytes of what a device is told of keys and policies: it fits a frame.
pub const ACCESS_BYTES_MAX: usize = 900_000;
/// Bytes of a user's token.
pub const USER_TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of those who issue tokens and of those who check them may differ.
pub const TOKEN_SKEW: Duration = Duration::from_secs(30);
/// How long a user's token is good; then the refresh token gets the next one.
pub const TOKEN_TTL: Duration = Duration::from_secs(3_600);
/// Keys of one JWKS that are looked at.
pub const JWKS_KEYS_MAX: usize = 16;
/// Bytes of the JWKS of an issuer.
pub const JWKS_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for it.
pub const JWKS_TIMEOUT: Duration = Duration::from_secs(5);
/// An issuer is asked for its keys at most this often.
pub const JWKS_FETCH_EVERY: Duration = Duration::from_secs(10);
/// Keys of an issuer are fetched again after this time.
pub const JWKS_KEEP: Duration = Duration::from_secs(600);
/// Passwords that are hashed at the same time: each takes 19 MiB and a core.
pub const PASSWORDS_AT_ONCE: usize = 2;
/// Passwords that are being hashed or wait for it; more sign-ins are told to come back.
pub const PASSWORDS_WAITING_MAX: usize = 64;
/// Shortest password.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password.
pub const PASSWORD_CHARS_MAX: usize = 128;
/// Bytes of what is said of one user, as JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Users on one page of a list.
pub const USERS_PAGE_MAX: u32 = 1_000;
/// Roles of a project besides those that are always there.
pub const ROLES_MAX: i64 = 256;
/// How long a one-time link works.
pub const SETUP_TTL: Duration = Duration::from_secs(24 * 3_600);
/// How often a change of an account is tried when others change it at the same time.
pub const ACCOUNT_ATTEMPTS: usize = 16;
/// How long the answer to a refresh token is given again, if what it gave was not used.
pub const REFRESH_AGAIN: Duration = Duration::from_secs(10);
/// What a sign-in's user may is looked up again after this time: a ban on another hub holds here then.
pub const SESSION_CACHE_TTL: Duration = Duration::from_secs(2);
/// How often a hub looks whether another hub on its store has changed rights.
pub const RIGHTS_LOOK: Duration = Duration::from_secs(2);
/// How often what is long over is removed.
pub const SIGN_IN_SWEEP: Duration = Duration::from_secs(3_600);
/// How long refresh tokens are kept, and so the longest time between two visits of a user who stays signed in.
pub const SIGN_IN_KEEP: Duration = Duration::from_secs(60 * 86_400);
/// Lines of the audit log about refusals that are written in a minute; more are counted.
pub const AUDIT_NOTES_PER_MINUTE: u32 = 60;
/// How often a line is tried when other hubs write at the same time.
pub const AUDIT_ATTEMPTS: usize = 16;

const _: () = assert!(RIGHTS_LOOK.as_secs() + SESSION_CACHE_TTL.as_secs() < 5);
