//! PURE. Choosing a tier, giving up on one, and what is answered when none is left.
use super::kept::Kept;
use super::{Exchange, Input, Lost, Outcome, Refusal, Step, Terms, Why};
use crate::policy::{Moment, Standing, TierId};
use crate::proxy::answer::{Answer, Reading};
use crate::proxy::limits::{AGAIN_AFTER, OVERLOAD_RETRY_AFTER};
use crate::proxy::plan::Candidate;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use std::collections::BTreeSet;
use std::mem;

/// One tier at work on the request.
#[derive(Debug)]
pub(super) struct Attempt {
    pub to: Candidate,
    pub standing: Standing,
    pub began: Moment,
    /// When the answer last came further.
    pub heard: Option<Moment>,
    /// It was asked again on a fresh connection already.
    pub again: bool,
    /// It failed once already in a way that may pass at once.
    pub failed: bool,
    /// A limit of a remote tier has passed: the request goes to the next tier that is open.
    pub overdue: Option<&'static str>,
    /// When another tier was last looked for.
    pub looked: Moment,
}

impl Attempt {
    /// Something came of it; what only says that somebody is there does not count.
    pub fn hear(&mut self, now: Moment, reading: &Reading) {
        if reading.is_progress() {
            self.heard = Some(now);
        }
    }
}

/// An answer without content so far.
#[derive(Debug)]
pub(super) struct Holding {
    pub attempt: Attempt,
    pub status: u16,
    pub headers: HeaderMap,
    pub answer: Answer,
    /// Pieces of a stream, the first of which will carry the marks.
    pub held: Vec<Bytes>,
    pub held_bytes: usize,
}

#[derive(Debug)]
pub(super) enum State {
    Idle,
    Asking(Attempt),
    Judging {
        attempt: Attempt,
        status: u16,
        headers: HeaderMap,
        body: BytesMut,
    },
    Holding(Box<Holding>),
    Relaying {
        attempt: Attempt,
        answer: Answer,
    },
    /// `until`: how long the end of the upstream's body is waited for.
    Closing {
        attempt: Attempt,
        until: Moment,
    },
    Over,
}

impl State {
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Idle | Self::Over => None,
            Self::Asking(attempt)
            | Self::Judging { attempt, .. }
            | Self::Relaying { attempt, .. }
            | Self::Closing { attempt, .. } => Some(attempt),
            Self::Holding(holding) => Some(&holding.attempt),
        }
    }

    pub fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match self {
            Self::Idle | Self::Over => None,
            Self::Asking(attempt)
            | Self::Judging { attempt, .. }
            | Self::Relaying { attempt, .. }
            | Self::Closing { attempt, .. } => Some(attempt),
            Self::Holding(holding) => Some(&mut holding.attempt),
        }
    }

    pub fn into_attempt(self) -> Option<Attempt> {
        match self {
            Self::Idle | Self::Over => None,
            Self::Asking(attempt)
            | Self::Judging { attempt, .. }
            | Self::Relaying { attempt, .. }
            | Self::Closing { attempt, .. } => Some(attempt),
            Self::Holding(holding) => Some(holding.attempt),
        }
    }

    /// An attempt is under way, and the client has seen nothing of it.
    pub fn is_uncommitted(&self) -> bool {
        matches!(self, Self::Asking(_) | Self::Judging { .. } | Self::Holding(_))
    }
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) struct Loss {
    pub why: Why,
    /// How many failures it counts for; 0 when it says nothing against the tier.
    pub strikes: u32,
    pub told: Option<Outcome>,
    /// What is answered if no other tier does.
    pub overload: Option<Refusal>,
    /// The tier failed, rather than what the request is. Trying again later may help.
    pub failure: bool,
    /// It may have passed in a moment: the same tier is worth another try.
    pub passing: bool,
    /// The tier cannot carry the request: it is passed over, as if that had been known before it was asked.
    pub skip: bool,
}

impl Loss {
    /// The tier failed.
    pub fn failure(why: impl Into<Why>, strikes: u32) -> Self {
        let why = why.into();
        Self { why, strikes, told: None, overload: None, failure: true, passing: false, skip: false }
    }

    /// This tier is not the one for this request.
    pub fn unfit(why: impl Into<Why>) -> Self {
        Self { failure: false, skip: true, ..Self::failure(why, 0) }
    }
}

