//! A way to an object store that does not tell the truth: it fails, dawdles, cuts, forgets, and says yes where it means no.
//!
//! It carries one request of a connection at a time, and draws for each what becomes of it. Conditions it lets the store decide honestly: one
//! creation after the other. Nothing that it does would be a fault of the
//! store: everything of it happens between a hub and a store that is far away and busy.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::seed::Rng;

/// What may become of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lie {
    /// 503 at once; the store never hears of it.
    Busy,
    /// 200 with an error in it; the store never hears of it.
    YesMeansNo,
    /// The store does it, and the answer is lost.
    AnswerLost,
    /// The connection ends in the middle of the request.
    CutRequest,
    /// The connection ends after some bytes of the answer.
    CutAnswer,
    /// No answer for longer than anybody waits.
    Slow,
    /// A list as it was when this was asked first.
    StaleList,
    /// There is no room for what is written; reading goes on.
    Full,
}

/// All that pass by themselves.
pub const LIES: [Lie; 7] = [Lie::Busy, Lie::YesMeansNo, Lie::AnswerLost, Lie::CutRequest, Lie::CutAnswer, Lie::Slow, Lie::StaleList];

/// One such way; it ends when this is dropped.
#[derive(Debug)]
pub struct Liar {
    /// Where to connect instead of to the store.
    pub address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: String,
    rng: Mutex<Rng>,
    percent: AtomicU64,
    lies: Mutex<Vec<Lie>>,
    told: AtomicU64,
    /// What was listed first, for each question.
    lists: Mutex<Vec<(String, Vec<u8>)>>,
    patience: Duration,
    /// Held while a name is created under a condition: of many, one is first.
    creating: Mutex<()>,
    ended: AtomicBool,
}

impl Liar {
    /// A way to `store` that lies in so many of 100 requests, with one of `lies`; `patience` is what nobody has.
    ///
    /// # Panics
    ///
    /// When there is no port.
    #[must_use]
    #[track_caller]
    pub fn before(store: &str, (percent, lies): (u64, &[Lie]), rng: Rng, patience: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared {
            store: store.to_owned(),
            rng: Mutex::new(rng),
            percent: AtomicU64::new(percent),
            lies: Mutex::new(lies.to_vec()),
            told: AtomicU64::new(0),
            lists: Mutex::default(),
            patience,
            creating: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // Whatever goes wrong with a connection, the client sees its end.
                std::thread::spawn(move || drop(shared.serve(connection)));
            }
        });
        Self { address, shared }
    }

    /// From now on it lies in so many of 100 requests.
    pub fn set(&self, percent: u64) {
        self.shared.percent.store(percent, Ordering::Relaxed);
    }

    /// From now on nothing but this, for every request.
    pub fn only(&self, lie: Lie) {
        *self.shared.lies.lock().unwrap_or_else(PoisonError::into_inner) = vec![lie];
        self.set(100);
    }

    /// How many lies it has told.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.shared.told.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes whoever waits for a connection.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn serve(&self, connection: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        while let Some(request) = read_request(&mut reader)? {
            let mut connection = &connection;
            match self.draw() {
                None => connection.write_all(&self.forward(&request)?)?,
                // A head has no room for an error behind a yes.
                Some(Lie::YesMeansNo) if !request.is_head() => connection.write_all(&answer("200 OK", "InternalError", true))?,
                Some(Lie::Busy | Lie::YesMeansNo) => connection.write_all(&answer("503 Slow Down", "SlowDown", !request.is_head()))?,
                Some(Lie::Full) if request.writes() => {
                    connection.write_all(&answer("507 Insufficient Storage", "XMinioStorageFull", true))?
                }
                Some(Lie::Full) => connection.write_all(&self.forward(&request)?)?,
                Some(Lie::AnswerLost) => {
                    self.forward(&request)?;
                    break;
                }
                // A store does nothing with a request that does not come whole; this one would keep what came, so it hears nothing.
                Some(Lie::CutRequest) => break,
                Some(Lie::CutAnswer) => {
                    let whole = self.forward(&request)?;
                    connection.write_all(whole.get(..self.below(whole.len())).unwrap_or_default())?;
                    break;
                }
                Some(Lie::Slow) => {
                    // Until the client gives up, or nobody would wait any more.
                    connection.set_read_timeout(Some(self.patience))?;
                    let _ = reader.fill_buf();
                    break;
                }
                Some(Lie::StaleList) => {
                    let fresh = self.forward(&request)?;
                    connection.write_all(&self.stale(&request.line, fresh))?;
                }
            }
        }
        connection.shutdown(Shutdown::Both)
    }

    fn draw(&self) -> Option<Lie> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let lie = rng.chance(self.percent.load(Ordering::Relaxed)).then(|| {
            let lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
            *rng.pick(&lies)
        })?;
        self.told.fetch_add(1, Ordering::Relaxed);
        Some(lie)
    }

    fn below(&self, bound: usize) -> usize {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).below(bound as u64) as usize
    }

    /// The list that was given to this question first; any other answer as it is.
    fn stale(&self, line: &str, fresh: Vec<u8>) -> Vec<u8> {
        let is_list = line.contains("list-type=2") && fresh.windows(16).any(|part| part == b"ListBucketResult");
        if !is_list {
            return fresh;
        }
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, old)) = lists.iter().find(|(known, _)| known == line) {
            return old.clone();
        }
        lists.push((line.to_owned(), fresh.clone()));
        fresh
    }

    /// Sends a request to the store, and gives its whole answer.
    fn forward(&self, request: &Request) -> io::Result<Vec<u8>> {
        // A store decides on a condition at once; the one behind this looks first and writes then, so nobody else may come in between.
        let conditional = request.head.contains("\nif-none-match:");
        let _one_at_a_time = conditional.then(|| self.creating.lock().unwrap_or_else(PoisonError::into_inner));
        let mut store = TcpStream::connect(&self.store)?;
        store.set_read_timeout(Some(Duration::from_secs(60)))?;
        store.write_all(&request.bytes)?;
        let mut reader = BufReader::new(store);
        let (head, length) = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let has_body = !request.is_head() && !head.starts_with(b"HTTP/1.1 204");
        let mut body = vec![0; if has_body { length.unwrap_or(0) } else { 0 }];
        reader.read_exact(&mut body)?;
        Ok([head, body].concat())
    }
}

struct Request {
    /// The first line.
    line: String,
    /// All lines of the head, in small letters.
    head: String,
    bytes: Vec<u8>,
}

impl Request {
    fn is_head(&self) -> bool {
        self.line.starts_with("HEAD ")
    }

    fn writes(&self) -> bool {
        self.line.starts_with("PUT ") || self.line.starts_with("POST ")
    }
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some((head, length)) = read_head(reader)? else { return Ok(None) };
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let lines = String::from_utf8_lossy(&head).to_ascii_lowercase();
    Ok(Some(Request { line, head: lines, bytes: [head, body].concat() }))
}

/// The head of a message, and how long its body is.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(Vec<u8>, Option<usize>)>> {
    let (mut head, mut length) = (Vec::new(), None);
    loop {
        let start = head.len();
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(head.get(start..).unwrap_or_default()).trim().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some((head, length)));
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().ok();
        }
    }
}

fn answer(status: &str, code: &str, with_body: bool) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>come again</Message></Error>");
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n", body.len());
    if with_body { [head, body].concat().into_bytes() } else { head.into_bytes() }
}
