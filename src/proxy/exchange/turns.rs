//! PURE. One turn of the machine: what each state does with each input.
use super::attempts::{Attempt, Holding, Loss, State};
use super::kept::{PassOn, status_within};
use super::{Exchange, Input, Lost, Outcome, Refusal, Step};
use crate::kinds::{self, Verdict};
use crate::policy::Moment;
use crate::proxy::answer::{Answer, Piece, Reading};
use crate::proxy::limits::{ERROR_BYTES, HELD_STREAM_BYTES};
use crate::proxy::stream::{Meaning, event_of};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use serde_json::json;
use std::mem;
use std::time::Duration;

/// How long the end of an answer is waited for that is complete: the connection is good for the next request only then.
const CLOSING: Duration = Duration::from_secs(1);

impl Exchange {
    /// Takes one input and answers what to do about it.
    pub fn on(&mut self, now: Moment, input: Input) -> Vec<Step> {
        let state = mem::replace(&mut self.state, State::Over);
        if now >= self.deadline {
            return self.time_out(state);
        }
        match state {
            State::Idle => {
                self.state = State::Idle;
                Vec::new()
            }
            State::Over => Vec::new(),
            State::Asking(attempt) => self.asking(now, attempt, input),
            State::Judging { attempt, status, headers, body } => {
                self.judging(now, attempt, status, headers, body, input)
            }
            State::Holding(holding) => self.holding(now, holding, input),
            State::Relaying { attempt, answer } => self.relaying(now, attempt, answer, input),
            State::Closing { attempt, until } => self.closing(now, attempt, until, input),
        }
    }

