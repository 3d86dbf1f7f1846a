//! PURE. What an error answer means for the request, whether it came with a status of its own or inside a 200.
use super::attempts::{Attempt, Holding, Loss, State};
use super::kept::{PassOn, status_within};
use super::{Exchange, Input, Outcome, Step, Why};
use crate::kinds::{self, Verdict};
use crate::policy::Moment;
use crate::proxy::answer::NO_ROOM;
use crate::proxy::limits::ERROR_BYTES;
use crate::proxy::overload;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;

impl Exchange {
    pub(super) fn judging(
        &mut self,
        now: Moment,
        mut attempt: Attempt,
        status: u16,
        headers: HeaderMap,
        mut body: BytesMut,
        input: Input,
    ) -> Vec<Step> {
        match input {
            Input::Data(data) if body.len() + data.len() <= ERROR_BYTES => {
                if !data.trim_ascii().is_empty() {
                    attempt.heard = Some(now);
                }
                body.extend_from_slice(&data);
                self.state = State::Judging { attempt, status, headers, body };
                Vec::new()
            }
            Input::Data(_) => self.lose(now, attempt, Loss::failure("its error has no end", 1)),
            Input::NoRoom => self.lose(now, attempt, Loss::failure(NO_ROOM, 0)),
            Input::End => {
                let kind = attempt.to.kind;
                let verdict = kinds::verdict(kind.api(), kind, status, &body);
                self.judge(now, attempt, verdict, status, headers, body.freeze())
            }
            other => self.meanwhile(now, State::Judging { attempt, status, headers, body }, other),
        }
    }

    /// What an error answer means for the request.
    pub(super) fn judge(
        &mut self,
        now: Moment,
        attempt: Attempt,
        verdict: Verdict,
        status: u16,
        headers: HeaderMap,
        body: Bytes,
    ) -> Vec<Step> {
        let phrase = if status == 508 { "the request went in a circle" } else { phrase(verdict) };
        let why = Why::status(status, phrase, excerpt(&body));
        let own = PassOn { tier: attempt.to.tier, status, headers, body };
        let loss = match verdict {
            Verdict::ClientError => return self.pass_on(own),
            Verdict::ContextTooLong => {
                self.kept.context(own);
                Loss::unfit(why)
            }
            Verdict::BadInput | Verdict::Failure { strike: true } => {
                let says_so = verdict == Verdict::BadInput;
                self.kept.blame(own, attempt.began, says_so);
                if let Some(steps) = self.convict(&attempt) {
                    return steps;
                }
                // Whose fault it is shows only with the next one.
                if says_so {
                    Loss { skip: false, ..Loss::unfit(why) }
                } else {
                    Loss { passing: matches!(status, 500 | 502 | 504), ..Loss::failure(why, 1) }
                }
            }
            Verdict::Capability | Verdict::NotServed => {
                self.kept.capability(own);
                // Of an engine of ours it is known where it is.
                let doubtful = verdict == Verdict::NotServed && !attempt.to.kind.is_local();
                Loss { told: doubtful.then_some(Outcome::NotServed), ..Loss::unfit(why) }
            }
            Verdict::Overloaded => {
                let wall = self.terms.created.saturating_add(now.since(self.began).as_secs() as i64);
                let asked = overload::retry_after(&own.headers, wall);
                self.kept.overload(own, asked);
                Loss { told: Some(Outcome::TurnedAway(asked)), ..Loss::failure(why, 0) }
            }
            Verdict::Failure { strike: false } => Loss::failure(why, 0),
            Verdict::Misconfigured => {
                let told = Some(Outcome::Misconfigured(why.to_string()));
                Loss { told, ..Loss::failure(why, 0) }
            }
            Verdict::Answer => Loss::failure(why, 0),
        };
        self.lose(now, attempt, loss)
    }

    /// Ends a request that is at fault itself: no tier is struck for it.
    fn convict(&mut self, last: &Attempt) -> Option<Vec<Step>> {
        let answers_others = |tier, began| {
            let tier = self.chain.iter().find(|candidate| candidate.tier == tier);
            tier.is_some_and(|candidate| candidate.others.answered_since(began))
        };
        let (answer, struck) = self.kept.convict(answers_others)?;
        self.state = State::Over;
        let last = last.to.tier;
        let acquitted = struck.into_iter().filter(|tier| *tier != last);
        let steps = acquitted.map(|tier| Step::Tell(tier, Outcome::Acquitted)).chain([Step::Leave]);
        let told = Step::Tell(last, Outcome::Answered);
        Some(steps.chain(answer.steps(self.attempts)).chain([told]).collect())
    }

    /// The client's own error, as the engine put it. Where the engine calls that a failure of its own, the client would
    /// try it again without end.
    fn pass_on(&mut self, own: PassOn) -> Vec<Step> {
        self.state = State::Over;
        let own = own.into_client_error();
        let told = Step::Tell(own.tier, Outcome::Answered);
        [Step::Leave].into_iter().chain(own.steps(self.attempts)).chain([told]).collect()
    }

    /// An error inside a 200: what it says decides, as if it had been the status.
    pub(super) fn judge_event(
        &mut self,
        now: Moment,
        holding: Holding,
        verdict: Verdict,
        error: Bytes,
    ) -> Vec<Step> {
        let status = status_within(verdict, &error);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        self.judge(now, holding.attempt, verdict, status, headers, error)
    }
}

/// What a verdict says to a client beside the status.
const fn phrase(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::ContextTooLong => "its context is too small",
        Verdict::Capability | Verdict::NotServed => "it does not have what was asked for",
        Verdict::BadInput => "over what was asked for",
        Verdict::Misconfigured => "it refuses what mainstay is configured to ask for",
        Verdict::Overloaded => "it is busy",
        Verdict::Answer | Verdict::ClientError | Verdict::Failure { .. } => "",
    }
}

/// The beginning of an engine's error, on one line.
fn excerpt(body: &[u8]) -> String {
    const CHARACTERS: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * CHARACTERS)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CHARACTERS).collect()
}
