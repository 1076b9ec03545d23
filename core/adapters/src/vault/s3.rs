//! A vault in a bucket of anything that speaks S3.
//!
//! Requests are signed by ourselves over the HTTP client that the hub links anyway: what a vault needs of S3 is small, and locks and
//! creation under a condition are where stores differ. Nothing of it is linked into a device.

mod http;
mod sign;
mod upload;
mod xml;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use mobo_core::backup::vault::{Listed, ObjectName, Pruner, Vault, VaultError, VaultFuture};
use mobo_core::limits;
use tokio::sync::OnceCell;

use http::{Answer, Ask, Http};

/// Who asks. It prints as its public half only.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// The access key id.
    pub key_id: String,
    /// The secret access key.
    pub secret: String,
    /// The session token of a temporary credential.
    pub token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// For how long nobody may remove what is written: the bucket must have been made with object lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lock {
    /// True where not even the bucket's owner may shorten it (mode COMPLIANCE); else GOVERNANCE.
    pub compliance: bool,
    /// How long.
    pub days: u32,
}

/// Where a vault is, and how to speak to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct S3Settings {
    /// `https://host` or `http://host:port`, without a path.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the names of all objects begin with: empty, or `some/folder/`.
    pub prefix: String,
    /// Who asks.
    pub credentials: Credentials,
    /// Locks what is written; `None` where the bucket itself does, or nobody.
    pub lock: Option<Lock>,
    /// How long one request may take.
    pub timeout: Duration,
}

impl S3Settings {
    /// Settings for `s3://bucket` or `s3://bucket/some/folder`, at `endpoint`, or at AWS where that is empty.
    ///
    /// # Errors
    ///
    /// [`VaultError::Refused`] with a sentence for an address that names no bucket, or a place that is no endpoint.
    pub fn parse(url: &str, endpoint: &str, region: &str, credentials: Credentials) -> Result<Self, VaultError> {
        // The address is not shown: what is wrong with it may be a password in it.
        let refused = |why: &str| Err(VaultError::Refused(format!("this is no address of a bucket: {why}")));
        let Some(rest) = url.strip_prefix("s3://") else { return refused("it does not begin with s3://") };
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let is_letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-.".contains(&letter);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_letter) {
            return refused("name a bucket, as in s3://my-backups or s3://my-backups/plant-4");
        }
        let folder = folder.trim_matches('/');
        if folder.split('/').any(|part| part == "." || part == "..") || folder.contains(['?', '#', '\\']) || folder.len() > 512 {
            return refused("the folder in the bucket must be a plain path");
        }
        let endpoint =
            if endpoint.is_empty() { format!("https://s3.{region}.amazonaws.com") } else { endpoint.trim_end_matches('/').to_owned() };
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(['/', '@', '?'])) {
            return refused("the endpoint must be https://HOST or http://HOST:PORT");
        }
        Ok(Self {
            endpoint,
            region: region.to_owned(),
            bucket: bucket.to_owned(),
            prefix: if folder.is_empty() { String::new() } else { format!("{folder}/") },
            credentials,
            lock: None,
            timeout: limits::VAULT_REQUEST_TIMEOUT,
        })
    }
}

/// A bucket as a vault. Clones share its connections.
#[derive(Clone, Debug)]
pub struct S3Vault(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: S3Settings,
    http: Http,
    /// Whether the store takes creation under a condition seriously; not known before the first object.
    conditional: OnceCell<bool>,
}

impl S3Vault {
    /// Ready to ask; asks nothing yet.
    ///
    /// # Errors
    ///
    /// [`VaultError::Refused`] where this machine knows no certificates to trust.
    pub fn new(settings: S3Settings) -> Result<Self, VaultError> {
        let http = Http::new(&settings)?;
        Ok(Self(Arc::new(Inner { settings, http, conditional: OnceCell::new() })))
    }
}

impl Vault for S3Vault {
    fn place(&self) -> String {
        let S3Settings { bucket, prefix, .. } = &self.0.settings;
        format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned()
    }

    fn lock(&self) -> Option<Duration> {
        self.0.settings.lock.map(|lock| Duration::from_secs(u64::from(lock.days) * 86_400))
    }

    fn put(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> VaultFuture<'_, ()> {
        let name = name.clone();
        Box::pin(async move { self.0.put(&name, bytes).await })
    }

    fn get(&self, name: &ObjectName, range: Option<Range<u64>>) -> VaultFuture<'_, Vec<u8>> {
        let name = name.clone();
        Box::pin(async move { self.0.get(&name, range).await })
    }

    fn head(&self, name: &ObjectName) -> VaultFuture<'_, Option<u64>> {
        let name = name.clone();
        Box::pin(async move { Ok(self.0.head(&name).await?.map(|(bytes, _)| bytes)) })
    }

    fn list(&self, prefix: &str, after: Option<&ObjectName>) -> VaultFuture<'_, Vec<Listed>> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        Box::pin(async move { self.0.list(&prefix, after).await })
    }
}

/// The same bucket, with the credential of whoever may remove objects.
#[derive(Clone, Debug)]
pub struct S3Pruner(S3Vault);

impl S3Pruner {
    /// As [`S3Vault::new`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn new(settings: S3Settings) -> Result<Self, VaultError> {
        S3Vault::new(settings).map(Self)
    }
}

impl Pruner for S3Pruner {
    fn vault(&self) -> &dyn Vault {
        &self.0
    }

    fn delete(&self, name: &ObjectName) -> VaultFuture<'_, ()> {
        let name = name.clone();
        Box::pin(async move { self.0.0.delete(&name).await })
    }
}

