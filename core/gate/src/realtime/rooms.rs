//! Rooms in which clients talk to each other, and see who is there: what channels of either protocol are made of.
//!
//! They are in memory, and of one node. A note is put into the queue of everybody in the room at once; whose queue is full is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::limits;
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A client, for as long as its connection lives.
pub(super) type SocketNumber = u64;

/// What a client is sent.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// Text.
    Text(Arc<str>),
    /// Bytes.
    Binary(Arc<[u8]>),
    /// Its connection is to be closed.
    Close(u16, Arc<str>),
}

impl Note {
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Close(_, text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// The way to a client.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    notes: mpsc::Sender<Note>,
    full: Arc<AtomicBool>,
}

/// The client's end of it.
#[derive(Debug)]
pub(crate) struct Mail {
    notes: mpsc::Receiver<Note>,
    full: Arc<AtomicBool>,
}

pub(crate) fn mailbox() -> (Mailbox, Mail) {
    let (sender, notes) = mpsc::channel(limits::WS_QUEUE_MAX);
    let full = Arc::new(AtomicBool::new(false));
    (Mailbox { notes: sender, full: Arc::clone(&full) }, Mail { notes, full })
}

impl Mailbox {
    /// How many notes are in it.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.notes.max_capacity() - self.notes.capacity()
    }

    pub(crate) fn put(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.full.store(true, Ordering::Relaxed);
        }
    }
}

impl Mail {
    /// How many notes are there now.
    pub(super) fn waiting(&self) -> usize {
        self.notes.len()
    }

    /// The next note; `None` for a client that does not keep up with them.
    pub(super) async fn next(&mut self) -> Option<Note> {
        let note = self.notes.recv().await;
        if self.full.load(Ordering::Relaxed) { None } else { note }
    }
}

/// All rooms of a node.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Mutex<BTreeMap<String, Room>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Room {
    /// Tells this room from one of that name before it.
    stream: u64,
    serial: u64,
    seats: BTreeMap<SocketNumber, Seat>,
    /// The latest notes, with their numbers.
    history: VecDeque<Note>,
    /// When the last one went out; `None` while somebody is in.
    empty: Option<Instant>,
    /// What whoever comes in is shown, where the room has a memory.
    last: Option<Note>,
}

#[derive(Debug)]
struct Seat {
    mailbox: Mailbox,
    member: Option<Member>,
    numbered: bool,
}

/// Somebody who comes into a room.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) socket: SocketNumber,
    pub(super) mailbox: Mailbox,
    pub(super) member: Option<Member>,
    /// True for who wants the numbers of what is published.
    pub(super) numbered: bool,
}

/// Who somebody in a room says to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    /// By this name; several connections may have the same.
    pub(super) key: String,
    /// And this.
    pub(super) info: Json,
}

/// There is no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RoomFull;

/// A room as somebody finds it who comes in.
#[derive(Clone, Debug)]
pub(super) struct Entered {
    pub(super) members: Vec<(SocketNumber, Member)>,
    /// True where nobody in it was of the same name.
    pub(super) is_new: bool,
    /// Who this connection was in the room before, if nobody else of that name is still in.
    pub(super) gone: Option<Member>,
    pub(super) stream: u64,
    pub(super) serial: u64,
    pub(super) last: Option<Note>,
    /// True where nobody was in it.
    pub(super) is_first: bool,
}

/// What somebody leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Left {
    /// Who that was, if nobody else of that name is still in.
    pub(super) gone: Option<Member>,
    /// True where nobody is in the room any more, and somebody was.
    pub(super) is_last: bool,
}

