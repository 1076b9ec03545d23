//! Whose turn it is to publish: of all hubs of a store, that of one. It writes down how far it is, so that the next one goes on from there.

use std::time::Duration;

use mobo_adapters::desk::{Cell, Statement};
use mobo_core::limits;
use mobo_core::live::LivePoint;
use mobo_core::store::StoreError;
use mobo_core::time::Eff;
use tokio::time::Instant;

use crate::auth::Accounts;
use crate::auth::rows::number;

/// Takes the turn where it is ours or nobody's, and notes the place.
const TAKE: &str = "UPDATE mobo_publisher SET holder = $1, until_us = $2, log = $3, n = $4 WHERE holder = $1 OR until_us < $5 RETURNING n";
const LOOK: &str = "SELECT log, n FROM mobo_publisher";
const END: &str = "UPDATE mobo_publisher SET until_us = 0, log = $2, n = $3 WHERE holder = $1 RETURNING n";

/// The turn as this hub sees it.
pub(super) struct Turn {
    /// By which it knows itself again, until it stops.
    me: Vec<u8>,
    /// When it was last asked for, and whose it was then.
    asked: Option<(Instant, Whose)>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Whose {
    /// This hub's.
    Ours,
    /// Another one's, which has come so far.
    Theirs(LivePoint),
}

impl Turn {
    pub(super) fn new(me: [u8; 16]) -> Self {
        Self { me: me.to_vec(), asked: None }
    }

    /// Whose turn it is, asked for again where the answer is old; `at` is how far this hub is.
    pub(super) async fn ask(&mut self, accounts: &Accounts, (at, now): (LivePoint, Eff)) -> Result<Whose, StoreError> {
        let lasts = |whose| match whose {
            Whose::Ours => limits::PUBLISH_TURN_RENEW,
            Whose::Theirs(_) => limits::PUBLISH_TURN_LOOK,
        };
        if let Some((_, whose)) = self.asked.filter(|(asked, whose)| asked.elapsed() < lasts(*whose)) {
            return Ok(whose);
        }
        let asked = Instant::now();
        let until = now.plus(micros(limits::PUBLISH_TURN));
        let cells = [self.me(), Cell::Int(until.0), Cell::Int(at.log.cast_signed()), Cell::Int(at.n.cast_signed()), Cell::Int(now.0)];
        let whose = if accounts.rows_of(Statement::new(TAKE, cells)).await?.is_empty() {
            let rows = accounts.rows_of(Statement::new(LOOK, [])).await?;
            let cell = |column| rows.first().and_then(|row| number(row, column)).map(i64::cast_unsigned);
            match (cell(0), cell(1)) {
                (Some(log), Some(n)) => Whose::Theirs(LivePoint { log, n }),
                _ => return Err(StoreError::Damaged("the store does not know who publishes".to_owned())),
            }
        } else {
            Whose::Ours
        };
        self.asked = Some((asked, whose));
        Ok(whose)
    }

    /// Ends it, at this place: another hub need not wait.
    pub(super) async fn end(&mut self, accounts: &Accounts, at: LivePoint) -> Result<(), StoreError> {
        if self.asked.take().is_some_and(|(_, whose)| whose == Whose::Ours) {
            let cells = [self.me(), Cell::Int(at.log.cast_signed()), Cell::Int(at.n.cast_signed())];
            accounts.rows_of(Statement::new(END, cells)).await?;
        }
        Ok(())
    }

    fn me(&self) -> Cell {
        Cell::Bytes(self.me.clone())
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mobo_adapters::sqlite::SqliteHubStore;
    use mobo_core::trust::KeyPair;
    use mobo_runtime::clock::Clock;
    use tokio::sync::watch;

    use super::*;

    /// What broke: of two hubs of one store that had the address, each published every change.
    #[tokio::test]
    async fn one_hub_publishes_and_the_next_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteHubStore::open(&folder.path().join("hub.db")).unwrap());
        let (keys, clock) = (KeyPair::from_secret(&[7; 32]), Clock::start().unwrap());
        let opened = crate::node::assemble(Arc::clone(&store) as _, &keys, Arc::new(clock)).await.unwrap();
        let served = (opened.project, String::new());
        let accounts = Accounts::open(store, opened.time, (&keys, clock), served, watch::Sender::new(0)).await.unwrap();
        let at = |n| LivePoint { log: u64::MAX - 1, n };
        let (first, second) = ([1; 16], [2; 16]);
        let begin = Eff(1_000_000);
        let later = |seconds: u64| begin.plus(seconds * 1_000_000);
        let lasts = limits::PUBLISH_TURN.as_secs();
        // Each is made anew: what one has heard a moment ago, it does not ask again.
        for (who, n, now, want) in [
            (first, 5, begin, Whose::Ours),
            (second, 9, later(1), Whose::Theirs(at(5))),
            (first, 7, later(lasts - 1), Whose::Ours),
            (second, 9, later(lasts + 1), Whose::Theirs(at(7))),
            // The first one has stopped without a word.
            (second, 7, later(2 * lasts), Whose::Ours),
            (first, 8, later(2 * lasts + 1), Whose::Theirs(at(7))),
        ] {
            assert_eq!(Turn::new(who).ask(&accounts, (at(n), now)).await, Ok(want), "{who:?} at {now:?}");
        }
        let mut turn = Turn::new(second);
        let now = later(2 * lasts + 2);
        assert_eq!(turn.ask(&accounts, (at(8), now)).await, Ok(Whose::Ours));
        assert_eq!(Turn::new(first).ask(&accounts, (at(1), now)).await, Ok(Whose::Theirs(at(8))));
        turn.end(&accounts, at(11)).await.unwrap();
        assert_eq!(Turn::new(first).ask(&accounts, (at(11), now)).await, Ok(Whose::Ours), "nobody waits for one that has said so");
        turn.end(&accounts, at(12)).await.unwrap();
        assert_eq!(Turn::new(second).ask(&accounts, (at(1), now)).await, Ok(Whose::Theirs(at(11))), "it was over already");
    }
}
