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
use crate::lookout::Lookout;
use crate::policy::Moment;
use crate::shortage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);
/// A look that looks into no further process for this long, or twice as long, hangs.
const COMES_ON: Duration = Duration::from_millis(500);
/// Between two looks while this host lacks what a look takes.
const SHORT: Duration = Duration::from_millis(500);
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
    ///
    /// # Errors
    /// When this process lacks descriptors or memory to look.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        Ok(Process::find(pid)?.map(|process| Self { pid, started: process.started }))
    }

    /// What keeps it from running, where something does.
    pub fn hindrance(self) -> Option<&'static str> {
        match self.process().ok().flatten()?.state {
            'T' | 't' => Some("it is stopped, by a signal or a debugger"),
            'D' => Some("it waits inside the kernel, for a disk or a driver"),
            _ => None,
        }
    }

    /// `None` when it has ended, whoever has its pid by now.
    fn process(self) -> io::Result<Option<Process>> {
        let found = Process::find(self.pid)?;
        Ok(found.filter(|process| process.alive && process.started == self.started))
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
    /// A shim that is to end too, and what was below it ([`tree`]): a child of it that is not an engine yet has no nonce.
    pub tree: Vec<Main>,
}

/// [`carries`], which may hang.
type Carries = fn(u32, &str) -> io::Result<bool>;

/// One look at everybody, as far as it has come: it may hang at one process, and what it found before still stands.
#[derive(Debug, Default)]
struct Look {
    /// Processes that it has looked into.
    steps: AtomicUsize,
    found: Mutex<Vec<Process>>,
}

impl Look {
    fn step(&self) {
        self.steps.fetch_add(1, SeqCst);
    }

    fn steps(&self) -> usize {
        self.steps.load(SeqCst)
    }

    fn add(&self, more: impl IntoIterator<Item = Process>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.extend(more);
        tidy(&mut found);
    }

    fn found(&self) -> Vec<Process> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// In order of pid, and each once.
fn tidy(found: &mut Vec<Process>) {
    found.sort_unstable_by_key(|process| (process.pid, process.started));
    found.dedup_by_key(|process| (process.pid, process.started));
}

/// What the looks at one run have brought so far.
#[derive(Default)]
struct Last {
    /// By the last look that came back, and by those after it that hung.
    seen: Vec<Process>,
    /// The one that is under way.
    look: Arc<Look>,
    /// The last one could not see, for want of descriptors or memory.
    is_blind: bool,
}

/// A look for a run is inside this process, and may hang there. No other look for the same run follows it.
struct Inside((String, u32, u64));

static INSIDE: Mutex<BTreeSet<(String, u32, u64)>> = Mutex::new(BTreeSet::new());

impl Inside {
    /// `None` when another look is there.
    fn enter(nonce: &str, process: &Process) -> Option<Self> {
        let place = (nonce.to_owned(), process.pid, process.started);
        let mut inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
        // Not made before it is known to be wanted: its drop takes the lock.
        inside.insert(place.clone()).then(|| Self(place))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// This process and everything alive below it.
///
/// # Errors
/// When this process lacks descriptors or memory to look.
pub fn tree(root: Main) -> io::Result<Vec<Main>> {
    let below = descendants(root.pid, &[])?.into_iter().map(|it| Main { pid: it.pid, started: it.started });
    Ok(std::iter::once(root).chain(below).collect())
}

/// Looks again and again until there is what a look takes.
pub async fn until_seen<T>(mut look: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(_) => tokio::time::sleep(SHORT).await,
        }
    }
}

impl Orphans {
    /// Pids of what is alive of the run, in order. Looks at /proc/*/environ, which may block for as long as one of the
    /// processes looked at hangs in a driver: call it where that does no harm.
    ///
    /// # Errors
    /// When this process lacks descriptors or memory to look: then nobody knows what is there.
    pub fn survivors(&self) -> io::Result<Vec<u32>> {
        let look = Look::default();
        self.look(&look, carries)?;
        Ok(look.found().into_iter().map(|process| process.pid).collect())
    }

    /// KILLs them until none is left or the deadline has passed; gives what is left. Somebody else must reap them. While
    /// nothing can be seen, for want of descriptors or memory, the deadline waits too.
    pub async fn end(&self, deadline: Duration) -> Vec<u32> {
        self.end_by(deadline, carries).await
    }

