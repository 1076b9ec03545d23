//! One request to the store, made again where that can help.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mobo_core::backup::vault::VaultError;
use mobo_core::{limits, rfc3339};

use super::sign::{Unsigned, sign, target};
use super::{S3Settings, xml};

/// The way to one store.
#[derive(Debug)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// `https://host:port`.
    endpoint: String,
    host: String,
    /// Seconds by which the store's clock is ahead of this machine's.
    ahead_s: AtomicI64,
}

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// With its leading `/`, not encoded.
    pub(super) path: String,
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// Longest answer.
    pub(super) bytes_max: usize,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), headers: Vec::new(), body: Bytes::new(), bytes_max: limits::S3_ANSWER_BYTES_MAX }
    }

    pub(super) fn query(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What the store said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The error in it, also where the status says that all is well.
    pub(super) fn code(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.body).ok()?;
        let error = xml::elements(text, "Error").next();
        let is_answer = self.status.is_success() || error.is_some();
        error.or((!is_answer).then_some(text)).and_then(|error| xml::text(error, "Code"))
    }

    /// Status and error for people.
    pub(super) fn says(&self) -> String {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        let message = xml::text(text, "Message").map(|message| format!(": {}", message.chars().take(200).collect::<String>()));
        format!("{} {}{}", self.status.as_u16(), self.code().unwrap_or_default(), message.unwrap_or_default())
    }
}

impl Http {
    pub(super) fn new(settings: &S3Settings) -> Result<Self, VaultError> {
        let refused = |why: String| VaultError::Refused(why);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(settings.timeout));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        // Plain HTTP needs no roots, which a bare machine may not have.
        let connector = if settings.endpoint.starts_with("https://") {
            let roots = builder.with_provider_and_native_roots(provider);
            let roots = roots.map_err(|error| refused(format!("this machine knows no certificates to trust: {error}")))?;
            roots.https_only().enable_http1().wrap_connector(connector)
        } else {
            let none = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
            let none = none.map_err(|error| refused(error.to_string()))?.with_root_certificates(rustls::RootCertStore::empty());
            builder.with_tls_config(none.with_no_client_auth()).https_or_http().enable_http1().wrap_connector(connector)
        };
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(2).build(connector);
        let host = settings.endpoint.split_once("://").map_or("", |(_, host)| host).to_owned();
        Ok(Self { client, endpoint: settings.endpoint.clone(), host, ahead_s: AtomicI64::new(0) })
    }

    /// Seconds since 1970 by the store's clock, as far as it is known.
    pub(super) fn now_s(&self) -> i64 {
        own_now_s().saturating_add(self.ahead_s.load(Ordering::Relaxed))
    }

    /// Asks until the store has an answer, or for the last time. `Ok` is any answer but one that asks to come again.
    pub(super) async fn ask(&self, settings: &S3Settings, ask: Ask<'_>) -> Result<Answer, VaultError> {
        let mut pause = limits::VAULT_PAUSE;
        for attempt in 1.. {
            let failed = match self.once(settings, &ask).await {
                Ok(answer) => {
                    let was_skewed = self.learn_time(&answer) && answer.code().as_deref() == Some("RequestTimeTooSkewed");
                    if !is_passing(&answer) && !was_skewed {
                        return Ok(answer);
                    }
                    VaultError::Unavailable(answer.says())
                }
                Err(error) => error,
            };
            if attempt >= limits::VAULT_ATTEMPTS_MAX || !matches!(failed, VaultError::Unavailable(_)) {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(VaultError::Unavailable("no answer".to_owned()))
    }

    async fn once(&self, settings: &S3Settings, ask: &Ask<'_>) -> Result<Answer, VaultError> {
        let away = |why: String| VaultError::Unavailable(format!("{}: {why}", self.host));
        let moment = compact(self.now_s());
        let mut headers = ask.headers.clone();
        headers.push(("host", self.host.clone()));
        let unsigned = Unsigned { method: ask.method.as_str(), path: &ask.path, query: &ask.query, headers, body: &ask.body };
        let signed = sign(unsigned, &settings.credentials, &settings.region, &moment);
        let uri = format!("{}{}", self.endpoint, target(&ask.path, &ask.query));
        let mut request = Request::builder().method(&ask.method).uri(uri);
        for (name, value) in signed {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(ask.body.clone())).map_err(|error| VaultError::Refused(format!("no such address: {error}")))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| away(causes(&error)))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, ask.bytes_max).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
                Some(_) => VaultError::Damaged(format!("an answer of more than {} bytes", ask.bytes_max)),
                None => away(error.to_string()),
            })?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let waited = || Err(away(format!("no answer within {} s", settings.timeout.as_secs())));
        tokio::time::timeout(settings.timeout, exchange).await.unwrap_or_else(|_| waited())
    }

    /// Goes by the store's clock where this machine's is far off; true if that is news.
    fn learn_time(&self, answer: &Answer) -> bool {
        let Some(theirs) = answer.header("date").and_then(date_s) else { return false };
        let slack = i64::try_from(limits::VAULT_CLOCK_SLACK.as_secs()).unwrap_or(i64::MAX);
        if theirs.abs_diff(self.now_s()) <= slack.unsigned_abs() {
            return false;
        }
        self.ahead_s.store(theirs.saturating_sub(own_now_s()), Ordering::Relaxed);
        true
    }
}

