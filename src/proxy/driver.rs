//! Joins one request's machine ([`Exchange`]) to sockets and clocks: performs its steps, and tells it what happens.
//! First it runs inside the service's future, until there is an answer; then it is the answer's body.
mod sending;

use super::attempt::{Attempt, Progress};
use super::body::{Next, Relay, ReplyBody};
use super::budget::Lease;
use super::exchange::{Exchange, Input, Outcome, Refusal, Step};
use super::headers;
use super::limits::AGAIN_AFTER;
use super::live::Live;
use super::lost::Lost;
use super::memory::Held;
use super::outgoing::Outgoing;
use super::overload;
use super::plan::{self, Ask, NoTier, Plan};
use super::reply::OwnError;
use super::route::RouteTable;
use super::shared::{Report, Shared};
use super::terms::Terms;
use super::totals::{Account, End};
use super::veil;
use crate::clock;
use crate::policy::{Moment, RunId, TierId};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use serde_json::Value;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// One request.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    table: Arc<RouteTable>,
    ask: Ask,
    /// Header fields of the client.
    fields: HeaderMap,
    request_id: HeaderValue,
    lease: Option<Lease>,
    exchange: Exchange,
    /// What the exchange holds back.
    held: Held,
    skipped: Vec<(TierId, String)>,
    /// Tiers that were asked, and said that they cannot carry it.
    declined: Vec<(TierId, String)>,
    attempt: Option<Attempt>,
    /// The request for the tier that is connected, while it is being made from a large body.
    wording: Option<oneshot::Receiver<Option<Request<Outgoing>>>>,
    /// The tier that was left last, for the accounting that follows.
    left: Option<Left>,
    /// The answer is the engine's own error.
    is_error: bool,
    /// When the client's request came.
    at: Moment,
    /// When the attempt before this one was known to be lost.
    lost_at: Option<Moment>,
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off; `None`: it has.
    armed: Option<Moment>,
    /// What happened without anything to wait for.
    pending: VecDeque<Input>,
    /// Steps that concern the client.
    out: VecDeque<Step>,
    committed: bool,
    /// Since when the client has a piece of the answer to read.
    handed: Option<Moment>,
    /// The connection to an engine of ours has ended under it; a run that ends closes its port as well.
    reset: bool,
    /// Tiers that were left for that.
    ends: u32,
}

/// What is told of an attempt.
struct Visited<'a> {
    run: Option<RunId>,
    live: &'a Live,
    began: Moment,
}

/// What outlives an attempt.
#[derive(Debug)]
struct Left {
    tier: TierId,
    run: Option<RunId>,
    began: Moment,
    live: Arc<Live>,
    account: Account,
}

/// A request as it came from the client.
pub(super) struct Arrived {
    pub ask: Ask,
    pub fields: HeaderMap,
    pub request_id: HeaderValue,
    pub lease: Lease,
    pub at: Moment,
}

/// Answers one request by the first tier that can.
pub(super) async fn answer(shared: Arc<Shared>, arrived: Arrived) -> Response<ReplyBody> {
    let table = shared.routes.load_full();
    // In this order: what is declared first is dropped last, and with the lease goes a large body.
    let Arrived { lease, ask, fields, request_id, at } = arrived;
    let refused = shared.suspects().refused_until(ask.fingerprint, clock::now());
    if let Some(until) = refused {
        return OwnError::poison(until).into_response();
    }
    if !shared.limits.any_model
        && let Some(unknown) = plan::unknown_model(&table, &ask)
    {
        return OwnError::no_tier(unknown, &table, &shared).into_response();
    }
    let Plan { chain, down, skipped } = plan::plan(&table, &ask, clock::now());
    if chain.is_empty() {
        let why = plan::why_none(&table, &ask);
        let mut response = OwnError::no_tier(why, &table, &shared).into_response();
        headers::put_skipped(response.headers_mut(), &table, &skipped, None);
        return response;
    }
    let terms = Terms {
        endpoint: ask.endpoint,
        choices: ask.choices(),
        weakened_choices: ask.prompts(),
        streaming: ask.streaming,
        include_usage: ask.body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
        replay: lease.keeps(),
        answer_id: format!("chatcmpl-{}", shared.new_name()),
        created: clock::wall_ms() / 1000,
        timeout: shared.limits.request_timeout,
    };
    let mut exchange = Exchange::new(terms, at);
    exchange.see(chain);
    exchange.miss(down);
    let mut driver = Box::new(Driver {
        held: Held::new(&shared.held_answers),
        shared,
        table,
        ask,
        fields,
        request_id,
        lease: Some(lease),
        exchange,
        skipped,
        declined: Vec::new(),
        attempt: None,
        wording: None,
        left: None,
        is_error: false,
        at,
        lost_at: None,
        timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
        armed: None,
        pending: VecDeque::new(),
        out: VecDeque::new(),
        committed: false,
        handed: None,
        reset: false,
        ends: 0,
    });
    let first = driver.exchange.begin(clock::now());
    driver.perform(first);
    driver.run().await
}