    async fn end_by(&self, deadline: Duration, carries: Carries) -> Vec<u32> {
        let mut last = Last::default();
        loop {
            let killing = self.kill_all(&mut last, carries);
            if tokio::time::timeout(deadline, killing).await.is_ok() {
                return Vec::new();
            } else if !last.is_blind {
                break;
            }
        }
        // A look that did not come back has seen something, perhaps; what the one before it saw, and what can be said without
        // looking into any process, still stands.
        let mut left = last.seen;
        left.extend(last.look.found());
        left.extend(self.known().unwrap_or_default());
        let may_be_there = |process: &&Process| process.is_still_there().unwrap_or(true);
        let mut left: Vec<u32> = left.iter().filter(may_be_there).map(|it| it.pid).collect();
        left.sort_unstable();
        left.dedup();
        left
    }

    /// Returns when none is left.
    async fn kill_all(&self, last: &mut Last, carries: Carries) {
        loop {
            last.look = Arc::default();
            last.is_blind = false;
            match self.follow(&last.look, carries).await {
                Some(Ok(is_whole)) => {
                    last.seen = last.look.found();
                    if is_whole && last.seen.is_empty() {
                        return;
                    }
                }
                Some(Err(_)) => last.is_blind = true,
                // The next look leaves out where this one hangs.
                None => {
                    last.seen.extend(last.look.found());
                    tidy(&mut last.seen);
                }
            }
            for process in &last.seen {
                last.is_blind |= process.kill().is_err();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets a look be taken, on a thread of its own. `None` when it does not come on any more.
    async fn follow(&self, look: &Arc<Look>, carries: Carries) -> Option<io::Result<bool>> {
        let (orphans, taken) = (self.clone(), Arc::clone(look));
        let lookout = Lookout::default();
        let mut looking = pin!(lookout.look(move || orphans.look(&taken, carries)));
        let mut before = None;
        loop {
            match tokio::time::timeout(COMES_ON, &mut looking).await {
                Ok(looked) => return looked,
                Err(_) if before == Some(look.steps()) => return None,
                Err(_) => before = Some(look.steps()),
            }
        }
    }

    /// Finds what is alive of the run. False: there are processes at which other looks hang, and of which nothing is known.
    fn look(&self, look: &Look, carries: Carries) -> io::Result<bool> {
        let mut is_whole = true;
        look.add(self.known()?);
        for process in self.younger()? {
            let Some(_inside) = Inside::enter(&self.nonce, &process) else {
                is_whole = false;
                continue;
            };
            if carries(process.pid, &self.nonce)? {
                look.add([process]);
            }
            look.step();
        }
        for root in look.found() {
            look.add(descendants(root.pid, &[])?);
        }
        let mut alive = Vec::new();
        for process in look.found() {
            if process.is_still_there()? {
                alive.push(process);
            }
        }
        *look.found.lock().unwrap_or_else(PoisonError::into_inner) = alive;
        Ok(is_whole)
    }

    /// What can be told without a look into any process: of the tree, and of the main process's session.
    fn known(&self) -> io::Result<Vec<Process>> {
        let mut known = self.of_session()?;
        for member in &self.tree {
            known.extend(member.process()?);
        }
        Ok(known)
    }

    fn of_session(&self) -> io::Result<Vec<Process>> {
        let Some(main) = self.main else { return Ok(Vec::new()) };
        if Process::find(main.pid)?.is_some_and(|leader| leader.started != main.started) {
            return Ok(Vec::new());
        }
        let until = self.until.map_or(u64::MAX, ticks);
        let mut found = self.younger()?;
        found.retain(|process| process.session == main.pid && process.started <= until);
        Ok(found)
    }

    /// Everybody but us who is not older than the run.
    fn younger(&self) -> io::Result<Vec<Process>> {
        // A tick is begun before it is counted.
        let since = ticks(self.since).saturating_sub(1);
        let mut found = Vec::new();
        for pid in pids()?.into_iter().filter(|pid| *pid != std::process::id()) {
            found.extend(Process::find(pid)?.filter(|process| process.alive && process.started >= since));
        }
        Ok(found)
    }
}

fn ticks(at: Moment) -> u64 {
    at.as_nanos() / TICK_NS
}

/// Removes what the run in this directory left in /dev/shm and nobody has in hand any more, as far as its shim had written
/// down which files those are; their names. Looks into processes: see [`Orphans::survivors`].
///
/// # Errors
/// When this process lacks descriptors or memory to look: then nothing is removed.
pub fn remove_shm(run_dir: &Path) -> io::Result<Vec<String>> {
    let read = std::fs::read_to_string(run_dir.join(SHM_FILES));
    let Some(known) = shortage::seen(read)? else { return Ok(Vec::new()) };
    let removed = shm::remove_known(&known, &pids()?)?;
    let _ = std::fs::remove_file(run_dir.join(SHM_FILES));
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::protocol::RUN_VAR;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::sync::atomic::AtomicU32;

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
        Orphans {
            nonce: "nobody-has-this".into(),
            main: Some(main),
            since: Moment::default(),
            until: None,
            tree: vec![],
        }
    }

    #[test]
    fn a_pid_that_was_given_out_anew_is_somebody_elses() {
        let mut child = leader();
        let main = Main::of(child.id()).unwrap().expect("it lives");
        assert_eq!(orphans(main).survivors().unwrap(), [main.pid]);
        let another = Main { started: main.started - 1, ..main };
        assert_eq!(orphans(another).survivors().unwrap(), [0_u32; 0], "its pid was another's before");
        let earlier = Moment::from_nanos((main.started - 1) * TICK_NS);
        let before_us = Orphans { until: Some(earlier), ..orphans(main) };
        assert_eq!(before_us.survivors().unwrap(), [0_u32; 0], "it came after whoever asks");
        let later = Moment::from_nanos((main.started + 2) * TICK_NS);
        assert_eq!(
            Orphans { since: later, ..orphans(main) }.survivors().unwrap(),
            [0_u32; 0],
            "it is older than the run"
        );
        child.kill().and_then(|()| child.wait()).expect("it is our child");
    }

    /// The process that hangs whoever looks into it.
    static HANGS: AtomicU32 = AtomicU32::new(0);

    fn carries_or_hangs(pid: u32, nonce: &str) -> io::Result<bool> {
        while HANGS.load(SeqCst) == pid {
            std::thread::park();
        }
        carries(pid, nonce)
    }

    /// Before: what lay behind the process that hung was never seen, and the run counted as ended.
    #[tokio::test]
    async fn what_hangs_hides_nobody_else() {
        let nonce = "behind-one-that-hangs";
        let mut sleep = Command::new("sleep");
        let mut hangs = sleep.arg("60").spawn().expect("it starts");
        HANGS.store(hangs.id(), SeqCst);
        // Its pid is the larger one, as a rule, and so it is looked into later.
        let mut ours = sleep.env(RUN_VAR, nonce).spawn().expect("it starts");
        let since = Main::of(hangs.id()).unwrap().expect("it lives").began();
        let orphans = Orphans { nonce: nonce.to_owned(), main: None, since, until: None, tree: vec![] };
        let killed = async {
            while ours.try_wait().expect("it is our child").is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            left = orphans.end_by(Duration::from_secs(60), carries_or_hangs) => {
                panic!("nobody knows what the one that hangs is, and left is {left:?}")
            }
            () = killed => {}
        }
        hangs.kill().and_then(|()| hangs.wait()).expect("it is our child");
    }

    #[test]
    fn what_was_below_a_shim_is_of_the_run_without_any_mark() {
        let mut child = leader();
        let main = Main::of(child.id()).unwrap().expect("it lives");
        let me = Main::of(std::process::id()).unwrap().expect("I live");
        assert!(tree(me).unwrap().contains(&main));
        let unmarked = |main| Orphans { main: None, tree: vec![main], ..orphans(main) };
        assert_eq!(unmarked(main).survivors().unwrap(), [main.pid]);
        let another = Main { started: main.started - 1, ..main };
        assert_eq!(unmarked(another).survivors().unwrap(), [0_u32; 0], "its pid was another's before");
        child.kill().and_then(|()| child.wait()).expect("it is our child");
    }
}
