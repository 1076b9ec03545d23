//! Calls into parts: each on a task of its own, so that it can neither block nor break the board; answers come through the inbox.

use std::future::Future;
use std::sync::Arc;

use mobo_core::kernel::{Answer, Ask, Check, CommandId, ComponentName, Done, Fault, Input, Refusal, Turn, Vital, topics};
use mobo_core::limits;
use mobo_core::time::Instant;
use tokio::task::AbortHandle;

use super::{Command, Message, Motherboard};
use crate::component::{BoxFuture, Component};
use crate::config::Config;
use crate::tasks::{Tasks, caught};

impl Motherboard {
    pub(super) fn ask(&mut self, (turn, life): (Turn, u64), name: &ComponentName, ask: Ask, deadline: Instant) {
        let (deadline, outbox) = (self.clock.at(deadline), self.outbox.clone());
        let Some(plug) = self.plugs.iter_mut().find(|plug| plug.spec.name == *name) else { return };
        if ask == Ask::Load {
            // A life of its own: what the last one left behind is cut, and cannot be mistaken for it.
            plug.tasks.abort();
            plug.tasks = Tasks::new(plug.spec.name.clone(), life, outbox);
        }
        let (part, tasks, config) = (Arc::clone(&plug.component), plug.tasks.clone(), self.config.clone());
        let answer: BoxFuture<'static, Answer> = match ask {
            Ask::Check => Box::pin(async move { Answer::Checks(check(part.as_ref(), config.as_ref()).await) }),
            Ask::Load => Box::pin(async move { Answer::Did(settled(part.load()).await) }),
            Ask::Verify => Box::pin(async move { Answer::Checks(checks("verify", || part.verify()).await) }),
            Ask::Start => Box::pin(async move { Answer::Did(settled(part.start(tasks)).await) }),
            Ask::Stop => Box::pin(async move { Answer::Did(stop(part.as_ref(), &tasks, deadline).await) }),
            Ask::Recover => Box::pin(async move { Answer::Did(settled(part.recover()).await) }),
            Ask::Swap(address) => Box::pin(async move { Answer::Swapped(settled(part.swap(address)).await) }),
        };
        self.call = Some((name.clone(), self.spawn(async move { Input::Answer { turn, answer: answer.await } })));
    }

    /// Gives every part the settings of now. One that cannot take them goes on with those it had, and that is told.
    pub(super) fn reconfigure(&self) {
        let Some(config) = &self.config else { return };
        for plug in &self.plugs {
            let (part, name, config, bus) = (Arc::clone(&plug.component), plug.spec.name.clone(), config.clone(), self.bus.clone());
            tokio::spawn(async move {
                if let Err(fault) = settled(async { part.configure(&config) }).await {
                    tracing::error!(component = %name, reason = fault.reason, advice = fault.advice, "a component did not take its new settings");
                    bus.publish(topics::settings_refused(&name, &fault));
                }
            });
        }
    }

    pub(super) fn probe(&mut self, turn: Turn, name: &ComponentName) {
        self.probes.retain(|_, call| !call.is_finished());
        let Some(plug) = self.plugs.iter().find(|plug| plug.spec.name == *name) else { return };
        let part = Arc::clone(&plug.component);
        let call = self.spawn(async move {
            let vital = match caught(async { part.health().await }).await {
                Ok(vital) => vital,
                Err(panic) => Vital::Failing(format!("its health check panicked: {panic}")),
            };
            Input::Probed { turn, vital }
        });
        self.probes.insert(turn, call);
    }

    fn spawn(&self, call: impl Future<Output = Input> + Send + 'static) -> AbortHandle {
        let outbox = self.outbox.clone();
        let task = tokio::spawn(async move {
            let input = call.await;
            // A board that is over has no use for the answer.
            let _ = outbox.send(Message::Input(input)).await;
        });
        task.abort_handle()
    }

    pub(super) fn abort(&mut self, name: &ComponentName) {
        self.drop_call(name);
        let Some(plug) = self.plugs.iter().find(|plug| plug.spec.name == *name) else { return };
        let held_by = plug.tasks.names();
        tracing::warn!(component = %name, ?held_by, "cut");
        plug.tasks.abort();
    }

    /// Drops the open call if it is into this part.
    pub(super) fn drop_call(&mut self, name: &ComponentName) {
        let call = self.call.take_if(|(called, _)| called == name);
        call.iter().for_each(|(_, call)| call.abort());
    }

    pub(super) fn answered(&mut self, id: CommandId, result: Result<Done, Refusal>) {
        let Some((command, reply)) = self.replies.remove(&id) else { return };
        if let (Command::Swap { component, .. }, Ok(Done { said: Some(said), .. })) = (&command, &result) {
            tracing::info!(%component, said, "swapped");
            self.bus.publish(topics::swap(component, said));
        }
        // Whoever asked may have gone.
        let _ = reply.send(result);
    }
}

async fn check(part: &dyn Component, config: Option<&Config>) -> Vec<Check> {
    if let Some(config) = config
        && let Err(Fault { reason, advice }) = settled(async { part.configure(config) }).await
    {
        return vec![Check::fail("settings", reason, advice)];
    }
    checks("self-test", || part.post()).await
}

async fn checks<'a>(what: &str, look: impl FnOnce() -> BoxFuture<'a, Vec<Check>>) -> Vec<Check> {
    let began = tokio::time::Instant::now();
    let mut checks = match caught(async { look().await }).await {
        Ok(checks) => checks,
        Err(panic) => {
            let Fault { reason, advice } = panicked(&panic);
            vec![Check::fail(what, reason, advice)]
        }
    };
    if let [only] = checks.as_mut_slice()
        && only.took.is_zero()
    {
        only.took = began.elapsed();
    }
    checks
}

/// Stops a part and waits for its tasks; the log names what takes long.
async fn stop(part: &dyn Component, tasks: &Tasks, deadline: tokio::time::Instant) -> Result<(), Fault> {
    tasks.stopping().cancel();
    let stopped = async {
        let result = settled(part.stop(deadline)).await;
        tasks.finished().await;
        result
    };
    let notice = async {
        loop {
            tokio::time::sleep(limits::STOP_NOTICE).await;
            tracing::info!(component = %tasks.component(), held_by = ?tasks.names(), "still stopping");
        }
    };
    tokio::select! {
        result = stopped => result,
        () = notice => Ok(()),
    }
}

async fn settled<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    caught(call).await.unwrap_or_else(|panic| Err(panicked(&panic)))
}

fn panicked(panic: &str) -> Fault {
    Fault::new(format!("panicked: {panic}"), "this is a mistake in the program: report it with the log")
}
