//! Who counts and measures: the gate tells, a node's metrics listen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Hears of requests. It is called in their way and must not block.
pub trait Watch: fmt::Debug + Send + Sync {
    /// A request has begun; [`left`](Self::left) follows, whatever happens to it.
    fn came(&self);

    /// A request is over: answered, or its caller has gone.
    fn left(&self);

    /// A request was answered, so long after it began.
    fn answered(&self, request: &Ended<'_>, took: Duration);

    /// A caller showed a credential of this kind; `failure` says why it was not good: `refused`, or `unavailable` where nobody could tell.
    fn authenticated(&self, method: &'static str, failure: Option<&'static str>);

    /// Somebody was refused for asking too often, by this policy: a word, or the label of a rule.
    fn limited(&self, policy: &str) {
        let _ = policy;
    }
}

/// A request that was answered, by few words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended<'a> {
    /// The method, as it was sent.
    pub method: &'a str,
    /// The route as it is declared, as in `/rest/v1/{collection}`; `none` for a path that leads nowhere.
    pub route: &'a str,
    /// The status of the answer.
    pub status: u16,
}

/// One request, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Watching {
    watch: Option<Arc<dyn Watch>>,
    began: Instant,
}

impl Watching {
    pub(crate) fn begin(watch: Option<Arc<dyn Watch>>) -> Self {
        watch.iter().for_each(|watch| watch.came());
        Self { watch, began: Instant::now() }
    }

    pub(crate) fn end(self, request: &Ended<'_>) {
        self.watch.iter().for_each(|watch| watch.answered(request, self.began.elapsed()));
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watch.iter().for_each(|watch| watch.left());
    }
}