impl Rooms {
    pub(super) fn number(&self) -> SocketNumber {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes in, or says something else of oneself.
    /// `stream` is the name of a room that is made for this.
    pub(super) fn enter(&self, name: &str, visitor: Visitor, stream: u64) -> Result<Entered, RoomFull> {
        self.enter_telling(name, (visitor, stream), |_| {})
    }

    /// The same, and `tell` is told of it before anybody else comes in or goes out: what it notes is in the order in which it happened. It must not
    /// wait.
    pub(super) fn enter_telling(
        &self,
        name: &str,
        (visitor, stream): (Visitor, u64),
        tell: impl FnOnce(&Entered),
    ) -> Result<Entered, RoomFull> {
        let Visitor { socket, mailbox, member, numbered } = visitor;
        let mut rooms = self.rooms();
        if !rooms.contains_key(name) {
            if rooms.len() >= limits::CHANNELS_MAX / 64 {
                rooms.retain(|_, room| room.empty.is_none_or(|since| since.elapsed() < limits::CHANNEL_LINGER));
            }
            if rooms.len() >= limits::CHANNELS_MAX {
                return Err(RoomFull);
            }
        }
        let room = rooms.entry(name.to_owned()).or_insert_with(|| Room {
            stream,
            serial: 0,
            seats: BTreeMap::new(),
            history: VecDeque::new(),
            empty: None,
            last: None,
        });
        let others: BTreeSet<&str> = room.members_but(socket).map(|member| member.key.as_str()).collect();
        let was = room.seats.get(&socket).and_then(|seat| seat.member.as_ref());
        let is_another = |a: &Member, b: Option<&Member>| !others.contains(a.key.as_str()) && b.is_none_or(|b| b.key != a.key);
        let is_new = member.as_ref().is_some_and(|member| is_another(member, was));
        let gone = was.filter(|was| is_another(was, member.as_ref())).cloned();
        if is_new && others.len() >= limits::PRESENCE_MEMBERS_MAX {
            return Err(RoomFull);
        }
        room.empty = None;
        let is_first = room.seats.is_empty();
        room.seats.insert(socket, Seat { mailbox, member, numbered });
        let members = room.members();
        let entered = Entered { members, is_new, gone, stream: room.stream, serial: room.serial, last: room.last.clone(), is_first };
        tell(&entered);
        Ok(entered)
    }

    /// Goes out; gives who that was, if nobody else of that name is still in.
    pub(super) fn leave(&self, name: &str, socket: SocketNumber) -> Option<Member> {
        self.leave_telling(name, socket, |_| {})
    }

    /// The same, and `tell` is told of it as by [`enter_telling`](Self::enter_telling).
    pub(super) fn leave_telling(&self, name: &str, socket: SocketNumber, tell: impl FnOnce(&Left)) -> Option<Member> {
        let mut rooms = self.rooms();
        let room = rooms.get_mut(name)?;
        let seat = room.seats.remove(&socket);
        let is_last = seat.is_some() && room.seats.is_empty();
        let member = seat.and_then(|seat| seat.member);
        let gone = member.filter(|member| room.members_but(socket).all(|other| other.key != member.key));
        tell(&Left { gone: gone.clone(), is_last });
        if room.seats.is_empty() {
            room.empty = Some(Instant::now());
            if room.history.is_empty() && room.last.is_none() {
                rooms.remove(name);
            }
        }
        gone
    }

    /// Tells everybody in a room but one. Gives how many that are.
    pub(super) fn tell(&self, name: &str, except: Option<SocketNumber>, note: &Note) -> usize {
        let rooms = self.rooms();
        let Some(room) = rooms.get(name) else { return 0 };
        let seats = room.seats.iter().filter(|(number, _)| Some(**number) != except);
        seats.inspect(|(_, seat)| seat.mailbox.put(note.clone())).count()
    }

    /// Tells everybody in a room how many they are.
    pub(super) fn tell_count(&self, name: &str, make: impl FnOnce(usize) -> Note) {
        let rooms = self.rooms();
        let Some(room) = rooms.get(name) else { return };
        let note = make(room.seats.len());
        room.seats.values().for_each(|seat| seat.mailbox.put(note.clone()));
    }

    /// How many connections are in a room.
    pub(super) fn count(&self, name: &str) -> usize {
        self.rooms().get(name).map_or(0, |room| room.seats.len())
    }

    /// The same with what is numbered and kept: `make` gets the stream and the number for those who want them. Gives how many were told.
    pub(super) fn publish(
        &self,
        name: &str,
        except: Option<SocketNumber>,
        remember: bool,
        make: impl Fn(Option<(u64, u64)>) -> Note,
    ) -> usize {
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(name) else { return 0 };
        room.serial += 1;
        let (plain, numbered) = (make(None), make(Some((room.stream, room.serial))));
        room.history.push_back(numbered.clone());
        while room.history.len() > limits::CHANNEL_HISTORY_MAX
            || room.history.iter().map(Note::bytes).sum::<usize>() > limits::CHANNEL_HISTORY_BYTES_MAX
        {
            room.history.pop_front();
        }
        if remember {
            room.last = Some(plain.clone());
        }
        let seats = room.seats.iter().filter(|(number, _)| Some(**number) != except);
        seats.inspect(|(_, seat)| seat.mailbox.put(if seat.numbered { numbered.clone() } else { plain.clone() })).count()
    }

    /// What was published in a room behind a number and up to another; `None` when it is not all there.
    pub(super) fn since(&self, name: &str, stream: u64, (serial, upto): (u64, u64)) -> Option<Vec<Note>> {
        let rooms = self.rooms();
        let room = rooms.get(name).filter(|room| room.stream == stream && serial <= upto && upto <= room.serial)?;
        let missed = usize::try_from(room.serial - serial).ok()?;
        let skip = room.history.len().checked_sub(missed)?;
        let wanted = usize::try_from(upto - serial).ok()?;
        Some(room.history.iter().skip(skip).take(wanted).cloned().collect())
    }

    /// Who is in a room.
    pub(super) fn members(&self, name: &str) -> Vec<(SocketNumber, Member)> {
        self.rooms().get(name).map(Room::members).unwrap_or_default()
    }

    /// Rooms in which somebody is, whose names begin so, with the number of connections in each.
    pub(super) fn occupied(&self, prefix: &str) -> Vec<(String, usize)> {
        let rooms = self.rooms();
        let with = rooms.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        with.filter(|(_, room)| !room.seats.is_empty()).map(|(name, room)| (name.clone(), room.seats.len())).collect()
    }
}

impl Room {
    /// Who is in it on other connections than that one.
    fn members_but(&self, socket: SocketNumber) -> impl Iterator<Item = &Member> {
        self.seats.iter().filter(move |(number, _)| **number != socket).filter_map(|(_, seat)| seat.member.as_ref())
    }