    fn time_out(&mut self, state: State) -> Vec<Step> {
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

    fn asking(&mut self, now: Moment, mut attempt: Attempt, input: Input) -> Vec<Step> {
        match input {
            Input::Full => self.turned_away(now, attempt),
            Input::Sent => {
                self.sent = true;
                self.state = State::Asking(attempt);
                Vec::new()
            }
            Input::Lost(Lost::Stale) if !attempt.again && self.keeps_body() => {
                attempt.again = true;
                let tier = attempt.to.tier;
                self.state = State::Asking(attempt);
                vec![Step::Try { tier, fresh: true }]
            }
            Input::Head { status, headers } if (200..300).contains(&status) => {
                let answer = Answer::begin(&self.terms, &attempt.to, &headers);
                let headers = answer.headers(headers);
                let holding = Holding { attempt, status, headers, answer, held: Vec::new(), held_bytes: 0 };
                self.state = State::Holding(Box::new(holding));
                Vec::new()
            }
            Input::Head { status, headers } => {
                self.state = State::Judging { attempt, status, headers, body: BytesMut::new() };
                Vec::new()
            }
            other => self.meanwhile(now, State::Asking(attempt), other),
        }
    }

    fn judging(
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
                attempt.heard = Some(now);
                body.extend_from_slice(&data);
                self.state = State::Judging { attempt, status, headers, body };
                Vec::new()
            }
            Input::Data(_) => self.lose(now, attempt, Loss::failure("its error has no end", 1)),
            Input::End => {
                let kind = attempt.to.kind;
                let verdict = kinds::verdict(kind.api(), kind, status, &body);
                self.judge(now, attempt, verdict, status, headers, body.freeze())
            }
            other => self.meanwhile(now, State::Judging { attempt, status, headers, body }, other),
        }
    }

    /// What an error answer means for the request.
    fn judge(
        &mut self,
        now: Moment,
        attempt: Attempt,
        verdict: Verdict,
        status: u16,
        headers: HeaderMap,
        body: Bytes,
    ) -> Vec<Step> {
        let why = format!("HTTP {status}: {}", excerpt(&body));
        let own = PassOn { tier: attempt.to.tier, status, headers, body };
        let loss = match verdict {
            Verdict::ClientError => return self.pass_on(own),
            Verdict::ContextTooLong => {
                self.kept.context(own);
                Loss::unfit(why)
            }
            Verdict::BadInput => match self.kept.bad_input(own) {
                Some(answer) => return self.pass_on(answer),
                // Whose fault it is shows only with the next one.
                None => Loss { skip: false, ..Loss::unfit(why) },
            },
            Verdict::Capability => {
                self.kept.capability(own);
                Loss::unfit(why)
            }
            Verdict::Overloaded => {
                self.kept.overload(own);
                Loss::failure(why, 0)
            }
            Verdict::Failure { strike } => Loss::failure(why, u32::from(strike)),
            Verdict::Misconfigured => {
                let told = Some(Outcome::Misconfigured(why.clone()));
                Loss { told, ..Loss::failure(why, 0) }
            }
            Verdict::Answer => Loss::failure(why, 0),
        };
        self.lose(now, attempt, loss)
    }

    /// The client's own error, as the engine put it.
    fn pass_on(&mut self, own: PassOn) -> Vec<Step> {
        self.state = State::Over;
        let told = Step::Tell(own.tier, Outcome::Answered);
        [Step::Leave].into_iter().chain(own.steps(self.attempts)).chain([told]).collect()
    }

    fn holding(&mut self, now: Moment, mut holding: Box<Holding>, input: Input) -> Vec<Step> {
        match input {
            Input::Data(data) => {
                holding.attempt.heard = Some(now);
                let reading = holding.answer.push(data);
                self.hold(now, holding, reading)
            }
            Input::End => {
                let reading = holding.answer.finish();
                let mut steps = self.hold(now, holding, reading);
                steps.extend(self.ended(now));
                steps
            }
            other => self.meanwhile(now, State::Holding(holding), other),
        }
    }

    /// Looks through what came for the commit point.
    fn hold(&mut self, now: Moment, mut holding: Box<Holding>, reading: Reading) -> Vec<Step> {
        let pieces = match reading {
            Reading::Pieces(pieces) => pieces,
            Reading::Damaged(why) => return self.lose(now, holding.attempt, Loss::failure(why, 1)),
        };
        let mut pieces = pieces.into_iter();
        while let Some(Piece { bytes, meaning }) = pieces.next() {
            let lost = match meaning {
                Meaning::Nothing => continue,
                Meaning::Opening => {
                    holding.held_bytes += bytes.len();
                    holding.held.push(bytes);
                    if holding.held_bytes <= HELD_STREAM_BYTES {
                        continue;
                    }
                    return self.commit(*holding, pieces.collect(), false);
                }
                Meaning::Content => {
                    holding.held.push(bytes);
                    return self.commit(*holding, pieces.collect(), false);
                }
                Meaning::Done if holding.answer.complete() => {
                    holding.held.push(bytes);
                    return self.commit(*holding, Vec::new(), true);
                }
                Meaning::Failed(verdict, error) => return self.judge_event(now, *holding, verdict, error),
                Meaning::Done => "said that it was done without a finish reason",
                Meaning::Garbage => "gave data that is not JSON",
            };
            return self.lose(now, holding.attempt, Loss::failure(lost, 1));
        }
        self.state = State::Holding(holding);
        Vec::new()
    }

    /// An error inside a 200: what it says decides, as if it had been the status.
    fn judge_event(&mut self, now: Moment, holding: Holding, verdict: Verdict, error: Bytes) -> Vec<Step> {
        let status = status_within(verdict, &error);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        self.judge(now, holding.attempt, verdict, status, headers, error)
    }

    /// The commit point: the head, what was held, and from now on everything as it comes.
    fn commit(&mut self, holding: Holding, rest: Vec<Piece>, done: bool) -> Vec<Step> {
        let Holding { attempt, status, headers, answer, held, .. } = holding;
        let marks = &attempt.to.marks;
        let mut steps = vec![Step::Head {
            tier: attempt.to.tier,
            status,
            headers,
            weakened: marks.notice.is_some(),
            attempts: self.attempts,
        }];
        for (at, bytes) in held.into_iter().enumerate() {
            steps.push(Step::Body(if at == 0 { answer.marked(marks, bytes) } else { bytes }));
        }
        if done {
            steps.push(self.close(attempt));
            return steps;
        }
        steps.extend(self.relay(attempt, answer, rest));
        steps
    }

    fn relaying(&mut self, now: Moment, mut attempt: Attempt, mut answer: Answer, input: Input) -> Vec<Step> {
        match input {
            Input::Data(data) => {
                attempt.heard = Some(now);
                match answer.push(data) {
                    Reading::Pieces(pieces) => self.relay(attempt, answer, pieces),
                    Reading::Damaged(why) => self.cut_short(&attempt, &answer, why, 1),
                }
            }
            Input::End => match answer.finish() {
                Reading::Pieces(pieces) => {
                    let mut steps = self.relay(attempt, answer, pieces);
                    steps.extend(self.ended(now));
                    steps
                }
                Reading::Damaged(why) => self.cut_short(&attempt, &answer, why, 1),
            },
            Input::Broken | Input::Lost(_) => self.cut_short(&attempt, &answer, "the engine went away", 1),
            Input::Cut => self.cut_short(&attempt, &answer, "the engine was stopped", 0),
            Input::Resumed => {
                attempt.heard = Some(now);
                self.state = State::Relaying { attempt, answer };
                Vec::new()
            }
            // With content out there is nowhere to go: a tier that is leaving may finish what it began.
            Input::Wake | Input::Standing(_) | Input::Full | Input::Sent | Input::Head { .. } => {
                self.state = State::Relaying { attempt, answer };
                match (self.limit_passed(now), mem::replace(&mut self.state, State::Over)) {
                    (Some(why), State::Relaying { attempt, answer }) => {
                        self.cut_short(&attempt, &answer, why, 1)
                    }
                    (_, state) => {
                        self.state = state;
                        Vec::new()
                    }
                }
            }
        }
    }

    fn relay(&mut self, attempt: Attempt, answer: Answer, pieces: Vec<Piece>) -> Vec<Step> {
        let mut steps = Vec::with_capacity(pieces.len());
        for Piece { bytes, meaning } in pieces {
            let why = match meaning {
                Meaning::Nothing | Meaning::Opening | Meaning::Content => {
                    steps.push(Step::Body(bytes));
                    continue;
                }
                Meaning::Done if answer.complete() => {
                    steps.push(Step::Body(bytes));
                    steps.push(self.close(attempt));
                    return steps;
                }
                Meaning::Done => "the engine stopped without a finish reason",
                Meaning::Failed(..) => "the engine failed",
                Meaning::Garbage => "the engine sent damaged data",
            };
            steps.extend(self.cut_short(&attempt, &answer, why, 1));
            return steps;
        }
        self.state = State::Relaying { attempt, answer };
        steps
    }

    /// The upstream's answer has ended in good order, and all of it was read: is it whole?
    fn ended(&mut self, now: Moment) -> Vec<Step> {
        match mem::replace(&mut self.state, State::Over) {
            State::Holding(holding) if holding.answer.complete() => {
                let mut steps = self.commit(*holding, Vec::new(), true);
                steps.extend(self.ended(now));
                steps
            }
            State::Holding(holding) => {
                let loss = Loss::failure("its answer ended without a finish reason", 1);
                self.lose(now, holding.attempt, loss)
            }
            State::Relaying { attempt, answer } if answer.complete() => finish(&attempt),
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
    fn close(&mut self, attempt: Attempt) -> Step {
        let told = Step::Tell(attempt.to.tier, Outcome::Answered);
        let until = attempt.heard.unwrap_or(attempt.began) + CLOSING;
        self.state = State::Closing { attempt, until };
        told
    }

    /// Only the end of the upstream's body is missing, and may stay so.
    fn closing(&mut self, now: Moment, attempt: Attempt, until: Moment, input: Input) -> Vec<Step> {
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
            | Input::Resumed => {
                self.state = State::Closing { attempt, until };
                Vec::new()
            }
        }
    }

    /// An answer that the client has begun to read ends before its end, and says so.
    fn cut_short(&mut self, attempt: &Attempt, answer: &Answer, why: &str, strikes: u32) -> Vec<Step> {
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
            steps.extend([Step::Body(event), Step::End]);
        } else {
            steps.push(Step::Abort);
        }
        steps
    }
}

fn finish(attempt: &Attempt) -> Vec<Step> {
    vec![Step::Leave, Step::End, Step::Tell(attempt.to.tier, Outcome::Answered)]
}

/// The beginning of an engine's error, on one line.
fn excerpt(body: &[u8]) -> String {
    const CHARACTERS: usize = 200;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * CHARACTERS)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CHARACTERS).collect()
}
