//! How an object goes up: in one request, or in parts, and only under a name that is free.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use mobo_core::backup::vault::{ObjectName, VaultError};
use mobo_core::limits;

use super::http::{Answer, Ask, whole_seconds};
use super::sign::checksum;
use super::{Inner, refusal, xml};

/// The object that tells whether the store takes conditions seriously. No object of a repository has such a name.
const PROBE: &str = ".mobo/create-only";
const IF_FREE: (&str, &str) = ("if-none-match", "*");

impl Inner {
    pub(super) async fn put(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> Result<(), VaultError> {
        if bytes.len() > limits::OBJECT_BYTES_MAX {
            return Err(VaultError::Refused(format!("{name} is larger than {} bytes", limits::OBJECT_BYTES_MAX)));
        }
        let conditional = *self.conditional.get_or_try_init(|| self.probe()).await?;
        if !conditional && self.head(name).await?.is_some() {
            return Err(VaultError::Exists(name.clone()));
        }
        let body = Bytes::from(Arc::unwrap_or_clone(bytes));
        if body.len() > limits::S3_PART_BYTES {
            return self.put_parts(name, body, conditional).await;
        }
        let ask = self.locked(Ask::new(Method::PUT, self.path(name.as_str()))).header("x-amz-sdk-checksum-algorithm", "SHA256");
        let mut ask = ask.header("x-amz-checksum-sha256", checksum(&body));
        ask.body = body;
        let answer = self.ask(if conditional { ask.header(IF_FREE.0, IF_FREE.1) } else { ask }).await?;
        done(&answer, name)
    }

    /// Creates one object twice: a store that lets that happen must be asked before each object whether there is one.
    async fn probe(&self) -> Result<bool, VaultError> {
        for _ in 0..2 {
            let body = Bytes::from_static(b"mobo creates objects under free names only\n");
            let mut ask =
                Ask::new(Method::PUT, self.path(PROBE)).header(IF_FREE.0, IF_FREE.1).header("x-amz-checksum-sha256", checksum(&body));
            ask.body = body;
            let answer = self.ask(ask).await?;
            match answer.status {
                StatusCode::PRECONDITION_FAILED => return Ok(true),
                StatusCode::NOT_IMPLEMENTED => break,
                status if status.is_success() => {}
                _ => return Err(refusal(&answer, None)),
            }
        }
        tracing::warn!("this store does not know conditional writes: two hubs must not write into one vault there");
        Ok(false)
    }

    fn locked<'a>(&self, ask: Ask<'a>) -> Ask<'a> {
        let Some(lock) = self.settings.lock else { return ask };
        let until = self.http.now_s().saturating_add(i64::from(lock.days).saturating_mul(86_400));
        ask.header("x-amz-object-lock-mode", if lock.compliance { "COMPLIANCE" } else { "GOVERNANCE" })
            .header("x-amz-object-lock-retain-until-date", whole_seconds(until))
    }

    async fn put_parts(&self, name: &ObjectName, body: Bytes, conditional: bool) -> Result<(), VaultError> {
        let path = self.path(name.as_str());
        let begin = Ask::new(Method::POST, path.clone()).query("uploads", "").header("x-amz-checksum-algorithm", "SHA256");
        let begun = self.ask(self.locked(begin)).await?;
        let text = std::str::from_utf8(&begun.body).unwrap_or_default();
        let upload = xml::text(text, "UploadId").filter(|_| begun.status.is_success()).ok_or_else(|| refusal(&begun, Some(name)))?;
        let done = self.finish_parts(name, (&path, &upload), body, conditional).await;
        if done.is_err() {
            // Parts that stay cost room; the store's own rules for those that were begun and not ended remove them where this may not.
            let _ = self.ask(Ask::new(Method::DELETE, path).query("uploadId", upload)).await;
        }
        done
    }

    async fn finish_parts(
        &self,
        name: &ObjectName,
        (path, upload): (&str, &str),
        body: Bytes,
        conditional: bool,
    ) -> Result<(), VaultError> {
        let mut list = String::new();
        let size = body.len() as u64;
        for (index, start) in (0..body.len()).step_by(limits::S3_PART_BYTES).enumerate() {
            let number = index + 1;
            let part = body.slice(start..body.len().min(start + limits::S3_PART_BYTES));
            let mut ask = Ask::new(Method::PUT, path.to_owned()).query("partNumber", number.to_string()).query("uploadId", upload);
            let sum = checksum(&part);
            ask = ask.header("x-amz-checksum-sha256", sum.clone());
            ask.body = part;
            let answer = self.ask(ask).await?;
            let tag = answer.header("etag").filter(|_| answer.status.is_success()).ok_or_else(|| refusal(&answer, None))?;
            let tag = xml::escaped(tag);
            list.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag><ChecksumSHA256>{sum}</ChecksumSHA256></Part>"
            ));
        }
        let mut ask = Ask::new(Method::POST, path.to_owned()).query("uploadId", upload);
        ask.body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>").into();
        let answer = self.ask(if conditional { ask.header(IF_FREE.0, IF_FREE.1) } else { ask }).await?;
        // An answer was lost, and the request that was made again finds the upload ended: by this object, or by none.
        if answer.code().as_deref() == Some("NoSuchUpload") {
            return match self.head(name).await? {
                Some((bytes, _)) if bytes == size => Err(VaultError::Exists(name.clone())),
                _ => Err(VaultError::Unavailable(answer.says())),
            };
        }
        done(&answer, name)
    }
}

fn done(answer: &Answer, name: &ObjectName) -> Result<(), VaultError> {
    if answer.status.is_success() && answer.code().is_none() { Ok(()) } else { Err(refusal(answer, Some(name))) }
}
