//! Writing over HTTP, several at a time, as apps do: every answer goes to the judge the moment it is there.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::http::{Answer, Client, Lost};
use super::journal::{Change, Entry, Journal, Outcome, Written};
use super::plan::{Choices, Task, gaps};
use super::wait::Interrupt;

/// Requests that are under way at one node at the same time.
const WRITERS: usize = 4;

/// Where to write.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The node's name.
    pub(super) name: &'static str,
    /// Its API.
    pub(super) http: SocketAddr,
    /// The key for it, where one is needed.
    pub(super) key: Option<String>,
}

impl Target {
    /// A client of it.
    pub(super) fn client(&self) -> Client {
        Client::new(self.http, self.key.clone())
    }
}

/// Those who write, in one round.
pub(super) struct Crew<'a, W> {
    /// Who is told.
    pub(super) journal: &'a Journal<W>,
    /// The round.
    pub(super) round: u32,
    /// Ends the writing.
    pub(super) interrupt: &'a Interrupt,
    /// Called after every acknowledged write.
    pub(super) progress: &'a (dyn Fn() + Sync),
    /// Writes that were acknowledged in this round.
    pub(super) done: AtomicUsize,
}

impl<W> std::fmt::Debug for Crew<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("round", &self.round).field("done", &self.done).finish_non_exhaustive()
    }
}

/// How the writing ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// What was not sent, because the node has gone.
    pub(super) left: Vec<Task>,
    /// True when the node has gone.
    pub(super) node_gone: bool,
}

impl<W: Write + Send> Crew<'_, W> {
    /// Carries out the tasks at one node. Tasks of one record are done in their order, one after the other.
    ///
    /// # Errors
    ///
    /// When the node refuses one, or the judge is not there.
    pub(super) fn write(&self, target: &Target, tasks: Vec<Task>) -> anyhow::Result<Ended> {
        let mut shares: [Vec<Task>; WRITERS] = Default::default();
        for task in tasks {
            let sum: usize = task.id.bytes().map(usize::from).sum();
            if let Some(share) = shares.get_mut(sum % WRITERS) {
                share.push(task);
            }
        }
        std::thread::scope(|scope| {
            let threads = shares.map(|share| scope.spawn(|| self.share(target, share)));
            let mut all = Ended::default();
            for thread in threads {
                let Ok(ended) = thread.join() else { bail!("a writer panicked") };
                let ended = ended?;
                all.node_gone |= ended.node_gone;
                all.left.extend(ended.left);
            }
            Ok(all)
        })
    }

    fn share(&self, target: &Target, tasks: Vec<Task>) -> anyhow::Result<Ended> {
        let mut writer = Writer { client: target.client(), choices: Choices::new(tasks.len() as u64) };
        let mut tasks = tasks.into_iter();
        while let Some(task) = tasks.next() {
            self.interrupt.check()?;
            let body = match writer.body(&task) {
                Ok(body) => body,
                Err(error) if error.is::<Lost>() => return Ok(gone(Some(task), tasks)),
                Err(error) => return Err(error.context(format!("{} cannot be read", target.name))),
            };
            let sent_us = self.journal.now_us();
            let answer = writer.send(&task, &body);
            let outcome = match &answer {
                Ok(answer) => acknowledged(answer)
                    .map(|()| Outcome::Acknowledged)
                    .with_context(|| format!("{} refused {} {} {body}", target.name, task.collection, task.id))?,
                Err(Lost::Unsent(_)) => return Ok(gone(Some(task), tasks)),
                Err(Lost::Unknown(_)) => Outcome::Unknown,
            };
            let write = Written::Record { collection: task.collection.to_owned(), id: task.id, fields: task.fields };
            let (origin, known_us) = (target.name.to_owned(), self.journal.now_us());
            self.journal.tell(&Entry { origin, round: self.round, sent_us, known_us, outcome, write }).context("the judge has gone")?;
            if outcome == Outcome::Unknown {
                return Ok(gone(None, tasks));
            }
            self.done.fetch_add(1, Ordering::SeqCst);
            (self.progress)();
        }
        Ok(Ended::default())
    }
}

fn gone(first: Option<Task>, rest: impl Iterator<Item = Task>) -> Ended {
    Ended { left: first.into_iter().chain(rest).collect(), node_gone: true }
}

/// Only a write that the node says is durable counts: a status of success alone may mean that there was nothing to do.
pub(super) fn acknowledged(answer: &Answer) -> anyhow::Result<()> {
    match (answer.status, &answer.ack) {
        (200..=299, Some(_)) => Ok(()),
        (status, ack) => bail!("it answered {status} with ack {ack:?}: {}", answer.text()),
    }
}

struct Writer {
    client: Client,
    choices: Choices,
}

impl Writer {
    fn send(&mut self, task: &Task, body: &Value) -> Result<Answer, Lost> {
        if task.creates {
            return self.client.send("POST", &format!("/rest/v1/{}", task.collection), Some(body));
        }
        self.client.send("PATCH", &format!("/rest/v1/{}?id=eq.{}", task.collection, task.id), Some(body))
    }

    /// The task as the API takes it.
    fn body(&mut self, task: &Task) -> anyhow::Result<Value> {
        let mut body = Map::new();
        if task.creates {
            body.insert("id".to_owned(), json!(task.id));
        }
        for (field, change) in &task.fields {
            let value = match change {
                Change::Set(value) => value.clone(),
                Change::Add(number) => json!({ "$inc": number }),
                Change::Push(item) if task.creates => json!([item]),
                Change::Push(item) => json!({ "$push": [item] }),
                Change::Insert(sentence) if task.creates => json!(format!("{sentence} ")),
                Change::Insert(sentence) => {
                    let gaps = gaps(&self.text(task, field)?);
                    let at = gaps.get(self.choices.below(gaps.len())).copied().unwrap_or(0);
                    json!({ "$splice": [at, 0, format!("{sentence} ")] })
                }
            };
            body.insert(field.clone(), value);
        }
        Ok(Value::Object(body))
    }

    /// The text as the node shows it now. Nobody else writes to it at this node meanwhile.
    fn text(&mut self, task: &Task, field: &str) -> anyhow::Result<String> {
        let answer = self.client.send("GET", &format!("/rest/v1/{}?id=eq.{}&select={field}", task.collection, task.id), None)?;
        let json = answer.json();
        let text = json.get(0).and_then(|row| row.get(field)).and_then(Value::as_str);
        text.map(str::to_owned)
            .with_context(|| format!("{} {} is not to be seen: {} {}", task.collection, task.id, answer.status, answer.text()))
    }
}
