//! The listener: connections within bounds, and an end that lets requests in work finish.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mobo_core::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::gate::{Peer, Settings};
use crate::patient::Patient;

/// How serving ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drained {
    /// Connections that were cut because their requests were still in work at the deadline; 0 is a clean end.
    pub cut: usize,
}

/// Serves `router` on `listener` until `stop` is ready. Then: take no new connection, close the idle ones, let requests in work finish, and
/// cut what is left after `settings.drain_timeout`.
///
/// Every connection is a task of this future: dropping it ends them all at once. A head or body that does not arrive within
/// `settings.read_timeout` and an answer of which nothing is taken for as long end their connection. Every request has its [`Peer`].
pub async fn serve(listener: TcpListener, router: Router, settings: &Settings, stop: impl Future<Output = ()>) -> Drained {
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let (close, closing) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (stream, peer, place) = accept(&listener, &places) => {
                connections.spawn(converse(stream, peer, router.clone(), (settings.clone(), closing.clone(), place)));
            }
        }
    }
    drop(listener);
    drop(close);
    let finished = timeout(settings.drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
    let cut = connections.len();
    if finished.is_err() {
        tracing::warn!(cut, "requests were still in work at the end of the drain, and were cut");
        connections.shutdown().await;
    }
    Drained { cut }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(limits::HTTP_ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    (settings, mut closing, _place): (Settings, watch::Receiver<()>, OwnedSemaphorePermit),
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "answers may be held back a little");
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let stream = TokioIo::new(Patient::new(stream, settings.read_timeout));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.read_timeout)
            .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
            .serve_connection(stream, service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