    fn members(&self) -> Vec<(SocketNumber, Member)> {
        self.seats.iter().filter_map(|(number, seat)| Some((*number, seat.member.clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(key: &str) -> Option<Member> {
        Some(Member { key: key.to_owned(), info: Json::Null })
    }

    fn visitor(socket: SocketNumber, mailbox: &Mailbox, member: Option<Member>) -> Visitor {
        Visitor { socket, mailbox: mailbox.clone(), member, numbered: true }
    }

    #[tokio::test]
    async fn a_room_counts_members_by_name() {
        let rooms = Rooms::default();
        let (mailbox, mut mail) = mailbox();
        let enter = |socket, key: &str| rooms.enter("r", visitor(socket, &mailbox, member(key)), 7).unwrap().is_new;
        assert_eq!([enter(1, "a"), enter(2, "a"), enter(3, "b")], [true, false, true]);
        assert_eq!(rooms.leave("r", 1), None, "a is still there");
        assert_eq!(rooms.leave("r", 2), member("a"));
        assert_eq!(rooms.tell("r", Some(3), &Note::text("x")), 0);
        assert_eq!(rooms.tell("r", None, &Note::text("x")), 1);
        assert!(matches!(mail.next().await, Some(Note::Text(text)) if &*text == "x"));
        assert_eq!((rooms.occupied("r"), rooms.occupied("s")), (vec![("r".to_owned(), 1)], vec![]));
        // Whoever comes in again is the same one, or another in place of the first.
        let again =
            |socket, key: &str| rooms.enter("r", visitor(socket, &mailbox, member(key)), 7).map(|entered| (entered.is_new, entered.gone));
        assert_eq!(again(3, "b"), Ok((false, None)));
        assert_eq!(again(3, "c"), Ok((true, member("b"))));
        assert_eq!(again(4, "c"), Ok((false, None)), "one name on two connections");
        assert_eq!(again(4, "d"), Ok((true, None)), "c is still there");
        (10..).take(limits::PRESENCE_MEMBERS_MAX).for_each(|socket| drop(again(socket, "c").unwrap()));
        (1..limits::PRESENCE_MEMBERS_MAX - 1).for_each(|n| drop(again(1_000 + n as u64, &format!("m{n}")).unwrap()));
        assert_eq!(again(9, "one more"), Err(RoomFull), "members are counted, not their connections");
        assert_eq!(again(9, "c"), Ok((false, None)));
        (1..2_000).for_each(|socket| drop(rooms.leave("r", socket)));
        assert_eq!(rooms.occupied(""), []);
        assert!(rooms.rooms().is_empty(), "an empty room is forgotten");
    }

    #[test]
    fn what_was_missed_is_given_as_a_whole_or_not_at_all() {
        let rooms = Rooms::default();
        let (mailbox, _mail) = mailbox();
        rooms.enter("r", visitor(1, &mailbox, None), 7).unwrap();
        let count = limits::CHANNEL_HISTORY_MAX as u64 + 3;
        (0..count).for_each(|_| assert_eq!(rooms.publish("r", None, false, |number| Note::text(format!("{number:?}"))), 1));
        let since = |stream, from, upto| rooms.since("r", stream, (from, upto)).map(|notes| notes.len());
        assert_eq!(since(7, count - 2, count), Some(2));
        assert_eq!(since(7, count - 2, count - 1), Some(1), "up to where it came in");
        assert_eq!(since(7, count, count), Some(0));
        assert_eq!(since(7, 3, count), Some(limits::CHANNEL_HISTORY_MAX));
        for (stream, serial, upto) in [(7, 2, count), (8, count, count), (7, count + 1, count + 1), (7, 5, 4)] {
            assert_eq!(since(stream, serial, upto), None, "{stream} {serial} {upto}");
        }
        let last = rooms.since("r", 7, (count - 1, count)).unwrap();
        assert!(matches!(last.as_slice(), [Note::Text(text)] if **text == *format!("Some((7, {count}))")));
    }

    #[tokio::test]
    async fn who_does_not_keep_up_is_cut() {
        let rooms = Rooms::default();
        let (mailbox, mut mail) = mailbox();
        rooms.enter("r", visitor(1, &mailbox, None), 7).unwrap();
        (0..=limits::WS_QUEUE_MAX).for_each(|_| assert_eq!(rooms.tell("r", None, &Note::text("x")), 1));
        assert!(mail.next().await.is_none());
    }
}