impl From<Lost> for Loss {
    fn from(lost: Lost) -> Self {
        let told = (lost == Lost::Refused).then_some(Outcome::Refused);
        match &lost {
            Lost::Untranslatable(_) => Self::unfit(&lost),
            Lost::Shortage(_) => Self { overload: Some(Refusal::Shortage), ..Self::failure(&lost, 0) },
            Lost::Reset => Self { passing: true, ..Self::failure(&lost, 1) },
            Lost::Refused
            | Lost::ConnectTimeout
            | Lost::Unreachable(_)
            | Lost::Stale
            | Lost::Malformed(_) => Self { told, ..Self::failure(&lost, 1) },
        }
    }
}

impl Exchange {
    pub fn new(terms: Terms, now: Moment) -> Self {
        Self {
            began: now,
            deadline: terms.timeout.map(|limit| now + limit),
            terms,
            chain: Vec::new(),
            down: Vec::new(),
            tried: BTreeSet::new(),
            attempts: 0,
            sent: false,
            overload: None,
            best_failed: None,
            losses: Vec::new(),
            kept: Kept::default(),
            state: State::Idle,
        }
    }

    /// The tiers as they stand now: known before anything that may choose one.
    pub fn see(&mut self, chain: Vec<Candidate>) {
        self.chain = chain;
    }

    /// The tiers that would be asked if they were not down now. One that was not asked for that has failed too.
    pub fn miss(&mut self, down: Vec<TierId>) {
        self.down = down;
    }