impl Driver {
    /// Until there is an answer, or its beginning.
    async fn run(mut self: Box<Self>) -> Response<ReplyBody> {
        loop {
            match self.out.pop_front() {
                Some(Step::Head { tier, status, headers, weakened, attempts }) => {
                    return self.reply(tier, status, &headers, weakened, attempts);
                }
                Some(Step::Refuse(why)) => return self.refuse(why),
                Some(_) => {}
                // A machine that is over without an answer would be a mistake in it: the client gets an error for it.
                None if self.exchange.is_over() => return self.refuse(Refusal::Failed(Vec::new())),
                None => {
                    let input = poll_fn(|cx| self.poll_input(cx)).await;
                    self.advance(input);
                }
            }
        }
    }

    fn refuse(&mut self, why: Refusal) -> Response<ReplyBody> {
        self.settle_left();
        let error = match (why, plan::why_none(&self.table, &self.ask)) {
            // There is a tier that could answer, but not this, or not as this client wants it.
            (Refusal::Failed(_), why @ (NoTier::OnlyWeakened | NoTier::Wrong { .. })) => {
                OwnError::no_tier(why, &self.table, &self.shared)
            }
            (why, _) => OwnError::refusal(why, &self.skipped, &self.table, &self.shared),
        };
        let mut response = error.into_response();
        let fields = response.headers_mut();
        headers::put_skipped(fields, &self.table, &self.passed_over(), None);
        headers::put_attempts(fields, self.exchange.attempts());
        response
    }

    fn reply(
        mut self: Box<Self>,
        tier: TierId,
        status: u16,
        upstream: &HeaderMap,
        weakened: bool,
        attempts: u32,
    ) -> Response<ReplyBody> {
        self.settle_left();
        let mut fields = headers::to_client(upstream, &self.shared.redactor);
        if let Some(route) = self.table.tier(tier) {
            fields.insert(headers::TIER, headers::value_of(&route.name));
        }
        if weakened {
            self.at(tier).inspect(|(_, account)| account.weakened());
            fields.insert(headers::DEGRADED, HeaderValue::from_static("true"));
        }
        headers::put_attempts(&mut fields, attempts);
        headers::put_skipped(&mut fields, &self.table, &self.passed_over(), Some(tier));
        let took = clock::now().since(self.at);
        if self.ask.streaming && !self.is_error {
            self.at(tier).inspect(|(_, account)| account.first_content(took));
        }
        // From here on it cannot be sent again.
        (self.ask.body, self.ask.numerals) = (Arc::default(), Arc::default());
        self.lease = None;
        self.committed = true;
        let body = match self.whole() {
            Some(bytes) => ReplyBody::whole(bytes),
            None => ReplyBody::relayed(self),
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
        *response.headers_mut() = fields;
        response
    }

    /// Every tier that cannot carry the request, whoever found that out, best first.
    fn passed_over(&self) -> Vec<(TierId, String)> {
        let mut all = [self.skipped.as_slice(), self.declined.as_slice()].concat();
        all.sort_by_key(|(tier, _)| *tier);
        all
    }

    /// The answer's bytes, when all of them are there.
    fn whole(&mut self) -> Option<Bytes> {
        if self.out.back() != Some(&Step::End) {
            return None;
        }
        let mut pieces = self.out.drain(..).filter_map(|step| match step {
            Step::Body(bytes) => Some(bytes),
            _ => None,
        });
        let first = pieces.next().unwrap_or_default();
        let mut rest = pieces.peekable();
        if rest.peek().is_none() {
            return Some(first);
        }
        let mut all = BytesMut::from(&first[..]);
        rest.for_each(|piece| all.extend_from_slice(&piece));
        Some(all.freeze())
    }

    fn set_stalled(&mut self, stalled: bool) {
        if let Some(attempt) = &mut self.attempt {
            attempt.visit.set_stalled(stalled);
        }
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if let Some(input) = self.pending.pop_front() {
            return Poll::Ready(input);
        }
        if self.poll_timer(cx).is_ready() {
            return Poll::Ready(Input::Wake);
        }
        let Some(attempt) = &mut self.attempt else { return Poll::Pending };
        if let Some(wording) = &mut self.wording {
            if let Poll::Ready(input) = attempt.poll_fate(cx) {
                return Poll::Ready(input);
            }
            let request = ready!(Pin::new(wording).poll(cx));
            self.wording = None;
            return Poll::Ready(self.send(request.ok().flatten()));
        }
        Poll::Ready(match ready!(attempt.poll(cx)) {
            Progress::Connected => match self.word() {
                Some(input) => input,
                None => return self.poll_input(cx),
            },
            Progress::Asked { written, input } => {
                self.note_failover(written);
                input
            }
            Progress::Other(input) => input,
        })
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(at) = self.exchange.wake_at() else { return Poll::Pending };
            if self.armed.is_none_or(|armed| at < armed) {
                self.timer.as_mut().reset(Instant::now() + at.since(clock::now()));
                self.armed = Some(at);
            }
            ready!(self.timer.as_mut().poll(cx));
            self.armed = None;
            if clock::now() >= at {
                return Poll::Ready(());
            }
        }
    }

