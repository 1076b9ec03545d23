//! TLS on the API's own address: a certificate and its key from two files, read again when they change.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use mobo_core::limits;
use mobo_gate::serve::{Private, Secure};
use mobo_runtime::component::BoxFuture;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Two files, and what was read of them.
#[derive(Debug)]
pub(super) struct Certificates {
    files: [PathBuf; 2],
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
    looked: Mutex<Looked>,
}

/// When the files were looked at, and when they had been written.
#[derive(Debug)]
struct Looked {
    at: Instant,
    written: [Option<SystemTime>; 2],
}

/// What callers are shown now.
struct Shown(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(..)")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Certificates {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// A sentence: a file is not there, holds no certificate or key, or they do not belong together.
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = [certificate.to_owned(), key.to_owned()];
        let looked = Looked { at: Instant::now(), written: files.each_ref().map(|file| written(file)) };
        let shown = Arc::new(Shown(RwLock::new(Arc::new(read(&files, &provider)?))));
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, shown, config: Arc::new(config), looked: Mutex::new(looked) })
    }

    /// Reads the files again where they have changed, at most every [`limits::TLS_LOOK`]. What cannot be read leaves what is shown.
    fn look(&self) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.at.elapsed() < limits::TLS_LOOK {
                return;
            }
            looked.at = Instant::now();
            let written = self.files.each_ref().map(|file| written(file));
            if std::mem::replace(&mut looked.written, written) == written {
                return;
            }
        }
        match read(&self.files, self.config.crypto_provider()) {
            Ok(key) => {
                *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!("the certificate was read again");
            }
            Err(error) => tracing::warn!(%error, "the certificate has changed and cannot be read: the one before it stays"),
        }
    }
}

fn written(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|about| about.modified()).ok()
}

fn read([certificate, key]: &[PathBuf; 2], provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let wrong = |file: &Path, error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| wrong(certificate, &error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"there is no certificate in it"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    CertifiedKey::from_der(chain, secret, provider)
        .map_err(|error| wrong(key, &format!("the key does not go with the certificate: {error}")))
}

impl Secure for Certificates {
    fn secure(&self, stream: TcpStream) -> BoxFuture<'static, io::Result<Private>> {
        self.look();
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        Box::pin(async move {
            let stream = acceptor.accept(stream).await?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(Private { stream: Box::new(stream), is_http2 })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use mobo_gate::Settings;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A certificate of its own for `localhost`, written into both files, with a time of its own.
    fn write(folder: &Path, age: u64) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (name, text) in [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())] {
            fs::write(folder.join(name), text).unwrap();
            let file = fs::File::options().write(true).open(folder.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        made.cert.der().clone()
    }

    /// What somebody who trusts only that certificate is answered.
    async fn asked(address: std::net::SocketAddr, trusted: &CertificateDer<'static>, alpn: &[u8]) -> Result<String, String> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("localhost").unwrap(), stream).await;
        let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
        let request = hyper::Request::get("https://localhost/").header("host", "localhost").body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = if alpn == b"h2" {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        Ok(String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn callers_are_shown_what_the_files_hold_now() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path(), 60);
        let certificates = Arc::new(Certificates::open(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap());
        let settings = Settings { secure: Some(Arc::clone(&certificates) as _), ..Settings::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let version = |request: axum::extract::Request| async move { format!("{:?}", request.version()) };
        let served = tokio::spawn(async move {
            mobo_gate::serve::serve(listener, Router::new().route("/", get(version)), &settings, std::future::pending()).await
        });
        assert_eq!(asked(address, &first, b"http/1.1").await.unwrap(), "HTTP/1.1");
        assert_eq!(asked(address, &first, b"h2").await.unwrap(), "HTTP/2.0");
        // Another certificate takes the place of the first as soon as somebody looks.
        let second = write(folder.path(), 30);
        certificates.looked.lock().unwrap().at -= limits::TLS_LOOK;
        assert_eq!(asked(address, &second, b"h2").await.unwrap(), "HTTP/2.0");
        assert!(asked(address, &first, b"h2").await.is_err(), "the first is not shown any more");
        // A file that is none changes nothing.
        fs::write(folder.path().join("key.pem"), "no key").unwrap();
        certificates.looked.lock().unwrap().at -= limits::TLS_LOOK;
        assert_eq!(asked(address, &second, b"http/1.1").await.unwrap(), "HTTP/1.1");
        served.abort();
    }

    #[test]
    fn what_is_no_certificate_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let said = || Certificates::open(&certificate, &key).map(drop).unwrap_err();
        assert!(said().contains("cert.pem"));
        write(folder.path(), 9);
        fs::write(&certificate, "nothing").unwrap();
        assert!(said().contains("there is no certificate in it"));
        write(folder.path(), 9);
        let mine = fs::read(&key).unwrap();
        write(folder.path(), 9);
        fs::write(&key, mine).unwrap();
        assert!(said().contains("does not go with"), "{}", said());
    }
}
