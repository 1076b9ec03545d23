//! A gate: the routes over one backend, and the bounds that all requests share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, any, get, post};
use mobo_core::limits;
use mobo_core::rates::Rules;
#[cfg(feature = "graphql")]
use mobo_core::rights::Action;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
#[cfg(feature = "graphql")]
use tokio::time::Instant;

use crate::backend::{Backend, Principal};
use crate::idempotent::Writes;
use crate::problem::{self, Problem};
use crate::rates::{Counts, Rates, Standing};
use crate::realtime::pusher::{self, Counting, Openers, PusherApp};
use crate::realtime::{Feed, Place, Places, Rooms, phoenix};
use crate::serve::{Drained, Secure, serve};
use crate::watch::Watch;
use crate::{access, around, body, docs, health, openapi, rest};

/// Bounds of one gate. The default is `mobo_core::limits`; a small device takes less.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest wait for a whole request head, for a whole body, and for a reader who takes nothing of his answer. A connection without a
    /// request is closed after it, too.
    pub read_timeout: Duration,
    /// How long requests in work may go on once the node stops.
    pub drain_timeout: Duration,
    /// Requests in work at the same time; later ones are told to come back.
    pub requests_max: usize,
    /// Connections at the same time; later ones wait.
    pub connections_max: usize,
    /// Subscribers at the same time, each on a connection of its own; later ones are told to come back.
    pub subscribers_max: usize,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are held at the same time.
    pub bodies_bytes_max: usize,
    /// How often a caller may ask.
    pub rates: Rates,
    /// The same for what bears a label.
    pub rules: Rules,
    /// Who counts and measures requests; nobody by default.
    pub watch: Option<Arc<dyn Watch>>,
    /// Makes connections private; none by default, and then they are plain.
    pub secure: Option<Arc<dyn Secure>>,
    /// Apps of the Pusher protocol; none by default.
    pub pusher: Vec<PusherApp>,
    /// Whether GraphQL tells its schema; it does by default.
    pub graphql_introspection: bool,
    /// Whether answers say how long their parts took; they do not by default.
    pub server_timing: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            read_timeout: limits::HTTP_READ_TIMEOUT,
            drain_timeout: limits::HTTP_DRAIN_TIMEOUT,
            requests_max: limits::HTTP_REQUESTS_MAX,
            connections_max: limits::HTTP_CONNECTIONS_MAX,
            subscribers_max: limits::LIVE_SUBSCRIBERS_MAX,
            body_bytes_max: limits::HTTP_BODY_BYTES_MAX,
            bodies_bytes_max: limits::HTTP_BODIES_BYTES_MAX,
            rates: Rates::default(),
            rules: Rules::parse(limits::RATE_RULES).unwrap_or_default(),
            watch: None,
            secure: None,
            pusher: Vec::new(),
            graphql_introspection: true,
            server_timing: false,
        }
    }
}

/// Who a route is for. The matrix of rights asks every route with every caller, and this is what it expects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Openness {
    /// Anybody: it says nothing of what is stored.
    Anybody,
    /// What it gives depends on the caller, and strangers get nothing of what is stored.
    Filtered,
    /// Whoever a policy lets at the collection in its path, or whoever is trusted.
    Collection,
    /// Whoever shows a key.
    Keyed,
    /// Users who are signed in.
    User,
    /// Administrators, and services for what concerns users.
    Administrator,
}

