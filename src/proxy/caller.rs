//! Who is at the other end of one connection: what its socket, its place and the requests on it know of each other.
use super::peer::Peer;
use super::places::Place;
use super::shared::Shared;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// One client's connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub shared: Arc<Shared>,
    /// `None` for ourselves.
    peer: Option<Peer>,
    place: Option<Place>,
    /// A request came, and the library has not taken all of its answer.
    open: AtomicBool,
    /// A request came, and its answer was not written to its end.
    answering: AtomicBool,
}

/// The client hung up before its answer was there. Ends the connection.
#[derive(Debug)]
pub(super) struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client hung up before it had its answer")
    }
}

impl std::error::Error for Gone {}

impl Caller {
    pub fn new(shared: Arc<Shared>, peer: Peer, place: Option<Place>) -> Arc<Self> {
        Self::with(shared, Some(peer), place)
    }

    /// Ourselves: it never hangs up, and takes nobody's place.
    pub fn ourselves(shared: Arc<Shared>) -> Arc<Self> {
        Self::with(shared, None, None)
    }

    fn with(shared: Arc<Shared>, peer: Option<Peer>, place: Option<Place>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            peer,
            place,
            open: AtomicBool::new(false),
            answering: AtomicBool::new(false),
        })
    }

    /// A request has come.
    pub fn begin(&self) {
        self.open.store(true, Relaxed);
        self.answering.store(true, Relaxed);
        self.set_idle(false);
    }

    /// The library has all of its answer.
    pub fn end(&self) {
        self.open.store(false, Relaxed);
    }

    /// All that the library had was written.
    pub fn flushed(&self) {
        if !self.open.load(Relaxed) && self.answering.swap(false, Relaxed) {
            self.set_idle(true);
        }
    }

    /// Is a request being answered? What is written otherwise is no answer of ours.
    pub fn is_answering(&self) -> bool {
        self.answering.load(Relaxed)
    }

    fn set_idle(&self, idle: bool) {
        if let Some(place) = &self.place {
            place.set_idle(idle);
        }
    }

    /// Resolves when the connection is idle and its place is needed.
    pub async fn gives_way(&self) {
        match &self.place {
            Some(place) => loop {
                place.asked_to_leave().await;
                if !self.is_answering() {
                    return;
                }
            },
            None => std::future::pending().await,
        }
    }

    /// Resolves when the client has hung up.
    pub async fn gone(&self) {
        match &self.peer {
            Some(peer) => peer.gone().await,
            None => std::future::pending().await,
        }
    }

    /// What comes of `work`, unless the client hangs up before.
    pub async fn waits_for<T>(&self, work: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.gone() => Err(Gone),
        }
    }
}

/// One request, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Caller>);

impl OpenRequest {
    pub fn new(caller: &Arc<Caller>) -> Self {
        caller.shared.open.send_modify(|open| *open += 1);
        caller.begin();
        Self(caller.clone())
    }

    /// Resolves when the client has hung up.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let caller = self.0.clone();
        async move { caller.gone().await }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        self.0.end();
        shared.open.send_modify(|open| *open -= 1);
        if !std::thread::panicking() {
            shared.heart.beat();
        }
    }
}
