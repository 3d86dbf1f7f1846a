//! One request at one tier: connecting, asking, reading; and learning at once when the tier is to be left.
use super::exchange::Input;
use super::fate::Fate;
use super::fingerprint::Fingerprint;
use super::live::{Live, Visit};
use super::lost::Lost;
use super::outgoing::Outgoing;
use super::pings::Pings;
use super::route::TierRoute;
use super::totals::Account;
use super::upstream::Connection;
use super::upstream::Upstream;
use crate::clock;
use crate::policy::{Moment, RunId, Standing, TierId};
use hyper::body::{Body, Incoming, SizeHint};
use hyper::{Request, Response};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Dropped, it closes its connection at once.
pub(super) struct Attempt {
    pub tier: TierId,
    pub run: Option<RunId>,
    pub live: Arc<Live>,
    pub visit: Visit,
    pub account: Account,
    /// When it began; for the failover time of a refused connection.
    pub began: Moment,
    upstream: Upstream,
    connect: Duration,
    fate: Pending<Option<(watch::Receiver<Fate>, Fate)>>,
    phase: Phase,
}

enum Phase {
    Connecting(Pending<Result<Connection, Lost>>),
    /// Connected: the driver has to hand over the request.
    Connected(Connection),
    Asking(Pending<(Connection, Result<Response<Incoming>, Lost>)>),
    Reading(Connection, Incoming, Pings),
    /// The answer is over, or there is none.
    Spent,
}

/// What the driver has to know beside the machine's inputs.
pub(super) enum Progress {
    /// The request can be sent now.
    Connected,
    /// The head of the answer is there, or none will come. `written`: when the last byte of the request was.
    Asked {
        written: Option<Moment>,
        input: Input,
    },
    Other(Input),
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt({:?} at {:?})", self.tier, self.upstream)
    }
}

impl Attempt {
    /// Begins at `route`, if it takes one more request; over an idle connection unless `fresh`. After a `pause` the
    /// connection is a fresh one. `request` tells it from others, where that is known.
    pub fn begin(
        route: &TierRoute,
        request: Option<Fingerprint>,
        fresh: bool,
        pause: Option<Duration>,
    ) -> Option<Self> {
        let upstream = route.upstream.clone()?;
        let (visit, account) = route.live.enter(request)?;
        let mut fate = route.live.fate();
        if *fate.borrow() != (Fate { standing: Standing::Open, cut: false }) {
            // It changed between the choice and now.
            fate.mark_changed();
        }
        let mut attempt = Self {
            tier: route.tier,
            run: route.run,
            live: route.live.clone(),
            visit,
            account,
            began: clock::now(),
            upstream,
            connect: route.connect,
            fate: Box::pin(changed(fate)),
            phase: Phase::Spent,
        };
        match pause {
            None => attempt.connect(fresh),
            Some(pause) => attempt.open(pause),
        }
        Some(attempt)
    }

    /// Connects, again if need be.
    pub fn connect(&mut self, fresh: bool) {
        if !fresh && let Some(connection) = self.live.pool.take() {
            self.phase = Phase::Connected(connection);
            return;
        }
        self.open(Duration::ZERO);
    }

    /// Asks the same run anew after `pause`, whatever was read so far. What becomes of the run is told meanwhile.
    pub fn again(&mut self, pause: Duration) {
        self.began = clock::now() + pause;
        self.open(pause);
    }

