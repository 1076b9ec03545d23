//! What would do, where a problem says nothing of its own.

use axum::http::StatusCode;

/// The next step for problems of that code, or of that status.
pub(super) fn usual(status: StatusCode, code: &str) -> &'static str {
    match code {
        "PGRST100" => "write column=operator.value, select=a,b, order=a.desc, limit=10; /docs shows requests that work",
        "PGRST102" => "send JSON, NDJSON, CSV or a form, whole and in UTF-8; nothing was written",
        "PGRST103" => "a range is from-to, as in 0-9, and a limit is 0 or more",
        "PGRST107" => "/openapi.json says what each path takes and gives",
        "PGRST116" => "make the filter name exactly one row that is there and open to you",
        "PGRST117" => "the Allow header lists the methods of this path",
        "PGRST122" => "leave the preference out, or ask for handling=lenient",
        "PGRST127" => "/docs and /openapi.json show what this node does",
        "22P02" | "42883" => "/openapi.json says of what type each field is",
        "42703" | "PGRST204" => "/openapi.json lists the fields that there are for you",
        "invalid_credentials" => "check the address and the password",
        "user_banned" | "signup_disabled" | "not_admin" => "ask an administrator",
        _ => by_status(status),
    }
}

fn by_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "show a key as `apikey`, or a token as `Authorization: Bearer`",
        403 => "somebody else may do this: `mobo-hub policy list` shows what is open to which role",
        404 => "/openapi.json lists what there is for you",
        409 | 412 => "read again what is there, then decide",
        429 => "wait as long as Retry-After says",
        500.. => "try again in a moment; the node's log says more under this request's id",
        _ => "change the request as the message says",
    }
}
