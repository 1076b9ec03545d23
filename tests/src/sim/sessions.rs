//! Both ends of the sessions in the world: one thing that a session asks for is one event.

use std::time::Duration;

use mobo_core::session::CloseReason;
use mobo_edge::uplink::driver::Step;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::device::take;
use super::machine::poll;
use super::net::End;
use super::trace::{Try, Violation};
use super::world::{Event, World};

/// What one thing takes, in µs.
const STEP_US: (u64, u64) = (20, 400);

impl World {
    /// A device tries to connect.
    pub(super) fn dial(&mut self, device: usize) -> Try {
        let node = &mut self.devices[device];
        node.dialing = false;
        if node.life.as_ref().is_none_or(|life| life.talk.is_some()) {
            return Ok(());
        }
        if self.hub.life.is_none() || node.partition.is_some() {
            self.dial_later(device, None);
            return Ok(());
        }
        let link = self.connect(device);
        let binding = link.to_le_bytes().to_vec();
        let node = &mut self.devices[device];
        let name = node.name.clone();
        let life = node.life.as_mut().expect("it was there");
        if let Err(error) = life.open(link, binding.clone()) {
            self.say(format_args!("{name} cannot say hello: {error}"));
            self.links.remove(&link);
            self.dial_later(device, None);
            return self.after(device);
        }
        if let Some(hub) = &mut self.hub.life {
            hub.accept(link, (binding, name.clone()));
        }
        self.say(format_args!("{name} opens link {link}"));
        self.wake_hub(link);
        self.wake(device);
        self.after(device)
    }

    pub(super) fn dial_later(&mut self, device: usize, retry_after: Option<Duration>) {
        if self.devices[device].dialing {
            return;
        }
        let entropy = self.rng.next_u64();
        let node = &mut self.devices[device];
        node.dialing = true;
        let pause = u64::try_from(node.backoff.next_pause(entropy, retry_after).as_micros()).unwrap_or(u64::MAX);
        self.soon((pause, pause), Event::Dial(device));
    }

    pub(super) fn wake(&mut self, device: usize) {
        let talk = self.devices[device].life.as_mut().and_then(|life| life.talk.as_mut());
        if talk.is_some_and(|talk| !std::mem::replace(&mut talk.stepping, true)) {
            self.soon(STEP_US, Event::Step(device));
        }
    }

    /// A device's session does one thing.
    pub(super) fn step(&mut self, device: usize) -> Try {
        let Some(life) = self.devices[device].life.as_mut() else { return Ok(()) };
        let Some(talk) = life.talk.as_mut() else { return Ok(()) };
        talk.stepping = false;
        let (link, out) = (talk.link, std::sync::Arc::clone(&talk.out));
        let step = super::machine::wait(talk.driver.carry_out_one(), || life.writer.turn());
        if talk.driver.diverged > std::mem::replace(&mut talk.diverged, talk.driver.diverged) {
            let name = &self.devices[device].name;
            return Err(Violation::new("I12", format!("{name} has a bucket that differs from the hub's at the same position")));
        }
        let was_live = talk.driver.was_live;
        self.ship(link, End::Device, take(&out))?;
        match step {
            Step::Done => self.wake(device),
            Step::Idle => self.idle(device),
            Step::Closed(reason) => {
                if was_live || reason == CloseReason::Refenced {
                    self.devices[device].backoff.reset();
                }
                self.end_device_session(device, &format!("{reason:?}"), Some(&reason))?;
                self.hang_up(link, End::Device);
            }
        }
        self.after(device)
    }

    fn idle(&mut self, device: usize) {
        let Some(talk) = self.devices[device].life.as_mut().and_then(|life| life.talk.as_mut()) else { return };
        match talk.changes.try_recv() {
            Ok(change) => talk.driver.changed(Ok(change)),
            Err(TryRecvError::Lagged(missed)) => talk.driver.changed(Err(RecvError::Lagged(missed))),
            Err(TryRecvError::Closed | TryRecvError::Empty) => {
                if let Some(due) = talk.driver.timeout() {
                    let link = talk.link;
                    self.at(due.0 / 1_000 + 1, Event::Tick(device, link));
                }
                return;
            }
        }
        self.wake(device);
    }

