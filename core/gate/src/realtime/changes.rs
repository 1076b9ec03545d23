//! The changes of one collection as a stream, for whoever spells them in a way of its own.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::Stream;
use mobo_core::live::{LiveKind, LivePoint, LiveRow};
use mobo_core::query::Filter;
use mobo_core::schema::Collection;
use mobo_core::time::Eff;

use super::feed::{Lost, Subscription};
use super::viewer::{View, Viewer};
use super::wanted::Wanted;
use super::{Place, Recheck};
use crate::problem::Problem;

/// A change, as far as the subscriber sees it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) kind: LiveKind,
    pub(crate) at: Eff,
    pub(crate) point: LivePoint,
    pub(crate) old: Option<LiveRow>,
    pub(crate) new: Option<LiveRow>,
}

struct Changes {
    viewer: Viewer,
    recheck: Recheck,
    wanted: Wanted,
    subscription: Subscription,
    ready: VecDeque<Told>,
    /// True once it has said why it ends.
    is_over: bool,
    _place: Place,
}

/// The changes of the rows that a filter lets through, from a place of the past or from now on. It ends with a problem when the subscriber may
/// not see them any more, and when some were missed: then what was read before must be read again.
///
/// # Errors
///
/// As the guard says; 503 when as many subscribers as this node takes are here; 400 when the place is not in the log any more.
pub(crate) async fn of(
    viewer: &Viewer,
    collection: Arc<Collection>,
    filter: Filter,
    from: Option<LivePoint>,
) -> Result<impl Stream<Item = Result<Told, Problem>> + Send + 'static, Problem> {
    let gate = viewer.gate().clone();
    let place = gate.place_for_subscriber(viewer.parts())?;
    let recheck = Recheck::begin(&gate);
    let view = View::of(&viewer.guard().await?, &collection, &filter)?;
    let (subscription, resumed) = gate.feed().subscribe(&[collection.id], from).await?;
    if !resumed {
        return Err(lost(Lost::Expired));
    }
    let wanted = Wanted { collection, filter, select: None, view };
    let viewer = viewer.clone();
    let changes = Changes { viewer, recheck, wanted, subscription, ready: VecDeque::new(), is_over: false, _place: place };
    Ok(futures_util::stream::unfold(changes, Changes::next))
}

fn lost(lost: Lost) -> Problem {
    let message = format!("resync: {}", lost.word());
    Problem::new(StatusCode::BAD_REQUEST, "MB410", "Changes were missed", message).hint("read the rows again, and subscribe anew")
}

impl Changes {
    async fn next(mut self) -> Option<(Result<Told, Problem>, Self)> {
        let gate = self.viewer.gate().clone();
        while !self.is_over {
            if let Some(told) = self.ready.pop_front() {
                return Some((Ok(told), self));
            }
            tokio::select! {
                biased;
                () = gate.closed() => return None,
                () = self.recheck.due() => {
                    self.recheck.take();
                    let asked = self.viewer.guard().await.and_then(|guard| self.wanted.ask_again(&guard));
                    if let Err(problem) = asked && !problem.status().is_server_error() {
                        self.is_over = true;
                        return Some((Err(problem), self));
                    }
                }
                changes = self.subscription.next() => match changes {
                    Ok(changes) => {
                        let log = self.subscription.at().log;
                        let told = changes.iter().filter_map(|change| {
                            let seen = self.wanted.seen(change)?;
                            let point = LivePoint { log, n: change.n };
                            let (old, new) = (seen.old.map(Cow::into_owned), seen.new.map(Cow::into_owned));
                            Some(Told { kind: seen.kind, at: change.at, point, old, new })
                        });
                        self.ready.extend(told.collect::<Vec<_>>());
                    }
                    Err(why) => {
                        self.is_over = true;
                        return Some((Err(lost(why)), self));
                    }
                },
            }
        }
        None
    }
}