    fn advance(&mut self, input: Input) {
        let now = clock::now();
        let known_lost = match (&input, &self.attempt) {
            (Input::Lost(Lost::Refused), Some(attempt)) => attempt.began,
            _ => now,
        };
        let is_end = matches!(input, Input::Cut | Input::Broken | Input::Lost(Lost::Reset));
        let is_end = is_end && self.attempt.as_ref().is_some_and(|attempt| attempt.run.is_some());
        // What goes on answering has not ended.
        self.reset = is_end || (self.reset && !matches!(input, Input::Head { .. }));
        self.look_around(&input);
        let steps = self.exchange.on(now, input);
        if steps.contains(&Step::Leave) {
            self.ends += u32::from(std::mem::take(&mut self.reset));
        }
        if steps.iter().any(|step| matches!(step, Step::Tell(_, Outcome::MovedOn))) {
            self.lost_at.get_or_insert(known_lost);
        }
        self.perform(steps);
        if !self.held.resize(self.exchange.held()) {
            let steps = self.exchange.on(now, Input::NoRoom);
            self.perform(steps);
            // What could not be let go is little, and an answer that goes on is worth it.
            let _ = self.held.resize(self.exchange.held());
        }
    }

    /// Before a tier may be chosen: which ones there are now.
    fn look_around(&mut self, input: &Input) {
        let table = self.shared.routes.load();
        let quiet = matches!(input, Input::Data(_) | Input::Sent | Input::Head { .. } | Input::Resumed(_));
        // Whether others are answered meanwhile may count with any of them.
        let quiet = quiet && !self.exchange.is_suspect();
        // Without replay the body went out with the first try, and nothing can be said of who would carry it.
        let is_gone = self.ask.body.is_null();
        if self.committed || is_gone || (quiet && Arc::ptr_eq(&table, &self.table)) {
            return;
        }
        self.table = Arc::clone(&table);
        let Plan { chain, down, skipped } = plan::plan(&self.table, &self.ask, clock::now());
        self.skipped = skipped;
        self.exchange.see(chain);
        self.exchange.miss(down);
    }