    pub(super) fn tick(&mut self, device: usize, link: u64) -> Try {
        let now = self.now();
        let talk = self.devices[device].life.as_mut().and_then(|life| life.talk.as_mut());
        if let Some(talk) = talk.filter(|talk| talk.link == link && talk.driver.timeout().is_some_and(|due| due.0 / 1_000 < now)) {
            talk.driver.tick();
            self.wake(device);
        }
        Ok(())
    }

    pub(super) fn device_frame(&mut self, device: usize, link: u64, bytes: &[u8]) -> Try {
        let talk = self.devices[device].life.as_mut().and_then(|life| life.talk.as_mut());
        if let Some(talk) = talk.filter(|talk| talk.link == link) {
            talk.driver.frame(bytes);
            self.wake(device);
        }
        Ok(())
    }

    pub(super) fn end_device_session(&mut self, device: usize, why: &str, reason: Option<&CloseReason>) -> Try {
        let node = &mut self.devices[device];
        let Some(talk) = node.life.as_mut().and_then(|life| life.talk.take()) else { return Ok(()) };
        let (name, rolled_back, link) = (node.name.clone(), node.rolled_back, talk.link);
        if talk.driver.was_live {
            node.backoff.reset();
        }
        drop(talk);
        self.say(format_args!("{name} ends its session on link {link}: {why}"));
        self.trace.count("sessions ended");
        if reason == Some(&CloseReason::Refenced) || why.contains("a new log was started") {
            self.trace.count("refences");
            // A restored hub has lost what is not kept any more: a log that nothing can follow ends, too (rule R22).
            if !rolled_back && !self.hub_restored {
                return Err(Violation::new("I2", format!("{name} must start a new log, and nobody has copied it or put it back")));
            }
        }
        if let Some(CloseReason::Violation(what)) = reason
            && self.plan.keeps_order()
        {
            return Err(Violation::new("session", format!("{name}: {what}")));
        }
        let retry_after = match reason {
            Some(CloseReason::Refused(error)) => Some(Duration::from_millis(error.retry_after_ms.into())),
            _ => None,
        };
        self.dial_later(device, retry_after);
        Ok(())
    }

    pub(super) fn wake_hub(&mut self, link: u64) {
        let talk = self.hub.life.as_mut().and_then(|life| life.talks.get_mut(&link));
        if talk.is_some_and(|talk| !std::mem::replace(&mut talk.stepping, true)) {
            self.soon(STEP_US, Event::HubStep(link));
        }
    }

    /// A session of the hub does one thing.
    pub(super) fn hub_step(&mut self, link: u64) -> Try {
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        let Some(talk) = life.talks.get_mut(&link) else { return Ok(()) };
        talk.stepping = false;
        let step = super::machine::wait(talk.conversation.carry_out_one(), super::hub::turns(&mut life.writer, &mut life.turned));
        let frames = take(&talk.out);
        let mut jobs = Vec::new();
        for job in talk.conversation.started() {
            jobs.push(self.next_job);
            talk.jobs.insert(self.next_job, job);
            self.next_job += 1;
        }
        for job in jobs {
            self.soon(STEP_US, Event::HubJob(link, job));
        }
        self.ship(link, End::Hub, frames)?;
        match step {
            Some(None) => self.wake_hub(link),
            None => self.hub_idle(link),
            Some(Some(reason)) => {
                self.end_hub_session(link, &format!("{reason:?}"))?;
                self.hang_up(link, End::Hub);
            }
        }
        self.after_hub()
    }

