//! PURE. One request as a machine: plan → attempt → hold until the commit point → relay → outcome.
//!
//! The driver tells it what happened (`on`) and performs the steps that it answers. Times come in as arguments;
//! `wake_at` says when to call again if nothing happens. The states and what ends each of them:
//!
//! | state | holds | an error, an early end | the tier is leaving | the run is cut |
//! | --- | --- | --- | --- | --- |
//! | Idle | nothing yet | – | – | – |
//! | Asking | no head of an answer yet | next tier | next tier, if one is open | next tier |
//! | Judging | the body of an error answer | next tier | next tier, if one is open | next tier |
//! | Holding | an answer without content so far | next tier | next tier, if one is open | next tier |
//! | Relaying | an answer that the client has begun to read | error event, no `[DONE]` | goes on | error event |
//! | Closing | an answer that is complete but for the connection's end | end | end | end |
//! | Over | nothing | – | – | – |
//!
//! When the memory for all that is held back is used up (`NoRoom`), an answer that is being held is committed, and an event that
//! is not whole is handed on as it is. What has to be whole to be read (an error, Ollama's words) is given up: next tier, or cut.
//!
//! Whatever ends an answer of which nothing is missing (every choice has its finish reason, the object is whole): it is
//! the client's, and ended by us.
//!
//! A tier that reset its connection before any content, or answered 500, 502 or 504, is asked once more: many such failures pass
//! at once. It is left without that when it is not open any more, or when its run is cut meanwhile. (No tier has equals yet.)
//!
//! A client that hangs up is no input: the driver is dropped, and with it the upstream connection.
mod attempts;
mod endings;
mod judging;
mod kept;
mod turns;
mod waits;
mod why;

use self::attempts::State;
use self::kept::Kept;
pub(super) use self::why::Why;
use super::lost::Lost;
use super::plan::Candidate;
use super::terms::Terms;
use crate::policy::{Moment, Standing, TierId};
use bytes::Bytes;
use http::HeaderMap;
use std::collections::BTreeSet;
use std::time::Duration;

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// `max_concurrent` requests are at the tier already.
    Full,
    /// The request's body is being written.
    Sent,
    /// No answer came.
    Lost(Lost),
    Head {
        status: u16,
        headers: HeaderMap,
    },
    Data(Bytes),
    /// The answer ended as HTTP says it should.
    End,
    /// The answer's connection ended before the answer did.
    Broken,
    /// The standing of the tier that has the request changed.
    Standing(Standing),
    /// The upstream connections of the run are being closed.
    Cut,
    /// The client reads again, after this time in which nothing could be asked of the engine.
    Resumed(Duration),
    /// There is no memory left for what is held back (`held`).
    NoRoom,
    /// The moment of `wake_at` has come.
    Wake,
}

/// What the driver does next. Steps of one list are performed in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Ask this tier, on a new connection when `fresh`.
    Try { tier: TierId, fresh: bool },
    /// Ask the tier of the attempt that is in flight once more, `AGAIN_AFTER` from now, on a new connection.
    TryAgain,
    /// Close the connection of the attempt that is in flight.
    Leave,
    /// The head of the client's answer.
    Head { tier: TierId, status: u16, headers: HeaderMap, weakened: bool, attempts: u32 },
    /// Bytes of the client's answer.
    Body(Bytes),
    /// The answer is whole.
    End,
    /// End the client's connection so that it sees that the answer is not whole.
    Abort,
    /// Answer with an error of our own.
    Refuse(Refusal),
    /// Count.
    Tell(TierId, Outcome),
}

/// Errors of our own that end a request which had tiers to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Every tier was tried: which, and what became of it.
    Failed(Vec<(TierId, Why)>),
    /// Every tier that answers is at its `max_concurrent`.
    Full,
    /// This host has no descriptor or port left to reach the tiers.
    Shortage,
    TimedOut,
    /// It was there when two engines died: refused until then.
    Poison(Moment),
}

/// What a request did at one tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nobody listened there.
    Refused,
    /// It failed so many times over.
    Struck(u32),
    /// It failed over a request over which another one had failed before.
    Suspect,
    /// It failed before, and that was the request's own fault.
    Acquitted,
    /// It has no room, and said so.
    TurnedAway(Option<Duration>),
    /// It refuses what we are configured to ask.
    Misconfigured(String),
    /// It does not serve the path, or whoever answered is not the engine.
    NotServed,
    /// It cannot carry the request, and said so: no failure, and no failover.
    Skipped(Why),
    /// The request went to another tier.
    MovedOn,
    Answered,
    /// It ended in the middle of its answer.
    Cut,
}

/// One request, from its plan to its outcome.
#[derive(Debug)]
pub(super) struct Exchange {
    terms: Terms,
    began: Moment,
    deadline: Option<Moment>,
    /// The tiers as they stand now.
    chain: Vec<Candidate>,
    /// Those that could carry the request, but are down now.
    down: Vec<TierId>,
    tried: BTreeSet<TierId>,
    attempts: u32,
    /// The body went out: without replay there is no other try.
    sent: bool,
    /// Why some tier could not be asked although it may be well: what is answered when no tier is left.
    overload: Option<Refusal>,
    /// The best tier that was lost to a failure or an overload, rather than to what the request is.
    best_failed: Option<TierId>,
    losses: Vec<(TierId, Why)>,
    kept: Kept,
    state: State,
}

#[cfg(test)]
mod tests;
