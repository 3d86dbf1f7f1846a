//! What the keeper does in an end: the steps that `life` decides on, and what is recorded of them.
use super::{Keeper, kill_process};
use crate::clock;
use crate::policy::Moment;
use crate::shim::cgroup::RunCgroup;
use crate::shim::life::{Found, Step};
use crate::shim::protocol::{Asked, Exited, FromShim, SHM_FILES};
use crate::shim::record::{ExitRecord, LAST_LINES_MAX};
use crate::shim::sweep::{Sought, Sweep};
use crate::shim::{listeners, sys, tree};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

impl Keeper {
    pub(super) fn perform(&mut self, steps: Vec<Step>) {
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            steps.extend(self.perform_one(step));
        }
    }

    fn perform_one(&mut self, step: Step) -> Vec<Step> {
        match step {
            Step::TermMain => {
                self.note_listeners();
                if let Ok(pid) = self.engine {
                    kill_process(pid, Signal::TERM);
                }
            }
            Step::KillTree => {
                self.note_listeners();
                self.take_last_census();
                let left = self.kill_tree();
                return self.have_looked(left);
            }
            Step::Look => {
                let left = self.left();
                return self.have_looked(left);
            }
            Step::KillThese(found) => {
                if let Err(why) = found.into_iter().try_for_each(kill_found) {
                    self.cannot_look(&why);
                }
            }
            Step::Sweep => return self.start_sweep(),
            Step::SayEnded(left) => self.say_ended(left),
            Step::Leave => self.leaving = true,
        }
        vec![]
    }

    fn start_sweep(&mut self) -> Vec<Step> {
        let now = clock::now();
        let sought = Sought {
            nonce: &self.spec.nonce,
            since: self.shim_started,
            port: self.spec.port,
            listeners: &self.listeners,
            shm: &self.shm,
            tmp: self.spec.tmp(),
        };
        match Sweep::start(now, &sought) {
            Ok(sweep) => {
                self.sweep = Some(sweep);
                vec![]
            }
            Err(why) => {
                self.cannot_look(&why);
                vec![]
            }
        }
    }

    fn have_looked(&mut self, left: io::Result<Vec<u32>>) -> Vec<Step> {
        match left {
            Ok(left) => self.life.looked(clock::now(), left),
            Err(why) => {
                self.cannot_look(&why);
                vec![]
            }
        }
    }

    /// For want of descriptors, memory or processes. Said once, however often it is tried.
    pub(super) fn cannot_look(&mut self, why: &dyn Display) {
        if !self.is_blind {
            self.is_blind = true;
            self.sink
                .note(&format!("cannot see what is left of this run, and look again until it can: {why}"));
            self.sink.flush();
        }
        self.life.cannot_look(clock::now());
    }

    /// KILL to everything of the run below the shim; who that was.
    fn kill_tree(&self) -> io::Result<Vec<u32>> {
        // This one needs no look, and so nothing that this host may lack.
        if let Some(pid) = self.unreaped() {
            kill_process(pid, Signal::KILL);
        }
        self.cgroup.as_ref().map_or(Ok(()), RunCgroup::kill)?;
        let left = self.left()?;
        let kill = |pid: &u32| tree::Process::find(*pid)?.map_or(Ok(()), |process| process.kill());
        // Each of them, whatever becomes of another's.
        left.iter().map(kill).fold(Ok(()), io::Result::and)?;
        Ok(left)
    }

    /// The main process while it is not reaped: until then its pid is its own.
    fn unreaped(&self) -> Option<u32> {
        self.engine.as_ref().ok().copied().filter(|_| self.reaped.is_none())
    }

    /// Everything alive below the shim.
    fn below(&self) -> io::Result<Vec<tree::Process>> {
        let mut except = self.hung.clone();
        except.extend(self.sweep.as_ref().map(|sweep| sweep.pid));
        tree::descendants(std::process::id(), &except)
    }

    /// Who is left of the run, the main process included while it is not reaped.
    fn left(&self) -> io::Result<Vec<u32>> {
        let mut left: Vec<u32> = self.below()?.iter().map(|process| process.pid).collect();
        left.extend(self.cgroup.as_ref().map(RunCgroup::members).transpose()?.unwrap_or_default());
        left.extend(self.unreaped());
        left.sort_unstable();
        left.dedup();
        Ok(left)
    }

    pub(super) fn kill_workers(&mut self, names: &[String]) {
        let Ok(main) = self.engine else { return };
        let killed = tree::descendants(main, &[]).and_then(|below| {
            for worker in below.iter().filter(|process| names.contains(&process.comm)) {
                self.sink.note(&format!("KILL to worker {} ({})", worker.pid, worker.comm));
                worker.kill()?;
            }
            Ok(())
        });
        if let Err(why) = killed {
            self.sink.note(&format!("cannot see or kill the workers: {why}"));
        }
        self.sink.flush();
    }

    /// Remembers which listeners are the engine's, while somebody of it is there to be asked.
    fn note_listeners(&mut self) {
        // What cannot be looked at now is asked again with the next step of the end.
        let listening = self.spec.port.and_then(|port| listeners::on_port(port).ok()).unwrap_or_default();
        if listening.is_empty() {
            return;
        }
        for process in self.below().unwrap_or_default() {
            self.listeners.extend(listeners::held_by(process.pid, &listening).unwrap_or_default());
        }
        self.listeners.sort_unstable();
        self.listeners.dedup();
    }

    /// Learns which new files in /dev/shm are the run's. Waits for a moment, in which the engine's output waits too.
    pub(super) fn take_census(&mut self) {
        const LIMIT: Duration = Duration::from_millis(500);
        // Where these cannot be seen, no child could look into them.
        let pids: Vec<u32> = self.below().unwrap_or_default().iter().map(|process| process.pid).collect();
        let shm = &self.shm;
        let looked = sys::apart_within(LIMIT, |answer| {
            let _ = shm.look(&pids, answer);
        });
        match looked {
            Ok(Ok(answer)) => {
                if let Err(e) = self.shm.learn(&answer, &self.spec.run_dir.join(SHM_FILES)) {
                    self.sink.note(&format!("cannot write down what is in /dev/shm: {e}"));
                }
            }
            Ok(Err(hung)) => {
                kill_process(hung, Signal::KILL);
                self.hung.push(hung);
            }
            Err(e) => self.sink.note(&format!("cannot look who uses /dev/shm: {e}")),
        }
    }

    /// While somebody of the run is there to be looked at; a hanging look is not repeated.
    fn take_last_census(&mut self) {
        if self.next_census.take().is_some() && self.shm.is_worth_a_last_look() {
            self.take_census();
        }
    }

    pub(super) fn note_exit(&mut self, now: Moment, reaped: sys::Reaped) {
        self.reaped = Some(reaped);
        self.note_listeners();
        self.take_last_census();
        if let Some(pump) = &mut self.pump {
            pump.drain(now, &mut self.sink);
        }
        let exited = exited(reaped.raw, self.life.asked());
        self.exited = Some(exited.clone());
        self.write_record();
        self.clients.send(&FromShim::Exited(exited));
    }

    fn say_ended(&mut self, left: Vec<u32>) {
        if let Some(pump) = &mut self.pump {
            pump.drain(clock::now(), &mut self.sink);
            if left.is_empty() {
                pump.close();
            }
        }
        if left.is_empty() {
            if let Some(cgroup) = self.cgroup.take() {
                cgroup.remove();
            }
        } else {
            self.sink.note(&format!("these withstand KILL: {left:?}"));
        }
        self.ended = Some((left.clone(), clock::wall_ms()));
        self.write_record();
        self.clients.send(&FromShim::Ended { left });
    }

    /// Of an engine that was never there.
    pub(super) fn tidy_up(&mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove();
        }
        let _ = std::fs::remove_dir_all(self.spec.tmp());
    }

    pub(super) fn write_record(&mut self) {
        let usage = self.reaped;
        let last_lines = self.sink.tail(LAST_LINES_MAX);
        let record = ExitRecord {
            run: self.spec.run,
            nonce: self.spec.nonce.clone(),
            boot_id: self.spec.boot_id.clone(),
            pid: self.engine.as_ref().ok().copied(),
            start_error: self.engine.as_ref().err().map(|e| e.message.clone()),
            exit: self.exited.clone(),
            user_ms: usage.map_or(0, |usage| usage.user.as_millis() as u64),
            system_ms: usage.map_or(0, |usage| usage.system.as_millis() as u64),
            max_rss_bytes: usage.map_or(0, |usage| usage.max_rss_bytes),
            started_ms: self.started_ms,
            ended_ms: self.ended.as_ref().filter(|(left, _)| left.is_empty()).map(|(_, at_ms)| *at_ms),
            left: self.ended.as_ref().map(|(left, _)| left.clone()).unwrap_or_default(),
            lines_dropped: self.sink.totals().dropped,
            last_lines: last_lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect(),
        };
        if let Err(e) = record.write(&self.spec.run_dir) {
            self.sink.note(&format!("cannot write the exit record: {e}"));
        }
    }
}

/// The look may be some seconds old, and these are no children of ours.
fn kill_found((pid, started): Found) -> io::Result<()> {
    let found = tree::Process::find(pid)?.filter(|process| process.started == started);
    found.map_or(Ok(()), |process| process.kill())
}

fn exited(raw: i32, asked: Option<Asked>) -> Exited {
    let status = ExitStatus::from_raw(raw);
    Exited { raw, code: status.code(), signal: status.signal(), asked, at_ms: clock::wall_ms() }
}
