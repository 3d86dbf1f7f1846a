//! PURE. The ends of an answer: whole, cut short, or out of time.
use super::attempts::{Attempt, Loss, State};
use super::{Exchange, Input, Outcome, Refusal, Step};
use crate::policy::Moment;
use crate::proxy::answer::{Answer, Reading};
use crate::proxy::stream::{Meaning, event_of};
use bytes::Bytes;
use serde_json::json;
use std::mem;
use std::time::Duration;

/// How long the end of an answer is waited for that is complete: the connection is good for the next request only then.
const CLOSING: Duration = Duration::from_secs(1);

impl Exchange {
    pub(super) fn time_out(&mut self, state: State) -> Vec<Step> {
        match state {
            State::Over => Vec::new(),
            State::Idle | State::Asking(_) | State::Judging { .. } | State::Holding(_) => {
                vec![Step::Leave, Step::Refuse(Refusal::TimedOut)]
            }
            State::Relaying { attempt, answer } => {
                self.cut_short(&attempt, &answer, "the request took too long", 0)
            }
            State::Closing { .. } => vec![Step::Leave, Step::End],
        }
    }

    /// Ends an answer that is whole although its end did not come, or may never come. `None`: it is not whole.
    pub(super) fn conclude(&mut self, now: Moment, out_of_time: bool) -> Option<Vec<Step>> {
        let answer = match &mut self.state {
            State::Holding(holding) => &mut holding.answer,
            State::Relaying { answer, .. } => answer,
            State::Idle | State::Asking(_) | State::Judging { .. } | State::Closing { .. } | State::Over => {
                return None;
            }
        };
        let pieces = answer.salvage()?;
        let is_answer = pieces.iter().any(|piece| piece.meaning == Meaning::Done) && answer.holds_answer();
        if out_of_time && !is_answer {
            // It is too late to ask anybody else.
            return None;
        }
        let mut steps = match mem::replace(&mut self.state, State::Over) {
            State::Holding(holding) => self.hold(now, holding, Reading::Pieces(pieces)),
            State::Relaying { attempt, answer } => self.relay(attempt, answer, pieces),
            State::Idle | State::Asking(_) | State::Judging { .. } | State::Closing { .. } | State::Over => {
                return None;
            }
        };
        steps.extend(self.ended(now));
        Some(steps)
    }

    /// The upstream's answer has ended in good order, and all of it was read: is it whole?
    pub(super) fn ended(&mut self, now: Moment) -> Vec<Step> {
        match mem::replace(&mut self.state, State::Over) {
            State::Holding(holding) => {
                let loss = Loss::failure("its answer ended without a finish reason", 1);
                self.lose(now, holding.attempt, loss)
            }
            State::Relaying { attempt, answer } if answer.is_whole() => finish(&attempt),
            State::Relaying { attempt, answer } => {
                self.cut_short(&attempt, &answer, "the engine stopped without a finish reason", 1)
            }
            State::Closing { .. } => vec![Step::Leave, Step::End],
            // The reading itself ended or moved the request.
            state @ (State::Idle | State::Asking(_) | State::Judging { .. } | State::Over) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The answer is complete, and counts as that: many clients leave with its last event.
    pub(super) fn close(&mut self, attempt: Attempt) -> Step {
        let told = Step::Tell(attempt.to.tier, Outcome::Answered);
        let until = attempt.heard.unwrap_or(attempt.began) + CLOSING;
        self.state = State::Closing { attempt, until };
        told
    }

    /// Only the end of the upstream's body is missing, and may stay so.
    pub(super) fn closing(
        &mut self,
        now: Moment,
        attempt: Attempt,
        until: Moment,
        input: Input,
    ) -> Vec<Step> {
        match input {
            Input::End | Input::Broken | Input::Lost(_) | Input::Cut | Input::Data(_) => {
                vec![Step::Leave, Step::End]
            }
            Input::Wake if now >= until => vec![Step::Leave, Step::End],
            Input::Wake
            | Input::Standing(_)
            | Input::Full
            | Input::Sent
            | Input::Head { .. }
            | Input::Resumed(_)
            | Input::NoRoom => {
                self.state = State::Closing { attempt, until };
                Vec::new()
            }
        }
    }

    /// An answer that the client has begun to read ends before its end, and says so.
    pub(super) fn cut_short(
        &mut self,
        attempt: &Attempt,
        answer: &Answer,
        why: &str,
        strikes: u32,
    ) -> Vec<Step> {
        self.state = State::Over;
        let tier = attempt.to.tier;
        let mut steps = vec![Step::Leave];
        if strikes > 0 {
            steps.push(Step::Tell(tier, Outcome::Struck(strikes)));
        }
        steps.push(Step::Tell(tier, Outcome::Cut));
        if answer.is_events() {
            let message = format!("The answer of tier {:?} was cut: {why}", attempt.to.marks.tier);
            let error =
                json!({"message": message, "type": "server_error", "param": null, "code": "stream_cut"});
            let event = event_of(json!({ "error": error }).to_string().as_bytes());
            let end_of_last = answer.is_within_event().then(|| Step::Body(Bytes::from_static(b"\n\n")));
            steps.extend(end_of_last.into_iter().chain([Step::Body(event), Step::End]));
        } else {
            steps.push(Step::Abort);
        }
        steps
    }
}

fn finish(attempt: &Attempt) -> Vec<Step> {
    vec![Step::Leave, Step::End, Step::Tell(attempt.to.tier, Outcome::Answered)]
}
