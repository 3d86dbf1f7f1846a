//! How a run comes to its end, asked or not, and what follows from the way it ended.
//!
//! ```text
//! Draining     out of the routes; requests in flight finish, or `drain` is over
//!    │ Cut, Terminate
//! Terminating  TERM was sent; the shim kills at the end of the grace, and so do we, a little later
//!    │ Exited
//! Reaping      the main process is gone; what it left behind gets a moment to follow, then the shim kills, and so do we
//!    │ Kill
//! Killed       Ended must come now, or the run is wedged
//! ```
//! Each step has a deadline of its own, so a stop ends within a bounded time even if the shim never says another word.
use super::super::stop::{REAP_DEADLINE, SETTLE, SHIM_LATE};
use super::super::strikes::Next;
use super::super::words;
use super::{Action, Cause, Duration, Engine, Failure, LastExit, Life, Moment, Notice, RunId, Turn, spell};
use crate::policy::{Ending, Exit, Nature};

/// From the end of the main process to our own KILL, which finds nobody where the shim has sent its own.
const ORPHANS: Duration = SETTLE.saturating_add(SHIM_LATE);
/// From KILL to "wedged". Longer than the shim's own patience, so that its word, which names pids, comes first.
const REAP_LIMIT: Duration = REAP_DEADLINE.saturating_add(SHIM_LATE);
/// A wedged run is killed again this often: a process in the driver's hands can still come loose.
const KILL_AGAIN: Duration = Duration::from_secs(60);
/// A run that is stopped because it hangs or does not come up is beyond a graceful end.
const GRACE_OF_A_FAILURE: Duration = Duration::from_secs(5);

/// What a run is blamed for that mainstay itself gave up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Blame {
    pub(in crate::policy) cause: Cause,
    pub(in crate::policy) nature: Nature,
    pub(in crate::policy) deterministic: Option<bool>,
    pub(in crate::policy) evidence: Option<String>,
}

impl Blame {
    pub(in crate::policy) fn hang(evidence: String) -> Self {
        Self { evidence: Some(evidence), cause: Cause::Hang, ..Self::unknown() }
    }

    /// It could not be started at all. Where a program is not there, or a file may not be opened, the same call fails the
    /// same way; whether something may come and change that, like a mount that is late, is the nature's to say.
    pub(super) fn start(cause: Cause, nature: Nature, evidence: String) -> Self {
        let deterministic = matches!(cause, Cause::BrokenInstall | Cause::Permission).then_some(true);
        Self::refusal(cause, nature, deterministic, evidence)
    }

    /// It runs, and does not serve its model.
    pub(in crate::policy) fn refusal(
        cause: Cause,
        nature: Nature,
        deterministic: Option<bool>,
        evidence: String,
    ) -> Self {
        Self { cause, nature, deterministic, evidence: Some(evidence) }
    }

    pub(super) fn unknown() -> Self {
        Self { cause: Cause::Unknown, nature: Nature::Engine, deterministic: None, evidence: None }
    }