impl Inner {
    fn path(&self, name: &str) -> String {
        format!("/{}/{}{name}", self.settings.bucket, self.settings.prefix)
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, VaultError> {
        self.http.ask(&self.settings, ask).await
    }

    async fn get(&self, name: &ObjectName, range: Option<Range<u64>>) -> Result<Vec<u8>, VaultError> {
        let mut ask = Ask::new(Method::GET, self.path(name.as_str())).header("x-amz-checksum-mode", "ENABLED");
        if let Some(range) = &range {
            if range.is_empty() {
                return self.head(name).await?.map(|_| Vec::new()).ok_or_else(|| VaultError::Gone(name.clone()));
            }
            ask = ask.header("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        ask.bytes_max = limits::OBJECT_BYTES_MAX;
        let answer = self.ask(ask).await?;
        let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(answer.body.len());
        match (answer.status, &range) {
            (StatusCode::PARTIAL_CONTENT, Some(range)) if answer.body.len() as u64 <= range.end - range.start => Ok(answer.body.to_vec()),
            // A store that knows no ranges sends everything.
            (StatusCode::OK, Some(range)) => Ok(answer.body.get(at(range.start)..at(range.end)).unwrap_or_default().to_vec()),
            (StatusCode::OK, None) => match answer.header("x-amz-checksum-sha256").filter(|sum| !sum.contains('-')) {
                Some(sum) if sum != sign::checksum(&answer.body) => Err(VaultError::Damaged(format!("{name} does not fit its checksum"))),
                _ => Ok(answer.body.to_vec()),
            },
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => Ok(Vec::new()),
            _ => Err(refusal(&answer, Some(name))),
        }
    }

    /// How large an object is, and its version where the bucket keeps versions.
    async fn head(&self, name: &ObjectName) -> Result<Option<(u64, Option<String>)>, VaultError> {
        let answer = self.ask(Ask::new(Method::HEAD, self.path(name.as_str()))).await?;
        if answer.status == StatusCode::NOT_FOUND {
            // An answer without a body does not say what is not there: the object, or the bucket.
            let ask = Ask::new(Method::GET, format!("/{}", self.settings.bucket)).query("list-type", "2").query("max-keys", "1");
            let bucket = self.ask(ask.query("prefix", self.settings.prefix.clone())).await?;
            return if bucket.status.is_success() { Ok(None) } else { Err(refusal(&bucket, None)) };
        }
        if !answer.status.is_success() {
            return Err(refusal(&answer, Some(name)));
        }
        let bytes = answer.header("content-length").and_then(|text| text.parse().ok());
        let bytes = bytes.ok_or_else(|| VaultError::Unavailable(format!("the store does not say how large {name} is")))?;
        Ok(Some((bytes, answer.header("x-amz-version-id").map(str::to_owned))))
    }

    async fn list(&self, prefix: &str, mut after: Option<ObjectName>) -> Result<Vec<Listed>, VaultError> {
        let own = &self.settings.prefix;
        let mut token: Option<String> = None;
        loop {
            let mut ask = Ask::new(Method::GET, format!("/{}", self.settings.bucket)).query("list-type", "2");
            ask = ask.query("prefix", format!("{own}{prefix}")).query("max-keys", limits::VAULT_LIST_MAX.to_string());
            ask = match (token.take(), after.take()) {
                (Some(token), _) => ask.query("continuation-token", token),
                (None, Some(after)) => ask.query("start-after", format!("{own}{after}")),
                (None, None) => ask,
            };
            let answer = self.ask(ask).await?;
            let text = std::str::from_utf8(&answer.body).unwrap_or_default();
            if !answer.status.is_success() {
                return Err(refusal(&answer, None));
            }
            if !text.contains("<ListBucketResult") || !text.contains("</ListBucketResult>") {
                return Err(VaultError::Unavailable("the store sent what is no list".to_owned()));
            }
            let page: Vec<Listed> = xml::elements(text, "Contents").filter_map(|item| listed(item, own)).collect();
            token = xml::text(text, "NextContinuationToken");
            // A page may hold nothing of ours, and more come.
            if !page.is_empty() || token.is_none() {
                return Ok(page);
            }
        }
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), VaultError> {
        // Where versions are kept, removing none of them only hides the object.
        let Some((_, version)) = self.head(name).await? else { return Ok(()) };
        let mut ask = Ask::new(Method::DELETE, self.path(name.as_str()));
        if let Some(version) = version {
            ask = ask.query("versionId", version);
        }
        let answer = self.ask(ask).await?;
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND { Ok(()) } else { Err(refusal(&answer, Some(name))) }
    }
}

fn listed(item: &str, own: &str) -> Option<Listed> {
    let name = ObjectName::parse(xml::text(item, "Key")?.strip_prefix(own)?)?;
    Some(Listed { name, bytes: xml::text(item, "Size")?.parse().ok()? })
}

/// What an answer that is not the wanted one means.
fn refusal(answer: &Answer, name: Option<&ObjectName>) -> VaultError {
    let (code, says) = (answer.code().unwrap_or_default(), answer.says());
    match (answer.status, name) {
        _ if ["XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"].contains(&code.as_str()) => VaultError::Full(says),
        (StatusCode::INSUFFICIENT_STORAGE, _) => VaultError::Full(says),
        (StatusCode::NOT_FOUND, Some(name)) if code != "NoSuchBucket" && code != "NoSuchUpload" => VaultError::Gone(name.clone()),
        (StatusCode::PRECONDITION_FAILED, Some(name)) => VaultError::Exists(name.clone()),
        (status, _) if status.is_success() => VaultError::Unavailable(format!("the store sent what makes no sense: {says}")),
        (status, _) if status.is_redirection() => {
            let region = answer.header("x-amz-bucket-region").map(|region| format!("; the bucket is in {region}"));
            VaultError::Refused(format!("{says}{}", region.unwrap_or_default()))
        }
        _ => VaultError::Refused(says),
    }
}
