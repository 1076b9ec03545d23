//! An object store of a test's own: moto, which speaks S3 and IAM and keeps everything in memory.
//!
//! It knows versions, locks and conditional writes, and, once told to, checks signatures and what the holder of a key may do.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use mobo_adapters::vault::s3::{Credentials, S3Settings};

use crate::cluster::quiet_address;
use crate::http::Client;
use crate::process::Handle;
use crate::wait;

/// The variable that names its program; `tests/run` sets it.
pub const VARIABLE: &str = "MOBO_TEST_MOTO";
/// Where `tests/run` puts it below the home folder.
const PLACE: &str = ".cache/mobo-tests/moto-5.2.5/bin/moto_server";

/// A running store. Dropping it kills it, and everything in it is gone.
#[derive(Debug)]
pub struct S3 {
    address: String,
    _running: Handle,
}

impl S3 {
    /// Starts one that lets anybody in.
    ///
    /// # Panics
    ///
    /// When it is not installed, or does not start.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let program = std::env::var_os(VARIABLE).map_or_else(|| home.join(PLACE), PathBuf::from);
        assert!(program.is_file(), "there is no {}: run tests/run, which installs it", program.display());
        let address = quiet_address();
        let port = address.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
        // It must not outlive a test that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(["-H", "127.0.0.1", "-p", &port]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("setpriv starts");
        let running = Handle::new(child);
        wait::until("moto to answer", Duration::from_secs(120), || TcpStream::connect(&address).ok());
        Self { address, _running: running }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Makes a bucket; with object lock, if wanted.
    ///
    /// # Panics
    ///
    /// When the store says no.
    #[track_caller]
    pub fn bucket(&self, name: &str, locks: bool) {
        let headers: &[(&str, &str)] = if locks { &[("x-amz-bucket-object-lock-enabled", "true")] } else { &[] };
        let answer = Client::new(&self.address).send("PUT", &format!("/{name}"), headers, b"").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Makes a user who may do these things everywhere, and gives its key.
    ///
    /// # Panics
    ///
    /// When the store says no.
    #[must_use]
    #[track_caller]
    pub fn user(&self, name: &str, actions: &[&str]) -> Credentials {
        self.iam(&format!("Action=CreateUser&UserName={name}"));
        let actions: Vec<String> = actions.iter().map(|action| format!("%22{action}%22")).collect();
        let policy = format!(
            "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%5B{}%5D%2C\
             %22Resource%22%3A%22%2A%22%7D%5D%7D",
            actions.join("%2C")
        );
        self.iam(&format!("Action=PutUserPolicy&UserName={name}&PolicyName=p&PolicyDocument={policy}"));
        let answer = self.iam(&format!("Action=CreateAccessKey&UserName={name}"));
        let part = |tag: &str| {
            let (_, rest) = answer.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("no {tag}: {answer}"));
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        Credentials { key_id: part("AccessKeyId"), secret: part("SecretAccessKey"), token: None }
    }

    /// From now on, checks who asks and what they may do.
    ///
    /// # Panics
    ///
    /// When the store says no.
    #[track_caller]
    pub fn enforce(&self) {
        let answer = Client::new(&self.address).send("POST", "/moto-api/reset-auth", &[], b"0").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Settings for a bucket, reached at `address` (this one's own, or a way to it).
    ///
    /// # Panics
    ///
    /// For what is no bucket.
    #[must_use]
    #[track_caller]
    pub fn settings(url: &str, address: &str, credentials: Credentials) -> S3Settings {
        S3Settings::parse(url, &format!("http://{address}"), "us-east-1", credentials).expect("settings")
    }

    /// Credentials for a store that lets anybody in.
    #[must_use]
    pub fn anybody() -> Credentials {
        Credentials { key_id: "anybody".to_owned(), secret: "secret".to_owned(), token: None }
    }

    #[track_caller]
    fn iam(&self, body: &str) -> String {
        let scope = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
        let headers = [("authorization", scope), ("content-type", "application/x-www-form-urlencoded")];
        let answer = Client::new(&self.address).send("POST", "/", &headers, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }
}
