//! PURE. Error answers of engines that moved a request on, kept in case nobody does better.
use super::{Outcome, Step};
use crate::kinds::Verdict;
use crate::policy::{Moment, TierId};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;
use std::time::Duration;

/// An engine's own answer, to be passed on untouched.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::proxy) struct PassOn {
    pub tier: TierId,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl PassOn {
    pub fn steps(self, attempts: u32) -> Vec<Step> {
        let head = Step::Head {
            tier: self.tier,
            status: self.status,
            headers: self.headers,
            weakened: false,
            attempts,
        };
        vec![head, Step::Body(self.body), Step::End]
    }

    /// As the client's own error, which a client does not try again: where the engine calls it a failure of its own, status
    /// and body say 400. The message stays.
    pub fn into_client_error(self) -> Self {
        if self.status < 500 {
            return self;
        }
        let body = match serde_json::from_slice::<Value>(&self.body) {
            Ok(said) => Bytes::from(into_client_error(said).to_string()),
            Err(_) => self.body,
        };
        Self { status: 400, body, ..self }
    }
}

/// Of OpenAI's form, `{"error": {…}}`, and of the flat one of old versions of vLLM.
fn into_client_error(mut said: Value) -> Value {
    let is_nested = said.get("error").is_some_and(Value::is_object);
    let error = if is_nested { &mut said["error"] } else { &mut said };
    if let Some(kind) = error.get_mut("type").filter(|kind| kind.is_string()) {
        *kind = "invalid_request_error".into();
    }
    if let Some(code) = error.get_mut("code").filter(|code| code.is_number()) {
        *code = 400.into();
    }
    said
}

/// The status that an error inside a 200 stands for: its own code, else what its verdict means.
pub(super) fn status_within(verdict: Verdict, event: &[u8]) -> u16 {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    let code = event.get("error").and_then(|e| e.get("code")).and_then(Value::as_u64);
    let own = code.and_then(|c| u16::try_from(c).ok()).filter(|c| (400..600).contains(c));
    own.unwrap_or(match verdict {
        Verdict::ClientError | Verdict::ContextTooLong => 400,
        Verdict::Capability | Verdict::NotServed => 501,
        Verdict::Overloaded => 503,
        Verdict::Answer | Verdict::Failure { .. } | Verdict::Misconfigured | Verdict::BadInput => 500,
    })
}

/// An engine's words about a failure that may be the request's own.
#[derive(Debug)]
struct Blamed {
    answer: PassOn,
    /// When the attempt began.
    began: Moment,
    /// The words themselves blame the request.
    says_so: bool,
}

/// The first of each kind.
#[derive(Debug, Default)]
pub(super) struct Kept {
    context: Option<PassOn>,
    blamed: Vec<Blamed>,
    /// With the shortest pause that any tier asked for.
    overload: Option<(PassOn, Option<Duration>)>,
    capability: Option<PassOn>,
}

impl Kept {
    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        let overload = self.overload.as_ref().map(|(answer, _)| answer);
        let single = [self.context.as_ref(), overload, self.capability.as_ref()];
        let blamed = self.blamed.iter().map(|blamed| &blamed.answer);
        single.into_iter().flatten().chain(blamed).map(|answer| answer.body.len()).sum()
    }

    pub fn context(&mut self, answer: PassOn) {
        self.context.get_or_insert(answer);
    }

    /// `asked`: its `Retry-After`.
    pub fn overload(&mut self, answer: PassOn, asked: Option<Duration>) {
        let (_, shortest) = self.overload.get_or_insert((answer, asked));
        *shortest = [*shortest, asked].into_iter().flatten().min();
    }

    pub fn capability(&mut self, answer: PassOn) {
        self.capability.get_or_insert(answer);
    }

    /// An engine failed, and had words for it. The first ones count.
    pub fn blame(&mut self, answer: PassOn, began: Moment, says_so: bool) {
        if self.blamed.iter().all(|blamed| blamed.answer.tier != answer.tier) {
            self.blamed.push(Blamed { answer, began, says_so });
        }
    }

    pub fn blames_any(&self) -> bool {
        !self.blamed.is_empty()
    }

    /// Did another tier fail with words before?
    pub fn is_suspect(&self, here: TierId) -> bool {
        self.blamed.iter().any(|blamed| blamed.answer.tier != here)
    }

    /// When two engines failed over it whose words blame the request, or who answer others meanwhile, it was the request:
    /// the first one's words, as a 400, and the tiers that were struck for it.
    pub fn convict(&self, answers_others: impl Fn(TierId, Moment) -> bool) -> Option<(PassOn, Vec<TierId>)> {
        let credible = |blamed: &&Blamed| blamed.says_so || answers_others(blamed.answer.tier, blamed.began);
        let witnesses = || self.blamed.iter().filter(credible);
        let first = &witnesses().next()?.answer;
        witnesses().find(|other| other.answer.tier != first.tier)?;
        let struck = witnesses().filter(|blamed| !blamed.says_so).map(|blamed| blamed.answer.tier);
        Some((first.clone().into_client_error(), struck.collect()))
    }

    /// What to pass on when no tier is left, with its accounting. `best_failed`: the best tier that was lost to
    /// something that may pass, so that trying again later may well succeed.
    ///
    /// A client gives up on a 400. So what a tier says of its own limits (its context, what it does not have) or what
    /// one tier alone says against the request is passed on only when no better tier is lost to something that may
    /// pass: that one may well answer later. Else an overload is passed on with its Retry-After,
    /// or the failures are told (503). A missing capability is hidden by the failure of any tier. What is passed on is a 400
    /// also where the engine calls it a failure of its own, or the client would try it again without end.
    /// A tier without room that says no time gets `otherwise`.
    pub fn best(self, best_failed: Option<TierId>, otherwise: Duration) -> Option<(PassOn, Option<Outcome>)> {
        let says_so = self.blamed.into_iter().find(|blamed| blamed.says_so).map(|blamed| blamed.answer);
        let is_last_word = |own: &PassOn| best_failed.is_none_or(|failed| failed > own.tier);
        if let Some(own) = self.context.or(says_so).filter(is_last_word) {
            return Some((own.into_client_error(), Some(Outcome::Answered)));
        }
        if let Some((mut overload, asked)) = self.overload {
            let seconds = asked.unwrap_or(otherwise).as_secs();
            overload.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            return Some((overload, None));
        }
        self.capability.filter(|_| best_failed.is_none()).map(|c| (c, Some(Outcome::Answered)))
    }
}
