//! AWS Signature Version 4: what a request must say so that the store believes who made it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};

use super::Credentials;

/// What stays as it is in a path or query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request as it is signed.
#[derive(Clone, Debug)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// With its leading `/`, not encoded.
    pub(super) path: &'a str,
    /// Not encoded, in any order.
    pub(super) query: &'a [(&'a str, String)],
    /// Lower-case names, `host` among them; all of them are signed.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: &'a [u8],
}

/// The path and query of a request, encoded as they are signed.
pub(super) fn target(path: &str, query: &[(&str, String)]) -> String {
    let query = canonical_query(query);
    if query.is_empty() { encoded_path(path) } else { format!("{}?{query}", encoded_path(path)) }
}

/// All headers of the request, signed for this moment: `20130524T000000Z`.
pub(super) fn sign(mut request: Unsigned<'_>, credentials: &Credentials, region: &str, moment: &str) -> Vec<(&'static str, String)> {
    let payload = hex(digest::digest(&digest::SHA256, request.body).as_ref());
    request.headers.push(("x-amz-content-sha256", payload.clone()));
    request.headers.push(("x-amz-date", moment.to_owned()));
    if let Some(token) = &credentials.token {
        request.headers.push(("x-amz-security-token", token.clone()));
    }
    request.headers.sort_unstable();
    let lines: String = request.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names = request.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let (path, query) = (encoded_path(request.path), canonical_query(request.query));
    let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{payload}", request.method);
    let day = moment.get(..8).unwrap_or(moment);
    let scope = format!("{day}/{region}/s3/aws4_request");
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let statement = format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}");
    let first = format!("AWS4{}", credentials.secret);
    let key = [day, region, "s3", "aws4_request"].iter().fold(first.into_bytes(), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &statement));
    let word = format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}", credentials.key_id);
    request.headers.push(("authorization", word));
    request.headers
}

/// The checksum of a body, as S3 wants and gives it.
pub(super) fn checksum(body: &[u8]) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, body))
}

fn encoded_path(path: &str) -> String {
    path.split('/').map(|part| utf8_percent_encode(part, UNRESERVED).to_string()).collect::<Vec<_>>().join("/")
}

fn canonical_query(query: &[(&str, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let mut pairs: Vec<String> = query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification: a part of an object, and a list.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let credentials =
            Credentials { key_id: "AKIAIOSFODNN7EXAMPLE".into(), secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(), token: None };
        let host = ("host", "examplebucket.s3.amazonaws.com".to_owned());
        let list = [("prefix", "J".to_owned()), ("max-keys", "2".to_owned())];
        let cases = [
            (
                "/test.txt",
                &[][..],
                vec![host.clone(), ("range", "bytes=0-9".into())],
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            ("/", &list, vec![host], "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ];
        for (path, query, headers, signature) in cases {
            let request = Unsigned { method: "GET", path, query, headers, body: b"" };
            let signed = sign(request, &credentials, "us-east-1", "20130524T000000Z");
            let (_, word) = signed.iter().find(|(name, _)| *name == "authorization").unwrap();
            assert!(word.ends_with(&format!("Signature={signature}")), "{word}");
        }
        assert_eq!(target("/a b/ü", &[("z", "1&2".into()), ("a", String::new())]), "/a%20b/%C3%BC?a=&z=1%262");
    }
}
