//! PURE. One turn of the machine: what each state does with each input.
use super::attempts::{Attempt, Holding, Loss, State};
use super::kept::Kept;
use super::{Exchange, Input, Lost, Step};
use crate::policy::Moment;
use crate::proxy::answer::{Answer, Piece, Reading};
use crate::proxy::limits::HELD_STREAM_BYTES;
use crate::proxy::stream::{Meaning, event_of};
use bytes::BytesMut;
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use std::mem;

impl Exchange {
    /// Takes one input and answers what to do about it.
    pub fn on(&mut self, now: Moment, input: Input) -> Vec<Step> {
        let out_of_time = self.deadline().is_some_and(|at| now >= at);
        if (out_of_time || self.may_conclude(now, &input))
            && let Some(steps) = self.conclude(now, out_of_time)
        {
            return steps;
        }
        let state = mem::replace(&mut self.state, State::Over);
        if out_of_time {
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
            Input::Head { headers, .. } if is_encoded(&headers) => {
                self.lose(now, attempt, Loss::failure("encoded its answer although it was asked not to", 1))
            }
            Input::Head { status, headers } if (200..300).contains(&status) => {
                let answer = Answer::begin(&self.terms, &attempt.to, &headers);
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

    fn holding(&mut self, now: Moment, mut holding: Box<Holding>, input: Input) -> Vec<Step> {
        match input {
            Input::Data(data) => {
                let reading = holding.answer.push(data);
                holding.attempt.hear(now, &reading);
                self.hold(now, holding, reading)
            }
            Input::End => {
                let reading = holding.answer.finish();
                let mut steps = self.hold(now, holding, reading);
                steps.extend(self.ended(now));
                steps
            }
            Input::NoRoom if holding.held_bytes + holding.answer.held() > 0 => {
                match holding.answer.let_go() {
                    Reading::Damaged(why) => self.lose(now, holding.attempt, Loss::failure(why, 0)),
                    Reading::Pieces(pieces) => {
                        holding.held.extend(pieces.into_iter().map(|piece| piece.bytes));
                        self.commit(*holding, Vec::new(), false)
                    }
                }
            }
            other => self.meanwhile(now, State::Holding(holding), other),
        }
    }

    /// Looks through what came for the commit point.
    pub(super) fn hold(&mut self, now: Moment, mut holding: Box<Holding>, reading: Reading) -> Vec<Step> {
        let pieces = match reading {
            Reading::Pieces(pieces) => pieces,
            Reading::Damaged(why) => return self.lose(now, holding.attempt, Loss::failure(why, 1)),
        };
        let mut pieces = pieces.into_iter();
        while let Some(Piece { bytes, meaning }) = pieces.next() {
            let lost = match meaning {
                Meaning::Nothing | Meaning::Gathered => continue,
                Meaning::Opening | Meaning::Ending => {
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
                Meaning::Done if holding.answer.complete() && holding.answer.holds_answer() => {
                    holding.held.push(bytes);
                    return self.commit(*holding, Vec::new(), true);
                }
                Meaning::Done if holding.answer.complete() => "gave an answer that holds nothing",
                Meaning::Failed(verdict, error) => return self.judge_event(now, *holding, verdict, error),
                Meaning::Done => "said that it was done without a finish reason",
                Meaning::Garbage => "gave data that is not JSON",
            };
            return self.lose(now, holding.attempt, Loss::failure(lost, 1));
        }
        self.state = State::Holding(holding);
        Vec::new()
    }

    /// The commit point: the head, what was held, and from now on everything as it comes.
    fn commit(&mut self, holding: Holding, rest: Vec<Piece>, done: bool) -> Vec<Step> {
        let Holding { attempt, status, headers, answer, held, .. } = holding;
        // Nothing else will be passed on now.
        self.kept = Kept::default();
        let headers = answer.headers(headers);
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
                let reading = answer.push(data);
                attempt.hear(now, &reading);
                match reading {
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
            Input::NoRoom => match answer.let_go() {
                Reading::Pieces(pieces) => self.relay(attempt, answer, pieces),
                Reading::Damaged(why) => self.cut_short(&attempt, &answer, why, 0),
            },
            Input::Resumed(stalled) => {
                attempt.heard = attempt.heard.map(|at| now.min(at + stalled));
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

    pub(super) fn relay(&mut self, attempt: Attempt, answer: Answer, pieces: Vec<Piece>) -> Vec<Step> {
        let mut steps = Vec::with_capacity(pieces.len());
        for Piece { bytes, meaning } in pieces {
            let why = match meaning {
                Meaning::Nothing
                | Meaning::Opening
                | Meaning::Ending
                | Meaning::Content
                | Meaning::Gathered => {
                    steps.push(Step::Body(bytes));
                    continue;
                }
                Meaning::Done if answer.complete() => {
                    steps.push(Step::Body(bytes));
                    steps.push(self.close(attempt));
                    return steps;
                }
                // Nothing that comes behind it takes anything from an answer that is whole.
                Meaning::Failed(..) | Meaning::Garbage if answer.is_events() && answer.is_whole() => {
                    steps.push(Step::Body(event_of(b"[DONE]")));
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
}

/// Answers are read, so they have to come as they are, and every request says so.
fn is_encoded(headers: &HeaderMap) -> bool {
    let encoded = |value: &HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).iter().any(encoded)
}