    /// Asks the first tier.
    pub fn begin(&mut self, now: Moment) -> Vec<Step> {
        match self.next(now) {
            Some(step) => vec![step],
            None => {
                self.state = State::Over;
                vec![Step::Refuse(Refusal::Failed(Vec::new()))]
            }
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The memory that is taken by what the client does not get yet.
    pub fn held(&self) -> usize {
        let now = match &self.state {
            State::Idle | State::Asking(_) | State::Closing { .. } | State::Over => 0,
            State::Judging { body, .. } => body.capacity(),
            State::Holding(holding) => holding.held_bytes + holding.answer.held(),
            State::Relaying { answer, .. } => answer.held(),
        };
        now + self.kept.bytes()
    }

    /// Tiers asked so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Some tier failed in a way that may be the request's own fault.
    pub fn is_suspect(&self) -> bool {
        self.kept.blames_any()
    }

    /// Why the last tier that was left was left.
    pub fn last_loss(&self) -> Option<&Why> {
        self.losses.last().map(|(_, why)| why)
    }

    /// The tier to ask next: the best open one. One that is leaving is DOWN, and gets nothing new.
    fn choice(&self) -> Option<&Candidate> {
        self.untried().find(|candidate| candidate.standing == Standing::Open)
    }

    pub(super) fn untried(&self) -> impl Iterator<Item = &Candidate> {
        let movable = self.movable();
        self.chain.iter().filter(move |c| movable && !self.tried.contains(&c.tier))
    }

    /// Without the body there are only fresh connections, and none of them is stale.
    pub(super) fn keeps_body(&self) -> bool {
        self.terms.replay
    }

    /// The request can still be sent.
    pub(super) fn movable(&self) -> bool {
        self.terms.replay || !self.sent
    }

    fn next(&mut self, now: Moment) -> Option<Step> {
        let to = self.choice()?.clone();
        let tier = to.tier;
        self.tried.insert(tier);
        self.attempts += 1;
        let standing = to.standing;
        self.state = State::Asking(Attempt {
            to,
            standing,
            began: now,
            heard: None,
            again: false,
            failed: false,
            overdue: None,
            looked: now,
        });
        // A connection that turns out to be stale costs the body, which without replay is there only once.
        Some(Step::Try { tier, fresh: !self.terms.replay })
    }

    /// Gives up on the tier that has the request, and asks the next one or answers what there is to say.
    pub(super) fn lose(&mut self, now: Moment, attempt: Attempt, loss: Loss) -> Vec<Step> {
        let tier = attempt.to.tier;
        if loss.passing && self.may_ask_again(&attempt) {
            let began = now + AGAIN_AFTER;
            self.state =
                State::Asking(Attempt { failed: true, began, heard: None, overdue: None, ..attempt });
            return vec![Step::TryAgain];
        }
        let mut steps = vec![Step::Leave];
        steps.extend(loss.told.map(|outcome| Step::Tell(tier, outcome)));
        if loss.strikes > 0 {
            let suspect = self.kept.is_suspect(tier);
            let outcome = if suspect { Outcome::Suspect } else { Outcome::Struck(loss.strikes) };
            steps.push(Step::Tell(tier, outcome));
        }
        if loss.failure {
            self.note_failed(tier);
        }
        self.overload = loss.overload.or(self.overload.take());
        let skipped = loss.skip.then(|| Step::Tell(tier, Outcome::Skipped(loss.why.clone())));
        self.losses.push((tier, loss.why));
        match (self.next(now), skipped) {
            (Some(step), Some(skipped)) => steps.extend([skipped, step]),
            (Some(step), None) => steps.extend([Step::Tell(tier, Outcome::MovedOn), step]),
            (None, skipped) => {
                let last = self.exhausted(tier);
                // Where its own words are passed on, that is what became of the request there.
                let is_told = last.iter().any(|step| matches!(step, Step::Tell(of, _) if *of == tier));
                steps.extend(skipped.filter(|_| !is_told));
                steps.extend(last);
            }
        }
        steps
    }

    /// Once, and where the tier stands open: its strike is counted when it fails again.
    fn may_ask_again(&self, attempt: &Attempt) -> bool {
        let open = |to: &Candidate| to.tier == attempt.to.tier && to.standing == Standing::Open;
        let stands = attempt.standing == Standing::Open && self.chain.iter().any(open);
        stands && self.terms.replay && !attempt.failed && attempt.overdue.is_none()
    }

    /// The tier takes no more requests now: it was not asked.
    pub(super) fn turned_away(&mut self, now: Moment, attempt: Attempt) -> Vec<Step> {
        let tier = attempt.to.tier;
        self.overload.get_or_insert(Refusal::Full);
        self.note_failed(tier);
        self.attempts -= 1;
        self.losses.push((tier, "is at its limit of concurrent requests".into()));
        match self.next(now) {
            Some(step) => vec![step],
            None => self.exhausted(tier),
        }
    }

    /// The tier did not answer for a reason that may pass.
    fn note_failed(&mut self, tier: TierId) {
        self.best_failed = Some(self.best_failed.map_or(tier, |best| best.min(tier)));
    }

    fn exhausted(&mut self, last: TierId) -> Vec<Step> {
        self.state = State::Over;
        let missed: Vec<TierId> =
            self.down.iter().filter(|tier| !self.tried.contains(tier)).copied().collect();
        missed.into_iter().for_each(|tier| self.note_failed(tier));
        match mem::take(&mut self.kept).best(self.best_failed, OVERLOAD_RETRY_AFTER) {
            Some((answer, outcome)) => {
                // A tier that the request had left before is counted there already.
                let told = outcome.filter(|_| answer.tier == last).map(|o| Step::Tell(answer.tier, o));
                answer.steps(self.attempts).into_iter().chain(told).collect()
            }
            None => {
                let failed = || Refusal::Failed(mem::take(&mut self.losses));
                vec![Step::Refuse(self.overload.take().unwrap_or_else(failed))]
            }
        }
    }

    /// What may happen to any attempt without content, whatever it has.
    pub(super) fn meanwhile(&mut self, now: Moment, mut state: State, input: Input) -> Vec<Step> {
        let loss = match input {
            Input::Cut => Loss::failure("its run is ended", 0),
            Input::Broken | Input::End => Lost::Reset.into(),
            Input::Lost(lost) => lost.into(),
            Input::Standing(standing) => {
                if let Some(attempt) = state.attempt_mut() {
                    attempt.standing = standing;
                }
                self.state = state;
                return self.look_elsewhere(now);
            }
            Input::Wake => {
                self.state = state;
                return self.look_elsewhere(now);
            }
            // Nothing that belongs to this state.
            Input::Full
            | Input::Sent
            | Input::Head { .. }
            | Input::Data(_)
            | Input::Resumed(_)
            | Input::NoRoom => {
                self.state = state;
                return Vec::new();
            }
        };
        match state.into_attempt() {
            Some(attempt) => self.lose(now, attempt, loss),
            None => Vec::new(),
        }
    }
}
