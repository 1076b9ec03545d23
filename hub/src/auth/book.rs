//! The audit log: what was done about security, by whom, each line bound to the one before by a hash.
//!
//! ```text
//! hash(n) = blake3(hash(n-1) ‖ canonical JSON of [project, n, at, event, actor, subject, detail])      hash(0) = 32 zeros
//! ```
//! A line that belongs to a change is written in the same transaction. Whoever keeps the last hash elsewhere can tell that nothing before it
//! was changed or taken out.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_adapters::desk::{Cell, Desk, Done, Outcome, Statement};
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::store::StoreError;
use mobo_core::time::Eff;
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

use super::rows::{bytes, int, number, text, time, word};
use super::{Accounts, AuthError, Missed};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What, as in `sign_in.refused`.
    pub event: &'static str,
    /// Who did it: `user:ID`, `key:NAME`, `operator`, `hub`, `stranger`.
    pub actor: String,
    /// To what: an account, a key, a role, a device.
    pub subject: String,
    /// More; never a secret.
    pub detail: Json,
}

impl Event {
    /// What somebody did.
    #[must_use]
    pub fn new(event: &'static str, actor: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { event, actor: actor.into(), subject: subject.into(), detail: json!({}) }
    }

    /// What the hub did by itself.
    #[must_use]
    pub fn by_hub(event: &'static str, subject: impl Into<String>) -> Self {
        Self::new(event, "hub", subject)
    }

    /// With more about it.
    #[must_use]
    pub fn with(mut self, detail: Json) -> Self {
        self.detail = detail;
        self
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its number.
    pub n: i64,
    /// When, by the hub's time.
    pub at: Eff,
    /// What; see [`Event`].
    pub event: String,
    /// Who.
    pub actor: String,
    /// To what.
    pub subject: String,
    /// More, as JSON text in its canonical form.
    pub detail: String,
    /// Over the line before and all of this.
    pub hash: [u8; 32],
}

impl Line {
    fn read(row: &[Cell]) -> Option<Self> {
        Some(Self {
            n: number(row, 0)?,
            at: Eff(number(row, 1)?),
            event: word(row, 2)?,
            actor: word(row, 3)?,
            subject: word(row, 4)?,
            detail: word(row, 5)?,
            hash: bytes(row, 6)?.try_into().ok()?,
        })
    }

    fn hashed(&self, project: ProjectId, before: &[u8; 32]) -> [u8; 32] {
        let fields = json!([project.sql().to_string(), self.n, self.at.0, self.event, self.actor, self.subject, self.detail]);
        let mut hasher = blake3::Hasher::new();
        hasher.update(before).update(fields.to_string().as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// As it is printed and exported.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let detail: Json = serde_json::from_str(&self.detail).unwrap_or(Json::Null);
        let hash: String = self.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "n": self.n, "at": mobo_core::rfc3339::format(self.at.0), "event": self.event, "actor": self.actor, "subject": self.subject,
            "detail": detail, "hash": hash,
        })
    }
}

/// What a look at the whole chain found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verified {
    /// Lines that were looked at.
    pub lines: u64,
    /// The hash of the last one.
    pub head: [u8; 32],
    /// The first line that is not what it was, or follows one that is missing; `None` when all are whole.
    pub broken: Option<i64>,
}

/// Writes lines. Every project has a chain of its own.
#[derive(Debug)]
pub(super) struct Book {
    desk: Arc<dyn Desk>,
    heads: Mutex<BTreeMap<ProjectId, Head>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    n: i64,
    hash: [u8; 32],
    /// Notes in this minute, and which minute.
    notes: (i64, u32),
    /// Notes that were not written one by one.
    left_out: u64,
}

const LINES: &str =
    "SELECT n, at_us, event, actor, subject, detail, hash FROM mobo_audit WHERE project = $1 AND n > $2 ORDER BY n LIMIT $3";
const LAST: &str = "SELECT n, hash FROM mobo_audit WHERE project = $1 ORDER BY n DESC LIMIT 1";

impl Book {
    pub(super) fn new(desk: Arc<dyn Desk>) -> Self {
        Self { desk, heads: Mutex::default() }
    }

    /// Runs statements and writes the line, or nothing of both.
    pub(super) async fn commit(
        &self,
        project: ProjectId,
        statements: Vec<Statement>,
        (event, at): (Event, Eff),
    ) -> Result<Vec<Done>, Missed> {
        let mut heads = self.heads.lock().await;
        for _ in 0..limits::AUDIT_ATTEMPTS {
            let head = match heads.get(&project) {
                Some(head) => *head,
                None => self.last(project).await?,
            };
            let line = line(project, &head, (&event, at));
            let mut all = statements.clone();
            all.push(insert(project, &line));
            match self.desk.run(all).await? {
                Outcome::Done(done) => {
                    heads.insert(project, Head { n: line.n, hash: line.hash, ..head });
                    return Ok(done);
                }
                // Another hub has written a line meanwhile.
                Outcome::Missed(at) if at == statements.len() => {
                    let fresh = self.last(project).await?;
                    heads.insert(project, Head { n: fresh.n, hash: fresh.hash, ..head });
                }
                Outcome::Missed(_) => return Err(Missed::Nothing),
            }
        }
        Err(StoreError::Unavailable("other hubs write to the audit log all the time".to_owned()).into())
    }

