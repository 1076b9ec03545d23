//! The uplink's part. It is optional: a device without its hub is a whole device.

use std::sync::Arc;

use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::tasks::Tasks;

use super::{Edge, STORE, UPLINK, VERSION};

pub(super) struct UplinkPart(pub(super) Arc<Edge>);

impl Component for UplinkPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(UPLINK, VERSION).needing([STORE])
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let uplink = self.0.uplink().map_err(|error| Fault::new(error.to_string(), "look at the store's part"))?;
            tasks.spawn("uplink", uplink.run(tasks.stopping(), self.0.clock));
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}
