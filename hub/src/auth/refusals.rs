//! What callers are told of what accounts refuse, in GoTrue's words.

use axum::http::StatusCode;
use mobo_gate::Problem;

use super::AuthError;

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            AuthError::Credentials => (400, "invalid_credentials"),
            AuthError::Banned => (400, "user_banned"),
            AuthError::SignupDisabled => (422, "signup_disabled"),
            AuthError::EmailExists => (422, "email_exists"),
            AuthError::NoUser => (404, "user_not_found"),
            AuthError::RefreshUnknown => (400, "refresh_token_not_found"),
            AuthError::RefreshUsed => (400, "refresh_token_already_used"),
            AuthError::LinkOver => (403, "otp_expired"),
            AuthError::Bad(_) => (400, "validation_failed"),
            AuthError::WeakPassword(_) => (422, "weak_password"),
            AuthError::Busy => (429, "over_request_rate_limit"),
            AuthError::NoSuch { .. } => (404, "not_found"),
            AuthError::Store(error) => return mobo_gate::BackendError::from(error.clone()).into(),
            AuthError::Broken(_) => {
                tracing::error!(%error, "accounts do not work");
                return Self::auth(StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure", "this hub cannot do that now");
            }
        };
        Self::auth(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), code, message)
    }
}