/// A route: its path, who it is for, and what answers.
type Route = (&'static str, Openness, MethodRouter<Gate>);

/// Every route of the gate itself. A new one is added here and nowhere else: the test of the matrix of rights asks all of them.
fn routes() -> Vec<Route> {
    vec![
        ("/", Openness::Anybody, get(health::root)),
        ("/livez", Openness::Anybody, get(health::live)),
        ("/readyz", Openness::Anybody, get(health::ready)),
        ("/healthz", Openness::Anybody, get(health::ready)),
        ("/openapi.json", Openness::Filtered, get(openapi::document)),
        ("/docs", Openness::Filtered, get(docs::page)),
        ("/rest/v1/{collection}", Openness::Collection, any(rest::handle)),
        ("/rest/v1/rpc/{function}", Openness::Keyed, any(rest::function)),
        ("/rest/v1/{collection}/{id}/history", Openness::Collection, any(rest::past::handle)),
        ("/graphql/v1", Openness::Filtered, graphql()),
        ("/realtime/v1/websocket", Openness::Filtered, any(phoenix::handle)),
        ("/realtime/v1/api/broadcast", Openness::Filtered, post(phoenix::broadcast)),
        ("/app/{key}", Openness::Filtered, any(pusher::connect)),
        ("/apps/{id}/{*rest}", Openness::Filtered, any(pusher::api)),
        ("/pusher/auth", Openness::Filtered, post(pusher::authorize)),
        ("/pusher/user-auth", Openness::Filtered, post(pusher::authorize_user)),
    ]
}

#[cfg(feature = "graphql")]
fn graphql() -> MethodRouter<Gate> {
    any(crate::graphql::handle)
}

/// A node that was built without it refuses it by name.
#[cfg(not(feature = "graphql"))]
fn graphql() -> MethodRouter<Gate> {
    any(async || Problem::unsupported("GraphQL on a device").hint("ask the hub; /rest/v1 is the same on both"))
}

/// The paths of `routes`, and who they are for.
#[must_use]
pub fn paths() -> Vec<(&'static str, Openness)> {
    routes().into_iter().map(|(path, openness, _)| (path, openness)).collect()
}

/// Where a request comes from. [`serve`] puts it on every request; one without it is a stranger's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer(pub SocketAddr);

/// HTTP over one backend. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    backend: Arc<dyn Backend>,
    settings: Settings,
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    counts: Counts,
    writes: Writes,
    #[cfg(feature = "graphql")]
    schemas: crate::graphql::Schemas,
    feed: Arc<Feed>,
    rooms: Rooms,
    openers: Openers,
    counting: Counting,
    places: Places,
    /// True once the node stops: whoever listens for ever is told.
    closing: watch::Sender<bool>,
}

