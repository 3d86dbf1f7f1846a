//! PURE. Error answers of engines that moved a request on, kept in case nobody does better.
use super::{Outcome, Step};
use crate::kinds::Verdict;
use crate::policy::TierId;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;

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
}

/// The status that an error inside a 200 stands for: its own code, else what its verdict means.
pub(super) fn status_within(verdict: Verdict, event: &[u8]) -> u16 {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    let code = event.get("error").and_then(|e| e.get("code")).and_then(Value::as_u64);
    let own = code.and_then(|c| u16::try_from(c).ok()).filter(|c| (400..600).contains(c));
    own.unwrap_or(match verdict {
        Verdict::ClientError | Verdict::ContextTooLong => 400,
        Verdict::Capability => 501,
        Verdict::Overloaded => 503,
        Verdict::Answer | Verdict::Failure { .. } | Verdict::Misconfigured | Verdict::BadInput => 500,
    })
}

/// The first of each kind.
#[derive(Debug, Default)]
pub(super) struct Kept {
    context: Option<PassOn>,
    bad_input: Option<PassOn>,
    overload: Option<PassOn>,
    capability: Option<PassOn>,
}

impl Kept {
    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        let all = [&self.context, &self.bad_input, &self.overload, &self.capability];
        all.into_iter().flatten().map(|answer| answer.body.len()).sum()
    }

    pub fn context(&mut self, answer: PassOn) {
        self.context.get_or_insert(answer);
    }

    pub fn overload(&mut self, answer: PassOn) {
        self.overload.get_or_insert(answer);
    }

    pub fn capability(&mut self, answer: PassOn) {
        self.capability.get_or_insert(answer);
    }

    /// An engine failed over the request's own content. When a second one does too it was the request: the first one's
    /// words, as a 400.
    pub fn bad_input(&mut self, answer: PassOn) -> Option<PassOn> {
        match self.bad_input.take() {
            None => {
                self.bad_input = Some(answer);
                None
            }
            Some(first) => Some(PassOn { status: 400, ..first }),
        }
    }

    /// What to pass on when no tier is left, with its accounting. `failed`: some tier was lost to a failure, so that
    /// trying again later may well succeed, which a missing capability would hide.
    pub fn best(self, failed: bool, retry_after: u64) -> Option<(PassOn, Option<Outcome>)> {
        if let Some(own) = self.context.or(self.bad_input) {
            return Some((own, Some(Outcome::Answered)));
        }
        if let Some(mut overload) = self.overload {
            overload.headers.entry(RETRY_AFTER).or_insert_with(|| HeaderValue::from(retry_after));
            return Some((overload, None));
        }
        self.capability.filter(|_| !failed).map(|c| (c, Some(Outcome::Answered)))
    }
}