/// True for an answer that asks to come again.
fn is_passing(answer: &Answer) -> bool {
    let busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status);
    let is_theirs =
        answer.status.is_server_error() && ![StatusCode::NOT_IMPLEMENTED, StatusCode::INSUFFICIENT_STORAGE].contains(&answer.status);
    let passing = ["InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"];
    let full = ["XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"];
    let code = answer.code().unwrap_or_default();
    (busy || is_theirs || passing.contains(&code.as_str())) && !full.contains(&code.as_str())
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn own_now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// `2013-05-24T00:00:00Z`, as locks want it.
pub(super) fn whole_seconds(at_s: i64) -> String {
    let text = rfc3339::format(at_s.saturating_mul(1_000_000));
    format!("{}Z", text.get(..19).unwrap_or(&text))
}

/// `20130524T000000Z`, as signatures want it.
fn compact(at_s: i64) -> String {
    whole_seconds(at_s).replace(['-', ':'], "")
}

/// A date as HTTP writes it: `Fri, 24 May 2013 00:00:00 GMT`.
fn date_s(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = 1 + MONTHS.iter().position(|name| *name == month)?;
    Some(rfc3339::parse(&format!("{year}-{month:02}-{day}T{time}Z"))?.div_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written() {
        assert_eq!(date_s("Fri, 24 May 2013 00:00:01 GMT"), Some(1_369_353_601));
        assert_eq!(date_s("yesterday"), None);
        assert_eq!(date_s("Fri, 24 Foo 2013 00:00:01 GMT"), None);
        assert_eq!(compact(1_369_353_601), "20130524T000001Z");
        assert_eq!(whole_seconds(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn an_error_is_found_whatever_the_status_says() {
        let answer = |status: u16, body: &'static str| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let error = "<Error><Code>InternalError</Code><Message>later</Message></Error>";
        for (answer, code, passing) in [
            (answer(200, error), Some("InternalError"), true),
            (answer(500, ""), None, true),
            (answer(503, "<Error><Code>SlowDown</Code></Error>"), Some("SlowDown"), true),
            (answer(507, "<Error><Code>XMinioStorageFull</Code></Error>"), Some("XMinioStorageFull"), false),
            (answer(403, "<Error><Code>AccessDenied</Code></Error>"), Some("AccessDenied"), false),
            (answer(200, "<ListBucketResult></ListBucketResult>"), None, false),
            (answer(200, "<Code>of an object</Code>"), None, false),
        ] {
            assert_eq!((answer.code().as_deref(), is_passing(&answer)), (code, passing), "{answer:?}");
        }
        assert_eq!(answer(200, error).says(), "200 InternalError: later");
    }
}
