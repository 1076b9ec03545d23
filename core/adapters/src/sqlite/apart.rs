//! Work in tasks and on threads of its own. All kinds of work share one kind of task, since each kind would be code of its own in the program.

use std::pin::Pin;

use mobo_core::store::StoreError;
use tokio::sync::oneshot;

use super::error::Failure;

/// Work in a task of its own: it goes on to its end even if the caller has stopped waiting.
pub(super) async fn to_its_end<T>(work: impl Future<Output = Result<T, StoreError>> + Send + 'static) -> Result<T, StoreError>
where
    T: Send + 'static,
{
    let (answer, mut answered) = oneshot::channel();
    task(Box::pin(async move { drop(answer.send(work.await)) })).await?;
    answered.try_recv().map_err(|_| cut_short("no answer"))?
}

/// Reading on a thread that may wait for the disk.
pub(super) async fn on_a_thread<T>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, StoreError>
where
    T: Send + 'static,
{
    let (answer, mut answered) = oneshot::channel();
    thread(Box::new(move || drop(answer.send(work().map_err(StoreError::from))))).await?;
    answered.try_recv().map_err(|_| broken("no answer"))?
}

async fn task(work: Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<(), StoreError> {
    tokio::spawn(work).await.map_err(|error| cut_short(&error.to_string()))
}

async fn thread(work: Box<dyn FnOnce() + Send>) -> Result<(), StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| broken(&error.to_string()))
}

fn cut_short(why: &str) -> StoreError {
    StoreError::Unavailable(format!("the write was cut short: {why}"))
}

/// A read that ended as none should.
pub(super) fn broken(why: &str) -> StoreError {
    StoreError::Refused(format!("this read met a defect in mobo ({why}); please report it with the log"))
}
