//! Plain sensors: messages of a broker, by rules, as rows of this device. The device is the store-and-forward that a sensor has not.
//!
//! How a broker is heard is in [`mobo_adapters::mqtt::ingest`]. From the moment that it is acknowledged a message goes the way of every local
//! write.

use std::sync::Arc;

use mobo_adapters::mqtt::ingest::{IngestStatus, Taker};
use mobo_adapters::sqlite::edge::{Change, EdgeStore};
use mobo_core::backoff::Backoff;
use mobo_core::ingest::{Arrival, Tally};
use mobo_core::limits;
use mobo_core::schema::Schema;
use mobo_core::store::StoreError;
use mobo_runtime::ingest::pause_bits;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;

/// The device's store, as sensors see it.
#[derive(Debug)]
pub struct EdgeTaker {
    /// Where rows go.
    pub store: Arc<EdgeStore>,
    /// Where it is told that a batch has to wait.
    pub status: watch::Sender<IngestStatus>,
}

impl Taker for EdgeTaker {
    async fn schema(&self, held: Option<&Schema>) -> Result<Arc<Schema>, StoreError> {
        let mut changes = self.store.watch();
        loop {
            let schema = self.store.schema().await?;
            if held != Some(&*schema) {
                return Ok(schema);
            }
            next_schema(&mut changes).await;
        }
    }

    async fn forget_deliveries(&self) -> Result<(), StoreError> {
        self.store.forget_deliveries().await
    }

    /// Takes as long as it takes: the broker keeps what is not acknowledged.
    async fn take(&self, arrivals: Vec<Arrival>, forget: u64) -> Result<Tally, StoreError> {
        let mut backoff = Backoff::new(limits::INGEST_PAUSE_MIN, limits::INGEST_PAUSE_MAX);
        loop {
            match self.store.ingest(arrivals.clone(), forget).await {
                Ok(done) => return Ok(done.tally),
                Err(error) => self.status.send_modify(|status| status.last_error = Some(error.to_string())),
            }
            tokio::time::sleep(backoff.next_pause(pause_bits(), None)).await;
        }
    }
}

async fn next_schema(changes: &mut Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::SchemaChanged) | Err(RecvError::Lagged(_)) => return,
            // The store is closed: this part is stopped before it.
            Err(RecvError::Closed) => return std::future::pending().await,
            Ok(_) => {}
        }
    }
}
