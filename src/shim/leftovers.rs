//! For the agent: what is left of a run whose shim is gone. The agent is a subreaper too, so orphans of its own shims are
//! below it; those of an earlier agent's are below whoever adopted them, so the whole of /proc is looked at. They are
//! known by the nonce in their environment or, where a process has painted over that (as vLLM's workers do for their
//! titles), by the session that the engine's main process had opened; and so is whatever is below them. A process that
//! left the session *and* emptied its environment *and* lost its parents cannot be told from somebody else's, and is left.
//!
//! Pids are given out anew, in a container soon: so a session counts only where its leader is the very process that it
//! was, or gone, and nothing counts that is older than the run.
use super::protocol::SHM_FILES;
use super::shm;
use super::sweep::carries;
use super::tree::{Process, descendants, pids};
use crate::lookout;
use crate::policy::Moment;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);
/// Of /proc/PID/stat: USER_HZ is 100 wherever we run.
const TICK_NS: u64 = 10_000_000;

/// The engine's main process, beyond doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Main {
    pub pid: u32,
    /// In clock ticks since boot.
    pub started: u64,
}

impl Main {
    /// `None` when there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        Process::read(pid).map(|process| Self { pid, started: process.started })
    }

    /// When it was started, to a hundredth of a second.
    pub fn began(self) -> Moment {
        Moment::from_nanos(self.started * TICK_NS)
    }
}

/// Which run's orphans are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphans {
    pub nonce: String,
    /// Where it is known.
    pub main: Option<Main>,
    /// When the run began: nothing of it is older.
    pub since: Moment,
    /// When whoever asks began, if that is later than the run's end can be: who is found by the session alone is older.
    pub until: Option<Moment>,
}

impl Orphans {
    /// Pids of what is alive of the run, in order. Looks at /proc/*/environ, which may block for as long as one of the
    /// processes looked at hangs in a driver: call it where that does no harm.
    pub fn survivors(&self) -> Vec<u32> {
        self.look().into_iter().map(|process| process.pid).collect()
    }

    /// KILLs them until none is left or the deadline has passed; gives what is left. Somebody else must reap them.
    pub async fn end(&self, deadline: Duration) -> Vec<u32> {
        let mut last = Vec::new();
        let lookout = lookout::on(&format!("survivors of {}", self.nonce));
        let killing = async {
            loop {
                let orphans = self.clone();
                if let Some(found) = lookout.look(move || orphans.look()).await {
                    if found.is_empty() {
                        return;
                    }
                    found.iter().for_each(Process::kill);
                    last = found;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        if tokio::time::timeout(deadline, killing).await.is_ok() {
            return Vec::new();
        }
        // A look that did not come back says nothing; what the one before it saw, and what can be said without looking
        // into any process, still stands.
        last.extend(self.of_session());
        let mut left: Vec<u32> =
            last.iter().filter(|process| process.is_still_there()).map(|it| it.pid).collect();
        left.sort_unstable();
        left.dedup();
        left
    }

    /// What is alive of the run.
    fn look(&self) -> Vec<Process> {
        let mut found = self.of_session();
        let carrying = self.younger().filter(|process| carries(process.pid, &self.nonce));
        found.extend(carrying);
        let below: Vec<Process> = found.iter().flat_map(|root| descendants(root.pid, &[])).collect();
        found.extend(below);
        found.sort_unstable_by_key(|process| process.pid);
        found.dedup_by_key(|process| process.pid);
        found.retain(Process::is_still_there);
        found
    }

    /// What is of the main process's session, without a look into any process.
    fn of_session(&self) -> Vec<Process> {
        let Some(main) = self.main else { return Vec::new() };
        if Process::read(main.pid).is_some_and(|leader| leader.started != main.started) {
            return Vec::new();
        }
        let until = self.until.map_or(u64::MAX, ticks);
        self.younger().filter(|process| process.session == main.pid && process.started <= until).collect()
    }

    /// Everybody but us who is not older than the run.
    fn younger(&self) -> impl Iterator<Item = Process> {
        // A tick is begun before it is counted.
        let since = ticks(self.since).saturating_sub(1);
        let others = pids().filter(|pid| *pid != std::process::id()).filter_map(Process::read);
        others.filter(move |process| process.alive && process.started >= since)
    }
}

fn ticks(at: Moment) -> u64 {
    at.as_nanos() / TICK_NS
}

/// Removes what the run in this directory left in /dev/shm and nobody has in hand any more, as far as its shim had written
/// down which files those are; their names. Looks into processes: see [`Orphans::survivors`].
pub fn remove_shm(run_dir: &Path) -> Vec<String> {
    let Ok(known) = std::fs::read_to_string(run_dir.join(SHM_FILES)) else { return Vec::new() };
    let removed = shm::remove_known(&known, &pids().collect::<Vec<_>>());
    let _ = std::fs::remove_file(run_dir.join(SHM_FILES));
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    /// The leader of a session of its own.
    fn leader() -> Child {
        let mut command = Command::new("sleep");
        command.arg("60");
        // SAFETY: setsid is async-signal-safe.
        #[expect(unsafe_code, reason = "a session of its own is made between fork and exec")]
        unsafe {
            command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into))
        };
        command.spawn().expect("it starts")
    }

    fn orphans(main: Main) -> Orphans {
        Orphans { nonce: "nobody-has-this".into(), main: Some(main), since: Moment::default(), until: None }
    }

    #[test]
    fn a_pid_that_was_given_out_anew_is_somebody_elses() {
        let mut child = leader();
        let main = Main::of(child.id()).expect("it lives");
        assert_eq!(orphans(main).survivors(), [main.pid]);
        let another = Main { started: main.started - 1, ..main };
        assert_eq!(orphans(another).survivors(), [0_u32; 0], "its pid was another's before");
        let earlier = Moment::from_nanos((main.started - 1) * TICK_NS);
        let before_us = Orphans { until: Some(earlier), ..orphans(main) };
        assert_eq!(before_us.survivors(), [0_u32; 0], "it came after whoever asks");
        let later = Moment::from_nanos((main.started + 2) * TICK_NS);
        assert_eq!(
            Orphans { since: later, ..orphans(main) }.survivors(),
            [0_u32; 0],
            "it is older than the run"
        );
        child.kill().and_then(|()| child.wait()).expect("it is our child");
    }
}
