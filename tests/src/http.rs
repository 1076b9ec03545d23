//! A small HTTP/1.1 client: one connection, kept alive, and nothing done behind the test's back. It never repeats a request,
//! so a test of exactly-once knows what was sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for a connection, and for each part of an answer.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A client of one address.
#[derive(Debug)]
pub struct Client {
    address: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of `address` (`127.0.0.1:8000`); connects with the first request.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: address.into(), headers: Vec::new(), timeout: TIMEOUT, connection: None }
    }

    /// Sends this header with every request; a request's own header of that name wins.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Longest wait; [`TIMEOUT`] by default.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends a GET.
    ///
    /// # Errors
    ///
    /// When there is no connection, or no whole answer in time.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, &[], b"")
    }

    /// Sends a POST with a JSON body.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). Whether the node took the request is unknown then.
    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.send("POST", path, &[JSON], body.to_string().as_bytes())
    }

    /// Sends a PATCH with a JSON body.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). Whether the node took the request is unknown then.
    pub fn patch(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.send("PATCH", path, &[JSON], body.to_string().as_bytes())
    }

    /// Sends a DELETE.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). Whether the node took the request is unknown then.
    pub fn delete(&mut self, path: &str) -> io::Result<Answer> {
        self.send("DELETE", path, &[], b"")
    }

    /// Sends any request.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). Whether the node took the request is unknown then.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        let own = headers.iter().copied();
        let standing = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let standing = standing.filter(|(name, _)| !headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
        for (name, value) in own.chain(standing) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");

        let mut connection = self.connection()?;
        connection.get_mut().write_all(&[request.as_bytes(), body].concat())?;
        let (answer, reusable) = Answer::read(&mut connection, method)?;
        if reusable {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// The kept connection, unless the other side has closed it meanwhile; else a new one.
    fn connection(&mut self) -> io::Result<BufReader<TcpStream>> {
        if let Some(connection) = self.connection.take() {
            connection.get_ref().set_nonblocking(true)?;
            let silent = matches!(connection.get_ref().peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            connection.get_ref().set_nonblocking(false)?;
            if silent {
                return Ok(connection);
            }
        }
        Ok(BufReader::new(connect(&self.address, self.timeout)?))
    }
}

/// Sends `bytes` as they are and returns what comes back until the other side closes: for requests that no client would send.
///
/// # Errors
///
/// When there is no connection, or the other side is silent for longer than [`TIMEOUT`] without closing.
pub fn raw(address: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(address, TIMEOUT)?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the first header called `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the answer {} is not JSON ({error}): {}", self.status, self.text()))
    }

    /// Goes on when the status is `status`.
    ///
    /// # Panics
    ///
    /// When it is not, with the body.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "the answer says: {}", self.text());
        self
    }

    /// Whether header `name` has the value `value`.
    fn says(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|header| header.eq_ignore_ascii_case(value))
    }

    /// Reads one answer, and tells whether another may follow on this connection.
    fn read(from: &mut impl BufRead, method: &str) -> io::Result<(Self, bool)> {
        let mut from = from.take(ANSWER_BYTES_MAX);
        let line = read_line(&mut from)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| malformed(format!("no status line: {line:?}")))?;
        let mut answer = Self { status, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = read_line(&mut from)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(format!("no header: {line:?}")))?;
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reusable = !answer.says("connection", "close");
        if method == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304) {
            return Ok((answer, reusable));
        }
        if answer.says("transfer-encoding", "chunked") {
            while let bytes @ 1.. = read_chunk_size(&mut from)? {
                read_exactly(&mut from, bytes, &mut answer.body)?;
                read_line(&mut from)?;
            }
            while !read_line(&mut from)?.is_empty() {}
        } else if let Some(length) = answer.header("content-length") {
            let bytes = length.parse().map_err(|_| malformed(format!("content-length: {length:?}")))?;
            read_exactly(&mut from, bytes, &mut answer.body)?;
        } else {
            from.read_to_end(&mut answer.body)?;
            reusable = false;
        }
        Ok((answer, reusable))
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let address = address.to_socket_addrs()?.next().ok_or_else(|| malformed(format!("no address: {address:?}")))?;
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection closed inside an answer")),
    }
}

fn read_chunk_size(from: &mut impl BufRead) -> io::Result<u64> {
    let line = read_line(from)?;
    let size = line.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(size, 16).map_err(|_| malformed(format!("no chunk size: {line:?}")))
}

fn read_exactly(from: &mut impl Read, bytes: u64, into: &mut Vec<u8>) -> io::Result<()> {
    match from.take(bytes).read_to_end(into)? as u64 == bytes {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection closed inside a body")),
    }
}

fn malformed(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