    fn open(&mut self, pause: Duration) {
        let (upstream, fate, limit) = (self.upstream.clone(), self.live.fate(), self.connect);
        self.phase = Phase::Connecting(Box::pin(async move {
            if pause > Duration::ZERO {
                tokio::time::sleep(pause).await;
            }
            Connection::open(&upstream, fate, limit).await
        }));
    }

    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether the answer was read to its end. With a length in its head the end comes with its last byte, and nobody
    /// asks for more.
    pub fn has_ended(&mut self) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Spent) {
            Phase::Reading(connection, body, _) if body.is_end_stream() => {
                self.recycle(connection);
                true
            }
            phase => {
                self.phase = phase;
                false
            }
        }
    }

    fn recycle(&self, connection: Connection) {
        if !self.live.fate_now().cut {
            self.live.pool.put(connection);
        }
    }

    /// How long the answer is, as far as its head said.
    pub fn size_hint(&self) -> SizeHint {
        match &self.phase {
            Phase::Reading(_, body, _) => body.size_hint(),
            Phase::Connecting(_) | Phase::Connected(_) | Phase::Asking(_) | Phase::Spent => {
                SizeHint::default()
            }
        }
    }

    /// Hands over the request.
    pub fn send(&mut self, request: Request<Outgoing>) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Spent) {
            Phase::Connected(mut connection) => Phase::Asking(Box::pin(async move {
                let answer = connection.send(request).await;
                (connection, answer)
            })),
            other => other,
        };
    }

    /// What becomes of the tier's run.
    pub fn poll_fate(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let Some((receiver, fate)) = ready!(self.fate.as_mut().poll(cx)) else { return Poll::Pending };
        self.fate = Box::pin(changed(receiver));
        Poll::Ready(if fate.cut { Input::Cut } else { Input::Standing(fate.standing) })
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if let Poll::Ready(input) = self.poll_fate(cx) {
            return Poll::Ready(Progress::Other(input));
        }
        match std::mem::replace(&mut self.phase, Phase::Spent) {
            Phase::Connecting(mut connecting) => match connecting.as_mut().poll(cx) {
                Poll::Pending => self.phase = Phase::Connecting(connecting),
                Poll::Ready(Ok(connection)) => {
                    self.phase = Phase::Connected(connection);
                    return Poll::Ready(Progress::Connected);
                }
                Poll::Ready(Err(lost)) => return Poll::Ready(Progress::Other(self.lost(Input::Lost(lost)))),
            },
            Phase::Connected(connection) => {
                self.phase = Phase::Connected(connection);
                return Poll::Ready(Progress::Connected);
            }
            Phase::Asking(mut asking) => match asking.as_mut().poll(cx) {
                Poll::Pending => self.phase = Phase::Asking(asking),
                Poll::Ready((connection, answer)) => return Poll::Ready(self.asked(connection, answer)),
            },
            Phase::Reading(connection, body, pings) => {
                return self.read(cx, connection, body, pings).map(Progress::Other);
            }
            Phase::Spent => {}
        }
        Poll::Pending
    }

    fn asked(&mut self, connection: Connection, answer: Result<Response<Incoming>, Lost>) -> Progress {
        let written = connection.wire.last_write();
        let written = (written >= self.began).then_some(written);
        let input = match answer {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let pings = if head.status.is_success() { Pings::default() } else { Pings::Refusal };
                self.phase = Phase::Reading(connection, body, pings);
                Input::Head { status: head.status.as_u16(), headers: head.headers }
            }
            Err(lost) => self.lost(Input::Lost(lost)),
        };
        Progress::Asked { written, input }
    }

    /// The end of a connection, unless we ended it ourselves: the news of the cut may come after its effect.
    fn lost(&self, input: Input) -> Input {
        if self.live.fate_now().cut {
            return Input::Cut;
        }
        if matches!(input, Input::Broken | Input::Lost(Lost::Reset | Lost::Stale)) {
            self.visit.lost();
        }
        input
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        connection: Connection,
        mut body: Incoming,
        mut pings: Pings,
    ) -> Poll<Input> {
        loop {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Pending => {
                    self.phase = Phase::Reading(connection, body, pings);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing to anybody here.
                    let Ok(data) = frame.into_data() else { continue };
                    if pings.hold_work(&data) {
                        self.live.pulse().progress();
                    }
                    self.phase = Phase::Reading(connection, body, pings);
                    return Poll::Ready(Input::Data(data));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(self.lost(Input::Broken)),
                Poll::Ready(None) => {
                    self.recycle(connection);
                    return Poll::Ready(Input::End);
                }
            }
        }
    }
}

/// The next change of the run's fate; `None` when there will be none.
async fn changed(mut fate: watch::Receiver<Fate>) -> Option<(watch::Receiver<Fate>, Fate)> {
    match fate.changed().await {
        Ok(()) => {
            let now = *fate.borrow_and_update();
            Some((fate, now))
        }
        // The attempt itself holds the `Live`, so this cannot be; were it so, nothing would change any more.
        Err(_) => std::future::pending().await,
    }
}
