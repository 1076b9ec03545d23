//! The listener: connections within bounds, and an end that lets requests in work finish.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mobo_core::future::BoxFuture;
use mobo_core::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::gate::{Peer, Settings};
use crate::patient::Patient;

/// Makes a connection private before anything is read of it.
pub trait Secure: fmt::Debug + Send + Sync {
    /// Shakes hands with whoever has connected.
    fn secure(&self, stream: TcpStream) -> BoxFuture<'static, io::Result<Private>>;
}

/// What goes in and out of a connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that nobody else reads.
pub struct Private {
    /// What is said in it.
    pub stream: Box<dyn Io>,
    /// True when both sides agreed on HTTP/2.
    pub is_http2: bool,
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Private").field("is_http2", &self.is_http2).finish_non_exhaustive()
    }
}

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
    (settings, closing, _place): (Settings, watch::Receiver<()>, OwnedSemaphorePermit),
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "answers may be held back a little");
    }
    let patience = settings.read_timeout;
    let ended = match &settings.secure {
        None => speak(Patient::new(stream, patience), (peer, router, patience), closing).await,
        Some(secure) => match timeout(patience, secure.secure(stream)).await {
            Err(_) => Err("no handshake in time".into()),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(Private { stream, is_http2: true })) => {
                speak_http2(Patient::new(stream, patience), (peer, router, patience), closing).await
            }
            Ok(Ok(Private { stream, is_http2: false })) => speak(Patient::new(stream, patience), (peer, router, patience), closing).await,
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Who speaks to whom, and for how long nothing may come.
type Between = (SocketAddr, Router, Duration);
type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn speak<S: Io + 'static>(stream: Patient<S>, (peer, router, patience): Between, mut closing: watch::Receiver<()>) -> Ended {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answering(peer, router))
            .with_upgrades()
    );
    tokio::select! {
        ended = connection.as_mut() => Ok(ended?),
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            Ok(connection.await?)
        }
    }
}

#[cfg(feature = "http2")]
async fn speak_http2<S: Io + 'static>(stream: Patient<S>, (peer, router, patience): Between, mut closing: watch::Receiver<()>) -> Ended {
    let mut connection = pin!(
        hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .timer(TokioTimer::new())
            // Nothing says how long a head may take: whoever does not answer a ping is gone.
            .keep_alive_interval(patience)
            .keep_alive_timeout(patience)
            .max_concurrent_streams(limits::HTTP_STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answering(peer, router))
    );
    tokio::select! {
        ended = connection.as_mut() => Ok(ended?),
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            Ok(connection.await?)
        }
    }
}

#[cfg(feature = "http2")]
#[expect(clippy::cast_possible_truncation, reason = "64 KiB")]
const HEAD_BYTES_MAX: u32 = limits::HTTP_HEAD_BYTES_MAX as u32;

#[cfg(not(feature = "http2"))]
async fn speak_http2<S: Io + 'static>(_: Patient<S>, _: Between, _: watch::Receiver<()>) -> Ended {
    Err("this node does not speak HTTP/2".into())
}

fn answering(
    peer: SocketAddr,
    router: Router,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send {
    let router = TowerToHyperService::new(router);
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    })
}