    fn hub_idle(&mut self, link: u64) {
        let Some(talk) = self.hub.life.as_mut().and_then(|life| life.talks.get_mut(&link)) else { return };
        if let Ok(order) = talk.conversation.orders.try_recv() {
            talk.conversation.order(order);
            return self.wake_hub(link);
        }
        match talk.news.try_recv() {
            Ok(news) => talk.conversation.news(Ok(news)),
            Err(TryRecvError::Lagged(missed)) => talk.conversation.news(Err(RecvError::Lagged(missed))),
            Err(TryRecvError::Closed | TryRecvError::Empty) => {
                if let Some(due) = talk.conversation.timeout() {
                    self.at(due.0 / 1_000 + 1, Event::HubTick(link));
                }
                return;
            }
        }
        self.wake_hub(link);
    }

    pub(super) fn hub_tick(&mut self, link: u64) -> Try {
        let now = self.now();
        let talk = self.hub.life.as_mut().and_then(|life| life.talks.get_mut(&link));
        if let Some(talk) = talk.filter(|talk| talk.conversation.timeout().is_some_and(|due| due.0 / 1_000 < now)) {
            talk.conversation.tick();
            self.wake_hub(link);
        }
        Ok(())
    }

    pub(super) fn hub_frame(&mut self, link: u64, bytes: &[u8]) -> Try {
        if let Some(talk) = self.hub.life.as_mut().and_then(|life| life.talks.get_mut(&link)) {
            talk.conversation.frame(bytes);
            self.wake_hub(link);
        }
        Ok(())
    }

    pub(super) fn end_hub_session(&mut self, link: u64, why: &str) -> Try {
        let Some(talk) = self.hub.life.as_mut().and_then(|life| life.talks.remove(&link)) else { return Ok(()) };
        drop(talk.conversation.end());
        self.say(format_args!("the hub ends its session on link {link}: {why}"));
        // A ghost that was told to leave.
        let links: Vec<u64> = self.hub.life.as_ref().map(|life| life.talks.keys().copied().collect()).unwrap_or_default();
        for other in links {
            self.wake_hub(other);
        }
        Ok(())
    }

    /// Looks once at something that a session of the hub has started.
    pub(super) fn hub_job(&mut self, link: u64, number: u64) -> Try {
        let Some(talk) = self.hub.life.as_mut().and_then(|life| life.talks.get_mut(&link)) else { return Ok(()) };
        let Some(mut job) = talk.jobs.remove(&number) else { return Ok(()) };
        match poll(&mut job) {
            Some(done) => {
                talk.conversation.done(done);
                self.wake_hub(link);
            }
            None => {
                talk.jobs.insert(number, job);
                if !std::mem::replace(&mut self.turning, true) {
                    self.soon(STEP_US, Event::HubTurn);
                }
            }
        }
        self.after_hub()
    }

    /// The hub's writer commits what waits.
    pub(super) fn hub_turn(&mut self) -> Try {
        self.turning = false;
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        life.turned |= life.writer.turn();
        self.after_hub()
    }

    /// The hub merges what waits.
    pub(super) fn hub_merge(&mut self) -> Try {
        self.merging = false;
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        if life.merge() {
            self.trace.count("merges");
        }
        self.look_at_jobs();
        let links: Vec<u64> = self.hub.life.as_ref().map(|life| life.talks.keys().copied().collect()).unwrap_or_default();
        for link in links {
            self.wake_hub(link);
        }
        self.after_hub()
    }

    pub(super) fn look_at_jobs(&mut self) {
        let Some(life) = self.hub.life.as_ref() else { return };
        let jobs: Vec<(u64, u64)> =
            life.talks.iter().flat_map(|(link, talk)| talk.jobs.keys().map(|job| (*link, *job)).collect::<Vec<_>>()).collect();
        for (link, job) in jobs {
            self.soon(STEP_US, Event::HubJob(link, job));
        }
    }

    pub(super) fn reserve(&mut self) -> Try {
        if let Some(life) = self.hub.life.as_mut() {
            let time = std::sync::Arc::clone(&life.opened.time);
            let _ = life.wait(async { time.reserve().await });
            if let Ok(seen) = life.look(self.hub.seen.as_ref()) {
                self.hub.seen = Some(seen);
            }
        }
        let pause = if self.nobody_comes() { 3_600_000_000 } else { 3_000_000 };
        self.soon((pause, pause), Event::Reserve);
        self.after_hub()
    }
}