    pub(super) fn ending(self, exit: Exit) -> Ending {
        let Self { cause, nature, deterministic, evidence } = self;
        Ending { exit, cause, nature, deterministic, evidence }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Reason {
    /// An operator, a shutdown, or an on-demand engine that is no longer needed.
    Asked(&'static str),
    /// Mainstay gave up on it.
    Failed(Blame),
    /// It ended, and nobody had asked it to.
    Died,
}

impl Reason {
    fn why(&self) -> String {
        match self {
            Self::Asked(who) => (*who).to_owned(),
            Self::Failed(blame) => match &blame.evidence {
                Some(evidence) => format!("{}: {evidence}", blame.cause.name()),
                None => blame.cause.name().to_owned(),
            },
            Self::Died => "its main process is gone".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Draining { began: Moment, until: Moment },
    Terminating { kill_at: Moment },
    Reaping { kill_at: Moment },
    Killed { wedged_at: Moment },
}

#[derive(Clone, Debug)]
pub(super) struct Stopping {
    pub(super) run: RunId,
    reason: Reason,
    was_ready: bool,
    step: Step,
    /// How the main process ended, and when, once that is known.
    ending: Option<(Moment, Ending)>,
}

#[derive(Debug)]
pub(super) struct Wedged {
    pub(super) stopping: Stopping,
    pub(super) retry: Moment,
}

impl Stopping {
    pub(super) fn deadline(&self) -> Moment {
        match self.step {
            Step::Draining { until, .. } => until,
            Step::Terminating { kill_at } | Step::Reaping { kill_at } => kill_at,
            Step::Killed { wedged_at } => wedged_at,
        }
    }

    /// The agent did not run for so long: it could neither see the end nor hear of it.
    pub(super) fn overslept(&mut self, late: Duration) {
        match &mut self.step {
            Step::Draining { until: at, .. }
            | Step::Terminating { kill_at: at }
            | Step::Reaping { kill_at: at }
            | Step::Killed { wedged_at: at } => *at = *at + late,
        }
    }

    fn is_asked(&self) -> bool {
        match self.reason {
            Reason::Asked(_) => true,
            Reason::Failed(_) | Reason::Died => false,
        }
    }

    /// The main process is gone.
    fn end(&mut self, ending: Ending, turn: &mut Turn) {
        let is_news = self.ending.is_none();
        self.ending = Some((turn.now, ending));
        if is_news {
            turn.tell(Notice::Exit { run: self.run, ending: self.verdict() });
        }
    }

    /// Nothing is left, and nobody has said how the main process ended.
    fn vanish(&mut self, turn: &mut Turn) {
        if self.ending.is_none() {
            self.end(Blame::unknown().ending(Exit::Unknown), turn);
        }
    }

    /// What is told about the end: how the process ended is its own word, why is ours where we ended it.
    pub(super) fn verdict(&self) -> Ending {
        let seen = self.ending.as_ref().map(|(_, ending)| ending.clone());
        let seen = seen.unwrap_or_else(|| Blame::unknown().ending(Exit::Unknown));
        match &self.reason {
            Reason::Asked(_) => {
                Ending { cause: Cause::Asked, nature: Nature::Engine, deterministic: None, ..seen }
            }
            Reason::Failed(blame) => blame.clone().ending(seen.exit),
            Reason::Died => seen,
        }
    }

    /// What the end will be counted as, as far as it is known; `None` when somebody asked for it.
    pub(super) fn failure(&self) -> Option<Failure> {
        (!self.is_asked()).then(|| failure(&self.verdict(), self.was_ready))
    }

    fn last_exit(&self, now: Moment, action: String) -> LastExit {
        let at = self.ending.as_ref().map_or(now, |(at, _)| *at);
        LastExit { run: self.run, at, ending: self.verdict(), action }
    }
}

fn failure(ending: &Ending, was_ready: bool) -> Failure {
    Failure { nature: ending.nature, was_ready }
}

impl Engine {
    /// Since when requests in flight are waited for.
    pub(in crate::policy) fn draining_since(&self) -> Option<Moment> {
        match &self.life {
            Life::Stopping(Stopping { step: Step::Draining { began, .. }, .. }) => Some(*began),
            Life::Stopping(Stopping {
                step: Step::Terminating { .. } | Step::Reaping { .. } | Step::Killed { .. },
                ..
            })
            | Life::Stopped
            | Life::Starting(_)
            | Life::Ready(_)
            | Life::Backoff { .. }
            | Life::Held { .. }
            | Life::Wedged(_) => None,
        }
    }

    /// No request is in flight any more.
    pub(in crate::policy) fn drained(&mut self, turn: &mut Turn) {
        if self.draining_since().is_some() {
            self.terminate(self.settings.stop_grace, turn);
        }
    }

    /// Ends a starting or ready run. What is already ending, or is not there, is left alone.
    pub(super) fn stop(&mut self, reason: Reason, turn: &mut Turn) {
        let drain = match (&self.life, &reason) {
            (Life::Ready(_), Reason::Asked(_)) => Some(self.drain),
            // Nothing was routed there yet, or nothing comes out of it any more.
            (Life::Starting(_), Reason::Asked(_) | Reason::Failed(_) | Reason::Died)
            | (Life::Ready(_), Reason::Failed(_) | Reason::Died) => None,
            (
                Life::Stopped
                | Life::Stopping(_)
                | Life::Backoff { .. }
                | Life::Held { .. }
                | Life::Wedged(_),
                Reason::Asked(_) | Reason::Failed(_) | Reason::Died,
            ) => return,
        };
        let grace = match &reason {
            Reason::Asked(_) => self.settings.stop_grace,
            Reason::Failed(_) | Reason::Died => self.settings.stop_grace.min(GRACE_OF_A_FAILURE),
        };
        let until = turn.now + drain.unwrap_or_default();
        let why = reason.why();
        self.leave(reason, why, Step::Draining { began: turn.now, until }, turn);
        if drain.is_none() {
            self.terminate(grace, turn);
        }
    }

    /// From a starting or ready run into Stopping.
    fn leave(&mut self, reason: Reason, why: String, step: Step, turn: &mut Turn) {
        let Some(run) = self.live_run() else { return };
        let was_ready = self.ready_run().is_some();
        turn.forget_run(run);
        let stopping = Stopping { run, reason, was_ready, step, ending: None };
        self.turn_into(Life::Stopping(stopping), why, turn);
    }

    /// Upstream connections are closed before TERM: with requests open, neither vLLM nor llama-server would end.
    fn terminate(&mut self, grace: Duration, turn: &mut Turn) {
        let Life::Stopping(stopping) = &mut self.life else { return };
        let run = stopping.run;
        stopping.step = Step::Terminating { kill_at: turn.now + grace + SHIM_LATE };
        turn.act(Action::Cut { run });
        turn.act(Action::Terminate { run, grace });
    }

    /// A second signal: nothing is waited for. A third one sends KILL again, and the end comes no later for it.
    pub(super) fn kill_now(&mut self, why: &'static str, turn: &mut Turn) {
        let step = Step::Killed { wedged_at: turn.now + REAP_LIMIT };
        match &mut self.life {
            Life::Starting(_) | Life::Ready(_) => self.leave(Reason::Asked(why), why.to_owned(), step, turn),
            Life::Stopping(stopping) => match stopping.step {
                Step::Draining { .. } | Step::Terminating { .. } | Step::Reaping { .. } => {
                    stopping.step = step
                }
                Step::Killed { .. } => {}
            },
            Life::Stopped | Life::Backoff { .. } | Life::Held { .. } | Life::Wedged(_) => return,
        }
        if let Some(run) = self.live_run() {
            turn.act(Action::Cut { run });
            turn.act(Action::Kill { run });
        }
    }

    /// An exit that nobody asked for: a failure, whatever its code.
    pub(super) fn died(&mut self, ending: Ending, turn: &mut Turn) {
        if let Some(run) = self.live_run() {
            turn.tell(Notice::Exit { run, ending: ending.clone() });
        }
        let step = Step::Reaping { kill_at: turn.now + ORPHANS };
        self.leave(Reason::Died, words::ending(&ending), step, turn);
        if let Life::Stopping(stopping) = &mut self.life {
            turn.act(Action::Cut { run: stopping.run });
            stopping.ending = Some((turn.now, ending));
            self.last_exit =
                Some(stopping.last_exit(turn.now, "waiting until all of it has ended".to_owned()));
        }
    }

    /// The main process of a run that is ending is gone.
    pub(super) fn reaped(&mut self, ending: Ending, turn: &mut Turn) {
        let now = turn.now;
        match &mut self.life {
            Life::Stopping(stopping) => {
                stopping.end(ending, turn);
                match stopping.step {
                    Step::Draining { .. } => {
                        turn.act(Action::Cut { run: stopping.run });
                        stopping.step = Step::Reaping { kill_at: now + ORPHANS };
                    }
                    Step::Terminating { .. } => stopping.step = Step::Reaping { kill_at: now + ORPHANS },
                    Step::Reaping { .. } | Step::Killed { .. } => {}
                }
            }
            Life::Wedged(wedged) => wedged.stopping.end(ending, turn),
            Life::Stopped | Life::Starting(_) | Life::Ready(_) | Life::Backoff { .. } | Life::Held { .. } => {
            }
        }
    }

    pub(super) fn stopping_due(&mut self, turn: &mut Turn) {
        let Life::Stopping(stopping) = &mut self.life else { return };
        if stopping.deadline() > turn.now {
            return;
        }
        match stopping.step {
            Step::Draining { .. } => self.terminate(self.settings.stop_grace, turn),
            Step::Terminating { .. } | Step::Reaping { .. } => {
                stopping.step = Step::Killed { wedged_at: turn.now + REAP_LIMIT };
                turn.act(Action::Kill { run: stopping.run });
            }
            Step::Killed { .. } => self.wedge(&[], turn),
        }
    }

    /// Something survives SIGKILL. Never a second run beside it: it may hold the GPU, the port and the memory.
    pub(super) fn wedge(&mut self, pids: &[u32], turn: &mut Turn) {
        let Life::Stopping(stopping) = &self.life else { return };
        let stopping = stopping.clone();
        let why = if pids.is_empty() {
            // Its keeper would have named what withstands.
            "nothing was heard of its end since SIGKILL was ordered".to_owned()
        } else {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            // Not that they survived it: one that holds the run's listener may be a stranger, who is sent none.
            format!("it did not end after SIGKILL: pid {} is left", pids.join(", "))
        };
        self.last_exit = Some(stopping.last_exit(turn.now, format!("wedged: {why}")));
        let retry = turn.now + KILL_AGAIN;
        self.turn_into(Life::Wedged(Wedged { stopping, retry }), why, turn);
    }

    pub(super) fn wedged_due(&mut self, turn: &mut Turn) {
        let Life::Wedged(wedged) = &mut self.life else { return };
        if wedged.retry <= turn.now {
            wedged.retry = turn.now + KILL_AGAIN;
            turn.act(Action::Kill { run: wedged.stopping.run });
        }
    }

    /// Gone, and nothing is left of it; or it never was.
    pub(super) fn vanished(&mut self, blame: Blame, turn: &mut Turn) {
        let Some(run) = self.live_run() else { return };
        turn.forget_run(run);
        let was_ready = self.ready_run().is_some();
        if was_ready {
            turn.act(Action::Cut { run });
        }
        let ending = blame.ending(Exit::Unknown);
        turn.tell(Notice::Exit { run, ending: ending.clone() });
        let next = self.strike(&ending, was_ready, turn);
        self.go_on(LastExit { run, at: turn.now, ending, action: String::new() }, next, turn);
    }

    /// Nothing is left of the run that was stopping.
    pub(super) fn ended(&mut self, turn: &mut Turn) {
        let Life::Stopping(stopping) = &mut self.life else { return };
        stopping.vanish(turn);
        let exit = stopping.last_exit(turn.now, String::new());
        let (is_asked, was_ready) = (stopping.is_asked(), stopping.was_ready);
        let next =
            if is_asked { Next::Start(Duration::ZERO) } else { self.strike(&exit.ending, was_ready, turn) };
        self.go_on(exit, next, turn);
    }

    /// What survived SIGKILL is gone at last. Whoever stopped it: it was not a good end, and the next start waits. It is
    /// a strike only if nobody had asked for the end.
    pub(super) fn released(&mut self, turn: &mut Turn) {
        let Life::Wedged(Wedged { stopping, .. }) = &mut self.life else { return };
        stopping.vanish(turn);
        let exit = stopping.last_exit(turn.now, String::new());
        let (is_asked, was_ready) = (stopping.is_asked(), stopping.was_ready);
        let base = self.settings.restart.base;
        let next = if is_asked { Next::Start(base) } else { self.strike(&exit.ending, was_ready, turn) };
        let next = match next {
            Next::Start(delay) => Next::Start(delay.max(base)),
            Next::Hold(wait) => Next::Hold(wait),
        };
        self.go_on(exit, next, turn);
    }

    fn strike(&mut self, ending: &Ending, was_ready: bool, turn: &mut Turn) -> Next {
        self.strikes.judge(failure(ending, was_ready), turn.now, &mut turn.chance)
    }

    /// What was announced when the last run ended becomes history when the pause after it ends.
    pub(super) fn pause_is_over(&mut self, next: &Life, now: Moment) {
        let paused = spell(now.since(self.since));
        let (after_start, otherwise) = match self.life {
            Life::Backoff { .. } => (format!("restarted after {paused}"), "not restarted"),
            Life::Held { .. } => (format!("held; tried again after {paused}"), "held; not tried again"),
            Life::Stopped | Life::Starting(_) | Life::Ready(_) | Life::Stopping(_) | Life::Wedged(_) => {
                return;
            }
        };
        let starts = matches!(next, Life::Starting(_));
        if let Some(exit) = &mut self.last_exit {
            exit.action = if starts { after_start } else { otherwise.to_owned() };
        }
    }

    /// The run is over: start the next one, wait, or rest.
    fn go_on(&mut self, mut exit: LastExit, next: Next, turn: &mut Turn) {
        let how = words::failure(&exit.ending);
        match next {
            Next::Start(_) | Next::Hold(_) if !self.wanted => {
                exit.action = "stopped".to_owned();
                self.last_exit = Some(exit);
                self.turn_into(Life::Stopped, how, turn);
            }
            Next::Start(Duration::ZERO) => {
                exit.action = "restarted at once".to_owned();
                self.last_exit = Some(exit);
                self.begin(format!("restarted at once: {how}"), turn);
            }
            Next::Start(delay) => {
                exit.action = format!("restart in {}", spell(delay));
                let why = format!("{}: {how}", exit.action);
                let (run, cause) = (exit.run, exit.cause());
                self.last_exit = Some(exit);
                self.turn_into(Life::Backoff { until: turn.now + delay }, why, turn);
                if let Some(lasted) = self.strikes.give_up_waiting(turn.now) {
                    let why = format!("every start for {} failed, the last one: {how}", spell(lasted));
                    turn.tell(Notice::Waiting { run, cause, why });
                }
            }
            Next::Hold(wait) => {
                exit.action = format!("held; next try in {}", spell(wait));
                self.last_exit = Some(exit);
                let why = format!("held: {how}; next try in {}", spell(wait));
                self.turn_into(Life::Held { until: turn.now + wait }, why, turn);
            }
        }
    }
}
