//! Places for those who stay: so many on one node, and of them only a part for one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::request::Parts;
use mobo_core::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;
use crate::rates;

/// The places of a node.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    /// How many each network has.
    taken: Arc<Mutex<BTreeMap<u128, usize>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _place: OwnedSemaphorePermit,
    /// Of one who is counted.
    _share: Option<Share>,
}

#[derive(Debug)]
struct Share {
    network: u128,
    taken: Arc<Mutex<BTreeMap<u128, usize>>>,
}

impl Places {
    pub(crate) fn new(subscribers_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(subscribers_max)), taken: Arc::default() }
    }

    /// A place for the caller of a request. Whoever comes from this machine is not counted: it is a program here, or many people behind a proxy.
    ///
    /// # Errors
    ///
    /// 503 when all are taken, 429 when the caller has as many as one address gets.
    pub(crate) fn take(&self, parts: &Parts) -> Result<Place, Problem> {
        self.take_from(rates::address(parts))
    }

    fn take_from(&self, address: Option<IpAddr>) -> Result<Place, Problem> {
        let network = address.filter(|address| !address.is_loopback()).map(rates::network);
        let share = match network {
            Some(network) => Some(self.share(network)?),
            None => None,
        };
        let place = Arc::clone(&self.all).try_acquire_owned();
        let place = place.map_err(|_| Problem::busy("as many subscribers as this node takes are here"))?;
        Ok(Place { _place: place, _share: share })
    }

    fn share(&self, network: u128) -> Result<Share, Problem> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= limits::LIVE_SUBSCRIBERS_PER_ADDRESS_MAX {
            let most = limits::LIVE_SUBSCRIBERS_PER_ADDRESS_MAX;
            return Err(Problem::crowd("subscribers-of-address", most, "as many subscribers as one address gets are here"));
        }
        *count += 1;
        Ok(Share { network, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.network).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.network)
        } else {
            taken.insert(self.network, left)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_places_for_others() {
        let places = Places::new(limits::LIVE_SUBSCRIBERS_MAX);
        let take = |address: &str| places.take_from(Some(address.parse().unwrap()));
        let held: Vec<Place> = (0..limits::LIVE_SUBSCRIBERS_PER_ADDRESS_MAX).map(|_| take("192.0.2.1").unwrap()).collect();
        assert_eq!(take("192.0.2.1").unwrap_err().status().as_u16(), 429);
        drop(take("192.0.2.2").unwrap());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty(), "nobody is remembered");
        let here: Vec<Place> = (0..limits::LIVE_SUBSCRIBERS_MAX).map(|_| take("127.0.0.1").unwrap()).collect();
        assert_eq!(take("192.0.2.1").unwrap_err().status().as_u16(), 503);
        assert!(places.taken.lock().unwrap().is_empty(), "who got no place has no share either");
        assert!(here.iter().all(|place| place._share.is_none()));
    }
}
