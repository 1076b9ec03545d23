//! The uplink's part. It is optional: a device without its hub is a whole device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital, first_pause, topics};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::entropy;
use mobo_runtime::motherboard::BoardHandle;
use mobo_runtime::tasks::Tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Edge, STORE, UPLINK, VERSION};
use crate::uplink::{LinkState, LinkStatus};

pub(super) struct UplinkPart {
    edge: Arc<Edge>,
    working: Mutex<Working>,
}

/// What it works with.
#[derive(Default)]
struct Working {
    tasks: Option<Tasks>,
    /// Ends the uplink of now, and none before or after it.
    end: CancellationToken,
}

impl UplinkPart {
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self { edge, working: Mutex::default() }
    }

    fn working(&self) -> MutexGuard<'_, Working> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects after a pause, and goes on connecting until another uplink takes over or the part stops.
    fn work(&self, tasks: &Tasks, pause: std::time::Duration) -> Result<(), Fault> {
        let uplink = self.edge.uplink().map_err(|error| Fault::new(error.to_string(), "look at the store's part"))?;
        let (stopping, end) = (tasks.stopping(), tasks.stopping().child_token());
        let (ended, clock, wake) = (end.clone(), self.edge.clock, Arc::clone(&self.edge.wake));
        tasks.spawn("uplink", async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => {}
                () = ended.cancelled() => {}
            }
            uplink.run(ended, clock).await;
            stopping.cancelled().await;
        });
        let mut working = self.working();
        std::mem::replace(&mut working.end, end).cancel();
        working.tasks = Some(tasks.clone());
        Ok(())
    }
}

/// Tells the bus when the link goes live and when it is lost.
async fn tell(board: BoardHandle, mut link: watch::Receiver<LinkStatus>, stopping: CancellationToken) {
    let mut was_live = false;
    loop {
        let status = link.borrow_and_update().clone();
        let live = status.state == LinkState::Live;
        if live != was_live {
            let peer = status.peer.unwrap_or_else(|| "hub".to_owned());
            board.tell(topics::session(&peer, live, status.last_error));
            was_live = live;
        }
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            () = stopping.cancelled() => return,
        }
    }
}

impl Component for UplinkPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(UPLINK, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let unclean = self.edge.board().is_some_and(|board| board.report().unclean);
            // After a power cut the whole street comes back; who is woken does not wait.
            self.work(&tasks, first_pause(unclean, entropy::bytes().map_or(0, u64::from_le_bytes)))?;
            if let Some(board) = self.edge.board() {
                tasks.spawn("uplink.news", tell(board.clone(), self.edge.link.subscribe(), tasks.stopping()));
            }
            Ok(())
        })
    }

    /// A device without its hub is well; one that its hub refuses needs somebody to look.
    fn health(&self) -> BoxFuture<'_, Vital> {
        let status = self.edge.link.borrow().clone();
        let refused = || status.last_error.unwrap_or_else(|| "the hub refuses this device".to_owned());
        let vital = if status.state == LinkState::Refused { Vital::Worn(refused()) } else { Vital::Fine };
        Box::pin(async { vital })
    }

    /// `component swap uplink host:port,host:port`: the addresses that are tried before those of the join token.
    fn swap(&self, address: String) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async move {
            for part in address.split(',').map(str::trim).filter(|part| !part.contains("://")) {
                let is_place = part.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
                if !is_place {
                    let advice = "write host:port, or a URL as in hub.url, with commas between several";
                    return Err(Fault::new(format!("\"{part}\" is no address"), advice));
                }
            }
            let tasks = self.working().tasks.clone().ok_or_else(|| Fault::new("it does not run", "start it first"))?;
            self.edge.swapped.fill(address.clone());
            self.work(&tasks, std::time::Duration::ZERO)?;
            Ok(format!("trying {address} first until the node stops; set hub.url to keep it"))
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
