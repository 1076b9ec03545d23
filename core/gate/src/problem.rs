//! What went wrong, for programs and for people: RFC 9457 with the members of PostgREST inside.

mod codes;
mod hint;
mod quota;

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mobo_core::author::EditError;
use serde_json::json;

use crate::auth::token::TokenError;
use crate::backend::BackendError;

pub(crate) use codes::{CODES, OWN};
pub(crate) use quota::Quota;

/// Says that `code` is the code: clients of GoTrue look for `error_code` otherwise.
const AUTH_VERSION: HeaderName = HeaderName::from_static("x-supabase-api-version");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    message: String,
    details: Option<String>,
    hint: Option<String>,
    /// What of the request is to blame.
    place: Option<Place>,
    header: Option<(HeaderName, &'static str)>,
    quota: Option<Quota>,
}

/// A part of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    /// A field of the body's rows.
    Field(String),
    /// A word of the address.
    Parameter(String),
}

impl Problem {
    /// A problem. `code` is PostgREST's or Postgres' code for programs, `title` says the kind and `message` this case of it.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, title: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            title,
            message: message.into(),
            details: None,
            hint: None,
            place: None,
            header: None,
            quota: None,
        }))
    }

    /// With more about this case.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.0.details = Some(details.into());
        self
    }

    /// With what would do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// With the field of the body that is to blame.
    #[must_use]
    pub fn field(mut self, name: &str) -> Self {
        self.0.place = Some(Place::Field(name.to_owned()));
        self
    }

    /// With the word of the address that is to blame.
    pub(crate) fn parameter(mut self, name: &str) -> Self {
        self.0.place = Some(Place::Parameter(name.to_owned()));
        self
    }

    /// A problem of `/auth/v1`: `code` is GoTrue's, and clients of it find it where they look.
    #[must_use]
    pub fn auth(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, code, "Not signed in", message).header(AUTH_VERSION, "2024-01-01")
    }

    fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) const fn code(&self) -> &'static str {
        self.0.code
    }

    /// True where a credential was shown that is not good.
    pub(crate) fn is_unproven(&self) -> bool {
        self.0.status == StatusCode::UNAUTHORIZED && ["PGRST301", "PGRST303"].contains(&self.0.code)
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The answer, for the request with that id.
    pub(crate) fn render(&self, instance: &str) -> Response {
        let Parts { status, code, title, message, details, hint, place, quota, .. } = &*self.0;
        let mut body = json!({
            "type": kind(*status, title),
            "title": title,
            "status": status.as_u16(),
            "detail": details.as_ref().unwrap_or(message),
            "instance": format!("urn:uuid:{instance}"),
            "code": code,
            "message": message,
            "details": details,
            "hint": hint.as_deref().unwrap_or_else(|| hint::usual(*status, code)),
        });
        if let (Some(place), Some(members)) = (place, body.as_object_mut()) {
            members.insert("errors".to_owned(), json!([place.error(code, message)]));
        }
        if let (Some(quota), Some(members)) = (quota, body.as_object_mut()) {
            quota.tell(members);
        }
        if let (true, Some(members)) = (self.0.header.as_ref().is_some_and(|(name, _)| *name == AUTH_VERSION), body.as_object_mut()) {
            members.insert("error_code".to_owned(), (*code).into());
            members.insert("msg".to_owned(), message.as_str().into());
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = *status;
        self.write_headers(response.headers_mut());
        response
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Ok(value) = HeaderValue::try_from(format!("mobo; error={}", self.0.code)) {
            headers.insert(PROXY_STATUS, value);
        }
        if let Some((name, value)) = &self.0.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

impl Place {
    fn error(&self, code: &str, message: &str) -> serde_json::Value {
        match self {
            // A pointer of RFC 6901.
            Self::Field(name) => {
                json!({ "pointer": format!("/{}", name.replace('~', "~0").replace('/', "~1")), "code": code, "message": message })
            }
            Self::Parameter(name) => json!({ "parameter": name, "code": code, "message": message }),
        }
    }
}

/// The registered type where there is one.
fn kind(status: StatusCode, title: &str) -> String {
    if status == StatusCode::TOO_MANY_REQUESTS {
        return "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned();
    }
    format!("urn:mobo:error:{}", title.to_lowercase().replace(' ', "-"))
}

/// The answer travels as an extension: the id of the request, which is in the body, is known further out.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl Problem {
    /// Nothing is at that path; what clients look for there is refused by name.
    pub(crate) fn nothing_at(path: &str) -> Self {
        match path.starts_with("/storage/v1/") {
            true => Self::unsupported("files at /storage/v1").hint("a field of type bytes holds small ones"),
            false => Self::no_route(),
        }
    }

    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "PGRST125", "No such path", "there is nothing at this path")
            .hint("records are at /rest/v1/{collection}; /openapi.json lists everything")
    }

    pub(crate) fn panicked() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "XX000", "Internal error", "this node made a mistake while it answered")
            .hint("the node's log says more under this request's id; please report it")
    }

    pub(crate) fn busy(why: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "53300", "Busy", format!("this node is busy: {why}"))
            .hint("try again in a moment")
            .header(RETRY_AFTER, "1")
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "PGRST301", "Not authenticated", message).header(WWW_AUTHENTICATE, "Bearer")
    }

    pub(crate) fn no_policy() -> Self {
        Self::denied(StatusCode::UNAUTHORIZED, "no policy opens this to you")
            .hint("a collection is closed until `mobo-hub policy set` opens it to a role; a key of role service or admin needs none")
    }

    /// What this caller may not do.
    pub(crate) fn denied(status: StatusCode, message: impl Into<String>) -> Self {
        let problem = Self::new(status, "42501", "Not allowed", message);
        if status == StatusCode::UNAUTHORIZED { problem.header(WWW_AUTHENTICATE, "Bearer") } else { problem }
    }

    /// The words of the request cannot be read.
    pub(crate) fn parse(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "PGRST100", "Malformed query", message)
    }

    /// The words are of the grammar, but this version cannot do it.
    pub(crate) fn unsupported(feature: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "PGRST127", "Not implemented", format!("this version of mobo does not have {feature}"))
    }

    pub(crate) fn bad_value(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "22P02", "Bad value", message)
    }

    pub(crate) fn bad_body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "PGRST102", "Malformed body", message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", "Too large", message)
    }

    pub(crate) fn not_singular(rows: usize) -> Self {
        let message = "the answer is not one row, which application/vnd.pgrst.object+json asks for";
        Self::new(StatusCode::NOT_ACCEPTABLE, "PGRST116", "Not one row", message).details(format!("The result contains {rows} rows"))
    }

    pub(crate) fn range(message: impl Into<String>) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "PGRST103", "Bad range", message)
    }
}

