//! Sending the request to a tier: in its words, and over its connection.
use super::Driver;
use crate::clock;
use crate::policy::TierId;
use crate::proxy::attempt::Attempt;
use crate::proxy::budget::Lease;
use crate::proxy::exchange::{Input, Refusal, Step};
use crate::proxy::headers;
use crate::proxy::lost::Lost;
use crate::proxy::outgoing::Outgoing;
use crate::proxy::wording;
use hyper::Request;
use std::sync::Arc;
use std::time::Duration;

/// A request under which two engines of ours ended goes to no third one before it is known how they did. A death is told with
/// its cause, which is read from the run's log: 0.7 s were seen on a busy machine.
const NEWS_OF_A_DEATH: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn attempt_at(&mut self, tier: TierId, fresh: bool) {
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.tier == tier) {
            attempt.connect(fresh);
            return;
        }
        let (request, pause) = (self.ask.fingerprint, (self.ends >= 2).then_some(NEWS_OF_A_DEATH));
        let route = self.table.tier(tier);
        self.attempt = route.and_then(|route| Attempt::begin(route, Some(request), fresh, pause));
        if self.attempt.is_none() {
            self.pending.push_back(Input::Full);
        }
    }

    /// Puts the request into the words of the upstream that is connected, and hands it over; a large one later.
    pub(super) fn word(&mut self) -> Option<Input> {
        let refused = self.shared.suspects().refused_until(self.ask.fingerprint, clock::now());
        if let Some(until) = refused {
            self.perform(vec![Step::Leave, Step::Refuse(Refusal::Poison(until))]);
            return Some(Input::Sent);
        }
        let attempt = self.attempt.as_ref()?;
        let (tier, to, table) = (attempt.tier, attempt.upstream().clone(), self.table.clone());
        let (mut ask, id) = (self.ask.clone(), self.request_id.clone());
        let further = &self.shared.limits.forward_headers;
        let fields = table.tier(tier).map(|route| headers::to_upstream(&self.fields, route.kind, further));
        let fields = fields.unwrap_or_default();
        let is_heavy = self.lease.as_ref().is_some_and(Lease::is_heavy);
        if !self.keeps() {
            (self.ask.body, self.ask.numerals) = (Arc::default(), Arc::default());
            self.lease.as_mut().and_then(Lease::take);
        }
        let body = std::mem::take(&mut ask.body);
        let word = move || {
            let body = Arc::unwrap_or_clone(body);
            wording::request(table.tier(tier)?, &to, &ask, body, fields, &id)
        };
        if is_heavy {
            self.wording = Some(self.shared.budget.heavy().begin(word));
            // Without replay the body is nowhere else from now on: no other tier can get it.
            return (!self.keeps()).then_some(Input::Sent);
        }
        let request = word();
        Some(self.send(request))
    }

    /// The body is kept for another try.
    fn keeps(&self) -> bool {
        self.lease.as_ref().is_some_and(Lease::keeps)
    }

    /// Hands the request to the upstream that is connected.
    pub(super) fn send(&mut self, request: Option<Request<Outgoing>>) -> Input {
        let given_away = if self.keeps() { None } else { self.lease.take() };
        let Some(attempt) = &mut self.attempt else { return Input::Lost(Lost::Reset) };
        let Some(mut request) = request else {
            return Input::Lost(Lost::Untranslatable("its address makes no URL".into()));
        };
        if let Some(lease) = given_away {
            request.body_mut().take_up(lease);
        }
        attempt.send(request);
        Input::Sent
    }
}
