//! Users: their tokens, and the doors of `/auth/v1` where they get them.

pub mod token;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;

use crate::problem::Problem;

/// The doors of a node that has no accounts: what is asked there is refused by name.
///
/// With the status of a path that is not there, at which clients of GoTrue that sign out forget their tokens, as they should.
pub fn elsewhere() -> Router {
    let refuse = async || {
        Problem::auth(StatusCode::NOT_FOUND, "not_supported", "accounts are at the hub: a device has none of its own")
            .hint("sign in at the hub; what it gives is good on its devices, too, with and without a network")
    };
    Router::new().route("/auth/v1/{*rest}", any(refuse))
}