    /// Writes a line about something that changed nothing. Beyond so many a minute they are counted, and the number is in the next one.
    pub(super) async fn note(&self, project: ProjectId, (event, at): (Event, Eff)) -> Result<(), AuthError> {
        let minute = at.0.div_euclid(60_000_000);
        let left_out = {
            let mut heads = self.heads.lock().await;
            let mut head = match heads.get(&project) {
                Some(head) => *head,
                None => self.last(project).await?,
            };
            let (since, count) = head.notes;
            head.notes = if since == minute { (minute, count.saturating_add(1)) } else { (minute, 1) };
            let full = head.notes.1 > limits::AUDIT_NOTES_PER_MINUTE;
            head.left_out = if full { head.left_out.saturating_add(1) } else { head.left_out };
            let left_out = if full { None } else { Some(std::mem::take(&mut head.left_out)) };
            heads.insert(project, head);
            left_out
        };
        let Some(left_out) = left_out else { return Ok(()) };
        let event = match (left_out, event.detail) {
            (1.., Json::Object(mut detail)) => {
                detail.insert("left_out_before".to_owned(), left_out.into());
                Event { detail: detail.into(), ..event }
            }
            (_, detail) => Event { detail, ..event },
        };
        self.commit(project, Vec::new(), (event, at)).await.map(drop).map_err(|missed| missed.or(AuthError::Busy))
    }

    async fn last(&self, project: ProjectId) -> Result<Head, StoreError> {
        let found = match self.desk.run(vec![Statement::new(LAST, [int(project)])]).await? {
            Outcome::Done(done) => done.first().and_then(|done| done.rows.first()).cloned(),
            Outcome::Missed(_) => None,
        };
        let Some(row) = found else { return Ok(Head::default()) };
        let hash = bytes(&row, 1).and_then(|hash| hash.try_into().ok());
        let damaged = || StoreError::Damaged("a line of the audit log cannot be read".to_owned());
        Ok(Head { n: number(&row, 0).ok_or_else(damaged)?, hash: hash.ok_or_else(damaged)?, ..Head::default() })
    }
}

fn line(project: ProjectId, head: &Head, (event, at): (&Event, Eff)) -> Line {
    let detail = serde_json_canonicalizer::to_string(&event.detail).unwrap_or_else(|_| "{}".to_owned());
    let mut line = Line {
        n: head.n + 1,
        at,
        event: event.event.to_owned(),
        actor: clean(&event.actor),
        subject: clean(&event.subject),
        detail,
        hash: [0; 32],
    };
    line.hash = line.hashed(project, &head.hash);
    line
}

/// What strangers sent is kept short and without control characters.
fn clean(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(limits::NAME_BYTES_MAX).collect()
}

fn insert(project: ProjectId, line: &Line) -> Statement {
    const INSERT: &str = "INSERT INTO mobo_audit(project, n, at_us, event, actor, subject, detail, hash) \
                          VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (project, n) DO NOTHING";
    let words = [&line.event, &line.actor, &line.subject, &line.detail].map(|word| text(word.as_str()));
    let cells = [int(project), Cell::Int(line.n), time(line.at)].into_iter().chain(words).chain([Cell::Bytes(line.hash.to_vec())]);
    Statement::must(INSERT, cells)
}

impl Accounts {
    /// Writes down what was done elsewhere in the hub: to a key, a device, a collection.
    ///
    /// # Errors
    ///
    /// The store's: what was done is done, and is not in the log.
    pub async fn record(&self, project: ProjectId, event: Event) -> Result<(), AuthError> {
        self.book.commit(project, Vec::new(), (event, self.now())).await.map(drop).map_err(|missed| missed.or(AuthError::Busy))
    }

    /// Lines behind `after`, the oldest first.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn audit(&self, project: ProjectId, after: i64, limit: u32) -> Result<Vec<Line>, StoreError> {
        let rows = self.read(LINES, [int(project), Cell::Int(after), Cell::Int(i64::from(limit))]).await?;
        let damaged = || StoreError::Damaged("a line of the audit log cannot be read".to_owned());
        rows.iter().map(|row| Line::read(row).ok_or_else(damaged)).collect()
    }

    /// Computes the whole chain again.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn verify_audit(&self, project: ProjectId) -> Result<Verified, StoreError> {
        let mut verified = Verified { lines: 0, head: [0; 32], broken: None };
        let mut n = 0;
        loop {
            let lines = self.audit(project, n, limits::CONTROL_PAGE_ROWS_MAX).await?;
            let Some(last) = lines.last().map(|line| line.n) else { return Ok(verified) };
            for line in lines {
                n += 1;
                if line.n != n || line.hash != line.hashed(project, &verified.head) {
                    verified.broken = Some(line.n);
                    return Ok(verified);
                }
                (verified.lines, verified.head) = (verified.lines + 1, line.hash);
            }
            n = last;
        }
    }
}