/// A method that a path does not have; `allow` lists those that it has.
pub(crate) fn method(allow: &'static str) -> Problem {
    let message = format!("this path does not take that method; it takes {allow}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST117", "Method not allowed", message).header(ALLOW, allow)
}

/// The same, where the router knows what the path has: its list is in the answer's `Allow` header.
pub(crate) fn method_of_route() -> Problem {
    let message = "this path does not take that method; the Allow header lists those that it takes";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "PGRST117", "Method not allowed", message)
}

/// The methods of streams.
pub(crate) const OF_STREAMS: &str = "GET, HEAD, POST";

/// A change to a stream.
pub(crate) fn append_only(name: &str) -> Problem {
    let message = format!("\"{name}\" is a stream: its samples are never changed or removed one by one");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "25006", "Append only", message).header(ALLOW, OF_STREAMS)
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        match error {
            BackendError::Edit(error) => error.into(),
            BackendError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "08006", "Store not available", message)
                .hint("try again in a moment; /readyz?verbose says what is wrong")
                .header(RETRY_AFTER, "2"),
            BackendError::Full(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "53100", "Store full", message)
                .hint("nothing was written; free some space on the node's disk, then try again"),
            BackendError::TooLarge(_) => Self::too_large(message).hint("write fewer or smaller rows with each request"),
            BackendError::Damaged(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "XX001", "Store damaged", message)
                .hint("run `health check` on this node: it says what is damaged"),
            BackendError::BadValue(_) => Self::bad_value(message).hint("leave the cast out, or filter for the rows that can be cast"),
            BackendError::Refused(_) => refused(message),
            BackendError::Token(error) => error.into(),
            BackendError::Rejected(_) => Self::new(StatusCode::CONFLICT, "MB409", "Refused by the hub", message)
                .hint("`mobo-edge quarantine list` shows what was refused and why"),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Expired | TokenError::NotYet | TokenError::Audience | TokenError::Claims(_) | TokenError::Ended => "PGRST303",
            TokenError::UnknownKey | TokenError::Signature | TokenError::OtherProject => "PGRST301",
        };
        let hint = match error {
            TokenError::Expired => "get another with the refresh token: POST /auth/v1/token?grant_type=refresh_token",
            TokenError::UnknownKey
            | TokenError::Signature
            | TokenError::NotYet
            | TokenError::Audience
            | TokenError::Claims(_)
            | TokenError::Ended
            | TokenError::OtherProject => "sign in again: POST /auth/v1/token?grant_type=password",
        };
        Self::new(StatusCode::UNAUTHORIZED, code, "Not authenticated", error.to_string()).hint(hint).header(WWW_AUTHENTICATE, "Bearer")
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        let message = error.to_string();
        match error {
            EditError::Exists { collection, id } => {
                let title = "Exists already";
                Self::new(
                    StatusCode::CONFLICT,
                    "23505",
                    title,
                    format!("duplicate key value violates unique constraint \"{collection}_pkey\""),
                )
                .details(format!("Key (id)=({id}) already exists."))
                .field("id")
                .hint("to change what is there, send PATCH, or POST with `Prefer: resolution=merge-duplicates`")
            }
            EditError::UnknownField { collection, field, near } => {
                let message = format!("Could not find the '{field}' column of '{collection}' in the schema");
                Self::unknown_field(message, near.as_deref()).field(&field)
            }
            EditError::BadValue { field, .. } => Self::bad_value(message).field(&field),
            EditError::Stale { .. } => Self::stale(message),
            EditError::TooLarge(_) => Self::too_large(message).hint("write fewer or smaller rows with each request"),
            EditError::Denied(_) => Self::denied(StatusCode::FORBIDDEN, message),
            EditError::Refused(_) => refused(message),
        }
    }
}

impl Problem {
    pub(crate) fn unknown_field(message: String, near: Option<&str>) -> Self {
        let problem = Self::new(StatusCode::BAD_REQUEST, "PGRST204", "No such field", message);
        match near {
            Some(near) => problem.hint(format!("Perhaps you meant the column '{near}'")),
            None => problem.hint("/openapi.json lists the fields; `collection alter` adds one"),
        }
    }

    /// What a caller expected to find is another by now.
    pub(crate) fn stale(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "MB412", "Changed meanwhile", message)
            .hint("read the record again, and send its new ETag; nothing was written")
    }

    pub(crate) fn timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "57014", "Timeout", "the body did not arrive in time")
            .hint("split the request, or use a faster link; nothing was written")
    }
}

fn refused(message: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "P0001", "Refused", message)
}
