//! How long the parts of an answer took, in the header `Server-Timing`, as PostgREST spells it: `jwt;dur=0.2, parse;dur=0.1, …` in milliseconds.
//!
//! One clock goes from stage to stage, so that the durations add up to the whole until the head of the answer. Where it is switched off there is
//! none.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::HeaderName;
use axum::http::request::Parts;
use tokio::time::Instant;

use crate::gate::Gate;

/// Where it is told.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What is done for an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// The credential is proven.
    Jwt,
    /// The head and the body are read.
    Parse,
    /// What is asked becomes what the store is asked, within the rights of the caller.
    Plan,
    /// The store works.
    Db,
    /// The answer is written. All of it is that, where a route knows of no stages.
    Response,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Jwt, Self::Parse, Self::Plan, Self::Db, Self::Response];

    const fn name(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Parse => "parse",
            Self::Plan => "plan",
            Self::Db => "db",
            Self::Response => "response",
        }
    }
}

/// The clock of one request, or none. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timing(Option<Arc<Mutex<Spent>>>);

#[derive(Debug)]
struct Spent {
    stage: Stage,
    since: Instant,
    spent: [Duration; Stage::ALL.len()],
    has_stages: bool,
}

impl Spent {
    fn enter(&mut self, stage: Stage, now: Instant) -> Stage {
        if let Some(spent) = self.spent.get_mut(self.stage as usize) {
            *spent += now.saturating_duration_since(self.since);
        }
        self.since = now;
        std::mem::replace(&mut self.stage, stage)
    }
}

impl Timing {
    /// A clock that begins now, where it is switched on.
    pub(crate) fn begin(gate: &Gate) -> Self {
        let spent = || Spent { stage: Stage::Parse, since: Instant::now(), spent: Default::default(), has_stages: false };
        Self(gate.settings().server_timing.then(|| Arc::new(Mutex::new(spent()))))
    }

    /// The clock of a request.
    pub(crate) fn of(gate: &Gate, parts: &Parts) -> Self {
        if gate.settings().server_timing { parts.extensions.get().cloned().unwrap_or_default() } else { Self::default() }
    }

    /// Gives it to the request, where there is one.
    pub(crate) fn put(&self, parts: &mut Parts) {
        if self.0.is_some() {
            parts.extensions.insert(self.clone());
        }
    }

    /// From now on it is that stage; gives the one before.
    pub(crate) fn enter(&self, stage: Stage) -> Stage {
        let Some(spent) = &self.0 else { return stage };
        let mut spent = spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.has_stages = true;
        spent.enter(stage, Instant::now())
    }

    /// It is that stage until the future is ready.
    pub(crate) async fn during<T>(&self, stage: Stage, future: impl Future<Output = T>) -> T {
        let before = self.enter(stage);
        let output = future.await;
        self.enter(before);
        output
    }

    /// What the answer says of it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut spent = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        if !spent.has_stages {
            spent.stage = Stage::Response;
        }
        spent.enter(Stage::Response, Instant::now());
        let mut text = String::new();
        for (stage, spent) in Stage::ALL.into_iter().zip(spent.spent) {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{};dur={:.1}", stage.name(), spent.as_secs_f64() * 1_000.0);
        }
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Timing {
        let spent = Spent { stage: Stage::Parse, since: Instant::now(), spent: Default::default(), has_stages: false };
        Timing(Some(Arc::new(Mutex::new(spent))))
    }

    fn said(timing: &Timing) -> String {
        timing.header().unwrap().to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn every_moment_is_of_one_stage() {
        let timing = clock();
        let ms = Duration::from_millis;
        tokio::time::advance(ms(2)).await;
        timing.during(Stage::Jwt, tokio::time::advance(ms(3))).await;
        tokio::time::advance(ms(4)).await;
        timing.enter(Stage::Plan);
        tokio::time::advance(ms(5)).await;
        timing.during(Stage::Db, tokio::time::advance(ms(70))).await;
        timing.during(Stage::Db, tokio::time::advance(ms(7))).await;
        timing.enter(Stage::Response);
        tokio::time::advance(Duration::from_micros(1_250)).await;
        assert_eq!(said(&timing), "jwt;dur=3.0, parse;dur=6.0, plan;dur=5.0, db;dur=77.0, response;dur=1.2");
        let plain = clock();
        tokio::time::advance(ms(9)).await;
        assert_eq!(said(&plain), "jwt;dur=0.0, parse;dur=0.0, plan;dur=0.0, db;dur=0.0, response;dur=9.0");
        assert_eq!(Timing::default().header(), None);
    }
}