impl Gate {
    /// A gate over `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, settings: Settings) -> Self {
        let requests = Arc::new(Semaphore::new(settings.requests_max));
        // The largest body alone must fit.
        let bodies = Arc::new(Semaphore::new(settings.bodies_bytes_max.max(settings.body_bytes_max)));
        let counts = Counts::new(settings.rates, settings.rules.clone());
        let feed = Feed::new(Arc::clone(&backend));
        let (rooms, openers, closing) = (Rooms::default(), Openers::default(), watch::Sender::new(false));
        let (writes, places, counting) = (Writes::default(), Places::new(settings.subscribers_max), Counting::default());
        #[cfg(feature = "graphql")]
        let schemas = crate::graphql::Schemas::default();
        Self(Arc::new(Shared {
            backend,
            settings,
            requests,
            bodies,
            counts,
            writes,
            #[cfg(feature = "graphql")]
            schemas,
            feed,
            rooms,
            openers,
            counting,
            places,
            closing,
        }))
    }

    /// The routes, to be served by [`serve`](crate::serve::serve) or by a test.
    pub fn router(&self) -> Router {
        self.router_with(Router::new())
    }

    /// The routes, and those of `more`: they get request ids, CORS, problems and the guard against panics like the others.
    pub fn router_with(&self, more: Router) -> Router {
        let routes = routes().into_iter().fold(Router::new(), |router, (path, _, door)| router.route(path, door));
        routes
            .with_state(self.clone())
            .merge(more)
            .fallback(async |uri: Uri| Problem::nothing_at(uri.path()))
            .method_not_allowed_fallback(async || problem::method_of_route())
            .layer(from_fn_with_state(self.clone(), around::around))
    }

    /// Serves the routes until `stop` is ready; see [`serve`](crate::serve::serve).
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> Drained {
        self.serve_also(Router::new(), listener, stop).await
    }

    /// The same, with the routes of `more`.
    pub async fn serve_also(&self, more: Router, listener: TcpListener, stop: impl Future<Output = ()>) -> Drained {
        let closing = async {
            stop.await;
            self.0.closing.send_replace(true);
        };
        serve(listener, self.router_with(more), &self.0.settings, closing).await
    }

    /// Who makes a request; `None` for a stranger. For routes beside the gate's own.
    ///
    /// # Errors
    ///
    /// 401 for a credential that is not good.
    pub async fn principal(&self, parts: &Parts) -> Result<Option<Principal>, Problem> {
        access::principal(self, parts).await
    }

    /// The body of a request, within the limits of this gate. For routes beside the gate's own.
    ///
    /// # Errors
    ///
    /// 413, 408, 503 or 400, as for every body.
    pub async fn body(&self, headers: &HeaderMap, body: &mut Body) -> Result<Vec<u8>, Problem> {
        let _place = self.admit()?;
        Ok(body::read(self, headers, body).await?.to_vec())
    }

    /// The same for a form, and for what somebody sends who is nobody yet: at most [`limits::HTTP_SMALL_BODY_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// As [`body`](Self::body).
    pub async fn small_body(&self, headers: &HeaderMap, body: &mut Body) -> Result<Vec<u8>, Problem> {
        let _place = self.admit()?;
        Ok(body::read_small(self, headers, body).await?.to_vec())
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    /// Whether what a caller shows is good, as far as anybody can tell now.
    pub(crate) async fn is_good(&self, parts: &Parts) -> bool {
        match access::principal(self, parts).await {
            Ok(_) => true,
            Err(problem) => !problem.is_unproven(),
        }
    }

    /// How often everybody has asked.
    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Tells who counts that somebody has asked too often; gives what that one is told.
    pub(crate) fn limited(&self, standing: &Standing) -> Problem {
        if let Some(watch) = &self.0.settings.watch {
            standing.policies().iter().for_each(|policy| watch.limited(policy));
        }
        standing.problem()
    }

    /// Counts what a caller does to a collection, where the head of his request does not say it.
    ///
    /// # Errors
    ///
    /// 429 for one who does it too often.
    #[cfg(feature = "graphql")]
    pub(crate) fn count_act(&self, parts: &Parts, act: (&str, Action)) -> Result<(), Problem> {
        self.counts().act(parts, act, Instant::now()).map_err(|over| self.limited(&over))
    }

    /// Writes that carry a key.
    pub(crate) fn writes(&self) -> &Writes {
        &self.0.writes
    }

    /// The schemas of GraphQL.
    #[cfg(feature = "graphql")]
    pub(crate) fn schemas(&self) -> &crate::graphql::Schemas {
        &self.0.schemas
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.0.feed
    }

    /// Who had channels signed.
    pub(crate) fn openers(&self) -> &Openers {
        &self.0.openers
    }

    /// Which channels of very many are told how many they are.
    pub(crate) fn counting(&self) -> &Counting {
        &self.0.counting
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    /// Ready once the node stops.
    pub(crate) async fn closed(&self) {
        let mut closing = self.0.closing.subscribe();
        // It fails only when there is no gate any more.
        drop(closing.wait_for(|closing| *closing).await);
    }

    /// A place among those who stay.
    pub(crate) fn place_for_subscriber(&self, parts: &Parts) -> Result<Place, Problem> {
        self.0.places.take(parts)
    }

    /// A place among the requests in work.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0.requests).try_acquire_owned().map_err(|_| Problem::busy("as many requests as this node takes are in work"))
    }

    /// Room for some more bytes of a body.
    pub(crate) fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = u32::try_from(bytes).ok().and_then(|bytes| Arc::clone(&self.0.bodies).try_acquire_many_owned(bytes).ok());
        permit.ok_or_else(|| Problem::busy("the bodies of other requests fill the memory that is meant for them"))
    }
}
