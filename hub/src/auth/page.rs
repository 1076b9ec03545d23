//! What is behind a one-time link: a page where the first password of an account is set. It needs no script.

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use mobo_core::ids::ProjectId;
use percent_encoding::percent_decode;

use super::doors::project_of;
use crate::node::Hub;
use crate::settings;

const FORM: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>mobo: set a password</title>\
<style>body{font:16px system-ui;max-width:24em;margin:4em auto;padding:0 1em}input,button{font:inherit;display:block;width:100%;margin:.5em 0;padding:.5em;box-sizing:border-box}</style>\
<h1>Set a password</h1><form method=post action=/auth/v1/setup><input type=hidden name=secret value='{secret}'>\
<label>Password, at least 8 characters<input type=password name=password minlength=8 autocomplete=new-password required autofocus></label>\
<button>Set it</button></form><p>This link works once.</html>";

/// What the browser shows when it is done.
pub(super) const DONE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>mobo: done</title><style>body{font:16px system-ui;\
max-width:24em;margin:4em auto;padding:0 1em}</style><h1>Done</h1><p>The password is set. Sign in with it in your app.</html>";

/// The link: the secret is behind `?`, so that the page can be made without a script; nobody is told where one came from.
#[must_use]
pub fn link(hub: &Hub, project: ProjectId, secret: &str) -> String {
    let url = hub.config.get(&settings::AUTH_URL);
    let base = if url.is_empty() {
        hub.http().map_or_else(String::new, |address| hub.url(address))
    } else {
        url.trim_end_matches('/').trim_end_matches("/auth/v1").to_owned()
    };
    format!("{base}/auth/v1/setup?secret={project}.{secret}")
}

/// The page.
pub(super) async fn form(request: Request) -> Response {
    let secret = field(request.uri().query().unwrap_or_default().as_bytes(), "secret").unwrap_or_default();
    let plain: String = secret.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).take(128).collect();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, FORM.replace("{secret}", &plain)).into_response()
}

/// Project, secret and password of a form that was sent.
pub(super) fn read(body: &[u8]) -> Option<(ProjectId, String, String)> {
    let secret = field(body, "secret")?;
    let (project, secret) = secret.split_once('.')?;
    Some((project_of(project)?, secret.to_owned(), field(body, "password")?))
}

fn field(form: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(form).ok()?;
    let value = text.split('&').find_map(|part| part.split_once('=').filter(|(known, _)| *known == name))?.1.replace('+', " ");
    percent_decode(value.as_bytes()).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_gives_its_fields() {
        let project = ProjectId::new(0xabc).unwrap();
        let read = |body: &str| read(body.as_bytes());
        assert_eq!(read("secret=abc.s-_x&password=a%20b%2B+c"), Some((project, "s-_x".to_owned(), "a b+ c".to_owned())));
        for bad in ["", "secret=abc.x", "password=x", "secret=abc&password=x", "secret=zz.x&password=y", "secret=0.x&password=y"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
