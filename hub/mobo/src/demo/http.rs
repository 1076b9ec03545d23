//! A small HTTP/1.1 client: one connection, kept alive. It never repeats a request, so that who calls knows what was sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for a connection, and for each part of an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest line of an answer's head.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// A client of one node.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    key: Option<String>,
    connection: Option<BufReader<TcpStream>>,
}

/// What a node answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// 200 and so on.
    pub(super) status: u16,
    /// How safe a write is, as the node says: `local` or `hub`. Absent when nothing was written.
    pub(super) ack: Option<String>,
    body: Vec<u8>,
}

/// Why there is no answer, by what is known of the request.
#[derive(Debug)]
pub(super) enum Lost {
    /// It was never sent.
    Unsent(io::Error),
    /// It was sent, or a part of it: the node may have carried it out.
    Unknown(io::Error),
}

impl Client {
    /// A client of `address`, which sends `key` when there is one; connects with the first request.
    pub(super) fn new(address: SocketAddr, key: Option<String>) -> Self {
        Self { address, key, connection: None }
    }

    /// Sends a request with a JSON body, or without one.
    pub(super) fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Lost> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(key) = &self.key {
            request.push_str(&format!("apikey: {key}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            request.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        let mut connection = self.connection().map_err(Lost::Unsent)?;
        connection.get_mut().write_all(request.as_bytes()).map_err(Lost::Unknown)?;
        let (answer, reusable) = read(&mut connection).map_err(Lost::Unknown)?;
        if reusable {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// The kept connection, unless the node has closed it meanwhile; else a new one.
    fn connection(&mut self) -> io::Result<BufReader<TcpStream>> {
        if let Some(connection) = self.connection.take() {
            let stream = connection.get_ref();
            stream.set_nonblocking(true)?;
            let is_silent = matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            stream.set_nonblocking(false)?;
            if is_silent {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(BufReader::new(stream))
    }
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text, for messages.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsent(error) => write!(f, "the request could not be sent: {error}"),
            Self::Unknown(error) => write!(f, "no answer came: {error}"),
        }
    }
}

impl std::error::Error for Lost {}

fn read(connection: &mut BufReader<TcpStream>) -> io::Result<(Answer, bool)> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let first = line(connection)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| wrong("this is no HTTP answer"))?;
    let (mut length, mut ack, mut reusable) = (0, None, true);
    loop {
        let header = line(connection)?;
        let Some((name, value)) = header.split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| wrong("the answer's length is no number"))?,
            "transfer-encoding" => return Err(wrong("the answer has no length")),
            "connection" => reusable = !value.eq_ignore_ascii_case("close"),
            "mobo-ack" => ack = Some(value.to_owned()),
            _ => {}
        }
    }
    if length > ANSWER_BYTES_MAX {
        return Err(wrong("the answer is too large"));
    }
    let mut body = Vec::new();
    if connection.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((Answer { status, ack, body }, reusable))
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    connection.take(LINE_BYTES_MAX).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What the client makes of these bytes, sent by a server that then closes.
    #[track_caller]
    fn check(sent: &'static str, want: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            while !line(&mut reader).unwrap().is_empty() {}
            reader.get_mut().write_all(sent.as_bytes()).unwrap();
        });
        let shown = match Client::new(address, None).send("GET", "/", None) {
            Ok(answer) => format!("{} {:?} {}", answer.status, answer.ack, answer.text()),
            Err(Lost::Unsent(_)) => "unsent".to_owned(),
            Err(Lost::Unknown(_)) => "unknown".to_owned(),
        };
        server.join().unwrap();
        assert_eq!(shown, want);
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        check("HTTP/1.1 201 Created\r\nContent-Length: 2\r\nMobo-Ack: local\r\n\r\n{}", "201 Some(\"local\") {}");
        check("HTTP/1.1 204 No Content\r\n\r\n", "204 None ");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", "unknown");
        check("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "unknown");
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "unknown");
        check("nonsense\r\n\r\n", "unknown");
        check("", "unknown");
    }

    #[test]
    fn a_request_to_nobody_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(Client::new(address, None).send("GET", "/", None), Err(Lost::Unsent(_))));
    }
}
