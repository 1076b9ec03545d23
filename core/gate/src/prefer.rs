//! The `Prefer` header (RFC 7240) as PostgREST reads it, and `wait=hub` or `wait=safe`: how safe a write shall be before it is answered.
//! `wait=10`, as in the RFC, says for how many seconds at most.

use std::time::Duration;

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use mobo_core::level::{AckLevel, Patience};

use crate::problem::Problem;

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The answer to [`PREFER`].
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a write gives back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Return {
    /// Nothing.
    #[default]
    Minimal,
    /// Where it is.
    HeadersOnly,
    /// The rows.
    Representation,
}

/// What an insert does with a record that is there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Resolution {
    /// It fails.
    #[default]
    None,
    /// It changes the fields that it gives.
    Merge,
    /// It passes over it.
    Ignore,
}

/// The preferences of one request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Prefer {
    pub(crate) returns: Return,
    pub(crate) resolution: Resolution,
    /// Count all rows, too. A planned or estimated count is given exactly.
    pub(crate) count: bool,
    /// A change of more rows is refused.
    pub(crate) affected_max: Option<usize>,
    /// The level that the caller waits for.
    wait: Option<AckLevel>,
    /// For how long at most.
    wait_timeout: Option<Duration>,
    applied: Vec<String>,
}

impl Prefer {
    /// Reads all `Prefer` headers.
    ///
    /// # Errors
    ///
    /// With `handling=strict`, for a preference that this version does not have; otherwise that is passed over, unless something else would be
    /// done then than what was asked: `tx=rollback`, and times of another zone.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let texts = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let words: Vec<String> = texts.flat_map(|text| text.split(',')).map(plain).filter(|word| !word.is_empty()).collect();
        let strict = words.iter().any(|word| word == "handling=strict");
        let (mut prefer, mut unknown) = (Self::default(), Vec::new());
        for word in words {
            match prefer.take(&word, strict) {
                Some(applied) if applied.is_empty() => {}
                Some(applied) => prefer.applied.push(applied),
                None => unknown.push(word),
            }
        }
        // What asks for another outcome is never passed over.
        let promise = unknown.iter().find(|word| word.starts_with("tx=") || word.starts_with("timezone="));
        if let Some(promise) = promise.filter(|_| !strict) {
            return Err(Problem::unsupported(&format!("the preference {}", promise.escape_default()))
                .hint("a request is committed or refused as a whole, and times are given in UTC: nothing was done"));
        }
        if strict && !unknown.is_empty() {
            let message = "a preference of this request is not known here, and it asks for strict handling";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "PGRST122", "Unknown preference", message)
                .details(format!("Invalid preferences: {}", unknown.join(", "))));
        }
        Ok(prefer)
    }

    /// Takes one preference; gives how it was taken.
    fn take(&mut self, word: &str, strict: bool) -> Option<String> {
        match word.split_once('=')? {
            ("return", "minimal") => self.returns = Return::Minimal,
            ("return", "headers-only") => self.returns = Return::HeadersOnly,
            ("return", "representation") => self.returns = Return::Representation,
            ("resolution", "merge-duplicates") => self.resolution = Resolution::Merge,
            ("resolution", "ignore-duplicates") => self.resolution = Resolution::Ignore,
            ("count", "exact" | "planned" | "estimated") => {
                self.count = true;
                return Some("count=exact".to_owned());
            }
            // Fields have no default but null, so both mean the same.
            ("missing", "default" | "null")
            | ("handling", "strict" | "lenient")
            | ("tx", "commit")
            | ("timezone", "utc" | "etc/utc" | "gmt") => {}
            ("wait", seconds) if seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.wait_timeout = Some(Duration::from_secs(seconds.parse::<u32>().ok()?.into()));
            }
            // What was reached is known later.
            ("wait", level) => {
                self.wait = Some(level.parse().ok()?);
                return Some(String::new());
            }
            ("max-affected", number) if strict => self.affected_max = Some(number.parse().ok()?),
            _ => return None,
        }
        Some(word.to_owned())
    }

    /// What a write waits for; `None` for the node's own level.
    pub(crate) fn patience(&self) -> Option<Patience> {
        self.wait.map(|level| Patience::new(level, self.wait_timeout))
    }

    /// The header that says which were applied; `level` is how safe the write is, where it was one.
    pub(crate) fn applied(&self, level: Option<AckLevel>) -> Option<(HeaderName, HeaderValue)> {
        let waited = self.wait.filter(|wait| level.is_some_and(|level| level >= *wait)).map(|wait| format!("wait={wait}"));
        let applied: Vec<String> = self.applied.iter().cloned().chain(waited).collect();
        let value = HeaderValue::try_from(applied.join(", ")).ok().filter(|value| !value.is_empty())?;
        Some((PREFERENCE_APPLIED, value))
    }
}

/// `return = "minimal"; x=y` is `return=minimal`.
fn plain(preference: &str) -> String {
    let word = preference.split(';').next().unwrap_or_default();
    word.chars().filter(|c| !c.is_whitespace() && *c != '"').collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &[&'static str], want: Result<&str, &str>) {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        let shown = match Prefer::of(&headers) {
            Ok(prefer) => Ok(format!(
                "{:?} {:?} {} {:?}{} | {}",
                prefer.returns,
                prefer.resolution,
                prefer.count,
                prefer.affected_max,
                prefer.patience().map_or(String::new(), |patience| format!(" {} {:?}", patience.level, patience.timeout)),
                prefer.applied.join(", ")
            )),
            Err(problem) => Err(format!("{problem:?}")),
        };
        match (shown, want) {
            (Ok(shown), Ok(want)) => assert_eq!(shown, want),
            (Err(shown), Err(want)) => assert!(shown.contains(want), "{shown}"),
            (shown, want) => panic!("{shown:?}, not {want:?}"),
        }
    }

    #[test]
    fn preferences_are_read_and_echoed() {
        check(&[], Ok("Minimal None false None | "));
        check(&["return=representation, count=estimated"], Ok("Representation None true None | return=representation, count=exact"));
        check(
            &["Return = \"headers-only\"; a=b", "resolution=merge-duplicates"],
            Ok("HeadersOnly Merge false None | return=headers-only, resolution=merge-duplicates"),
        );
        check(&["respond-async, return=all, max-affected=3"], Ok("Minimal None false None | "));
        check(&["tx=commit, timezone=UTC"], Ok("Minimal None false None | tx=commit, timezone=utc"));
        // Nobody who asks for another outcome is passed over.
        for promise in ["respond-async, tx=rollback", "timezone=Europe/Berlin"] {
            let headers = HeaderMap::from_iter([(PREFER, HeaderValue::from_static(promise))]);
            assert_eq!(Prefer::of(&headers).unwrap_err().code(), "PGRST127", "{promise}");
        }
        check(&["handling=strict, max-affected=3"], Ok("Minimal None false Some(3) | handling=strict, max-affected=3"));
        check(&["wait=hub"], Ok("Minimal None false None hub 30s | "));
        check(&["wait=safe, wait=900"], Ok("Minimal None false None safe 300s | wait=900"));
        check(&["wait=ever, handling=strict"], Err("wait=ever"));
        check(&["tx=rollback,handling=strict,max-affected=many"], Err("tx=rollback, max-affected=many"));
    }
}