    fn perform(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Try { tier, fresh } => self.attempt_at(tier, fresh),
                Step::TryAgain => {
                    self.wording = None;
                    self.attempt.iter_mut().for_each(|attempt| attempt.again(AGAIN_AFTER));
                }
                Step::Leave => {
                    self.wording = None;
                    let Some(Attempt { tier, run, began, live, account, .. }) = self.attempt.take() else {
                        continue;
                    };
                    self.left = Some(Left { tier, run, began, live, account });
                }
                Step::Tell(tier, outcome) => self.tell(tier, outcome),
                Step::Head { status, .. } => {
                    self.is_error = status >= 400;
                    self.out.push_back(step);
                }
                Step::Body(bytes) if self.is_error => {
                    let body = veil::error_body(&self.shared.redactor, bytes);
                    self.out.push_back(Step::Body(body));
                }
                Step::Body(_) | Step::End | Step::Abort | Step::Refuse(_) => self.out.push_back(step),
            }
        }
    }

    fn note_failover(&mut self, written: Option<Moment>) {
        if let Some((written, lost)) = written.zip(self.lost_at)
            && written >= lost
        {
            self.lost_at = None;
            self.shared.failovers.record(written.since(lost));
        }
    }

    fn tell(&mut self, tier: TierId, outcome: Outcome) {
        if matches!(outcome, Outcome::Skipped(_) | Outcome::MovedOn | Outcome::Cut) {
            let why = self.exchange.last_loss().map(ToString::to_string).unwrap_or_default();
            let id = &self.request_id;
            let name = self.table.tier(tier).map(|route| route.name.as_str());
            tracing::debug!(request = ?id, tier = name, ?outcome, why, "a tier did not answer a request");
        }
        let good = !self.is_error;
        let answered = if good { End::Answered } else { End::ClientError };
        let request = self.ask.fingerprint;
        if outcome == Outcome::Acquitted {
            // The tier was left long ago.
            self.table.tier(tier).iter().for_each(|route| route.live.acquitted(request));
        }
        let Some((Visited { run, live, began }, account)) = self.at(tier) else { return };
        match outcome {
            Outcome::Refused => self.report(Report::Refused { tier, run, at: clock::now() }),
            Outcome::Struck(_) => live.failed(request, began, false),
            Outcome::Suspect => live.failed(request, began, true),
            Outcome::Acquitted => {}
            Outcome::TurnedAway(asked) => {
                live.leave_alone(overload::pause(asked));
                live.turned_away();
            }
            Outcome::Misconfigured(evidence) => {
                live.failed(request, began, false);
                self.report(Report::Misconfigured { tier, run, evidence });
            }
            Outcome::NotServed => live.not_served(),
            Outcome::Skipped(why) => {
                account.settle(End::Skipped);
                self.declined.push((tier, why.told()));
            }
            Outcome::MovedOn => account.settle(End::FailedOver),
            Outcome::Answered => {
                if good {
                    live.succeeded(request, began);
                }
                account.settle(answered);
                self.shared.suspects().answered(request, tier, began);
            }
            Outcome::Cut => account.settle(End::Cut),
        }
    }

    fn report(&self, report: Report) {
        // Full: the agent has news of this kind already, and the next request brings it again.
        let _ = self.shared.reports.try_send(report);
    }

    /// The attempt at `tier`, or what is left of it.
    fn at(&mut self, tier: TierId) -> Option<(Visited<'_>, &mut Account)> {
        if let Some(here) = self.attempt.as_mut().filter(|here| here.tier == tier) {
            let visited = Visited { run: here.run, live: &here.live, began: here.began };
            return Some((visited, &mut here.account));
        }
        let left = self.left.as_mut().filter(|left| left.tier == tier)?;
        Some((Visited { run: left.run, live: &left.live, began: left.began }, &mut left.account))
    }

    /// The client is about to be answered, and not by the tier that was left last: nobody took the request from there.
    fn settle_left(&mut self) {
        if let Some(left) = &mut self.left {
            left.account.settle(End::Refused);
        }
    }
}

impl Relay for Driver {
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Next {
        if let Some(since) = self.handed.take() {
            self.set_stalled(false);
            let now = clock::now();
            let steps = self.exchange.on(now, Input::Resumed(now.since(since)));
            self.perform(steps);
        }
        loop {
            match self.out.pop_front() {
                Some(Step::Body(bytes)) if bytes.is_empty() => {}
                Some(Step::Body(bytes)) => {
                    self.handed = Some(clock::now());
                    self.set_stalled(true);
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Step::End) => return Poll::Ready(None),
                Some(Step::Abort) => return Poll::Ready(Some(Err(io::Error::other("the answer was cut")))),
                Some(_) => {}
                None if self.exchange.is_over() => return Poll::Ready(None),
                None => {
                    let input = ready!(self.poll_input(cx));
                    self.advance(input);
                }
            }
        }
    }
}
