//! The last look before a run counts as ended: is anybody of it left, wherever in the host; does anybody hold its
//! listener; and if not, what did it leave in /dev/shm and in its tmp.
//!
//! This reads /proc/*/environ, maps and fd of processes that are not ours, and each of these reads may hang for as long
//! as the process looked at hangs in a driver, holding the lock of its memory. So a forked child does it, and is left
//! behind when it does not answer in time.
use super::life::{Found, Swept};
use super::protocol::RUN_VAR;
use super::shm::Shm;
use super::{listeners, sys, tree};
use crate::policy::Moment;
use crate::shortage;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// How long the child may take. Deleting a large tmp is part of it.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Most that is read of its answer, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// What to look for.
#[derive(Clone, Debug)]
pub(super) struct Sought<'a> {
    pub nonce: &'a str,
    /// When the engine was started, in clock ticks since boot.
    pub since: u64,
    pub port: Option<u16>,
    /// Inodes of listeners that were seen in the hands of the run.
    pub listeners: &'a [u64],
    pub shm: &'a Shm,
    pub tmp: PathBuf,
}

/// A look that is under way.
#[derive(Debug)]
pub(super) struct Sweep {
    pub pid: u32,
    pipe: OwnedFd,
    answer: Vec<u8>,
    pub deadline: Moment,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Answer {
    pub found: Swept,
    /// Names of the files removed from /dev/shm.
    pub removed: Vec<String>,
    /// False: the child hung or died, or could not look, and what else there is nobody knows.
    pub whole: bool,
    /// Why it could not look.
    pub trouble: Option<String>,
}

impl Sweep {
    pub fn start(now: Moment, sought: &Sought<'_>) -> io::Result<Self> {
        let (pid, pipe) = sys::apart(|answer| {
            // A pipe that breaks means that the shim is gone: then nobody needs the answer.
            if let Err(why) = look(sought, answer) {
                let _ = writeln!(answer, "trouble {why}");
            }
        })?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pid, pipe, answer: Vec::new(), deadline: now + TIME_MAX })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Reads on; true when the child has let go of the pipe, because it is done or dead.
    pub fn is_over(&mut self) -> bool {
        let mut bytes = [0; 1024];
        loop {
            match rustix::io::read(&self.pipe, &mut bytes) {
                Ok(0) => return true,
                Ok(len) if self.answer.len() < ANSWER_MAX => self.answer.extend_from_slice(&bytes[..len]),
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    pub fn answer(&self) -> Answer {
        let mut answer = Answer { found: Swept::default(), removed: Vec::new(), whole: false, trouble: None };
        for line in String::from_utf8_lossy(&self.answer).lines() {
            match line.split_once(' ') {
                Some(("alive", found)) => answer.found.alive.extend(read_found(found)),
                Some(("holds", pid)) => answer.found.holding.extend(pid.parse::<u32>()),
                Some(("removed", name)) => answer.removed.push(name.to_owned()),
                Some(("trouble", why)) => answer.trouble = Some(why.to_owned()),
                _ => answer.whole |= line == "done",
            }
        }
        answer
    }
}

fn read_found(text: &str) -> Option<Found> {
    let (pid, started) = text.split_once(' ')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

/// What the child does. An error when it lacks descriptors or memory to look.
fn look(sought: &Sought<'_>, answer: &mut dyn Write) -> io::Result<()> {
    let mut others = tree::pids()?;
    others.retain(|pid| *pid != std::process::id());
    let mut clean = true;
    for pid in &others {
        let Some(process) = tree::Process::find(*pid)? else { continue };
        // What is older than the run cannot carry its nonce, and need not be looked into.
        if process.started >= sought.since && carries(*pid, sought.nonce)? {
            clean = false;
            writeln!(answer, "alive {pid} {}", process.started)?;
        }
    }
    let mut listening = sought.port.map(listeners::on_port).transpose()?.unwrap_or_default();
    listening.retain(|inode| sought.listeners.contains(inode));
    if !listening.is_empty() {
        for pid in &others {
            if !listeners::held_by(*pid, &listening)?.is_empty() {
                clean = false;
                writeln!(answer, "holds {pid}")?;
            }
        }
    }
    // Nothing is deleted while somebody may still use it.
    if clean {
        for name in sought.shm.remove_left(&others)? {
            writeln!(answer, "removed {name}")?;
        }
        let _ = fs::remove_dir_all(&sought.tmp);
    }
    writeln!(answer, "done")
}

/// The process lives and has the nonce in its environment. An error when it could not be looked at, for want of descriptors
/// or memory.
pub(super) fn carries(pid: u32, nonce: &str) -> io::Result<bool> {
    // Where nothing is seen it is gone, or another user's, whom none of ours ever becomes.
    let environ = shortage::seen(fs::read(format!("/proc/{pid}/environ")))?.unwrap_or_default();
    let mark = format!("{RUN_VAR}={nonce}");
    Ok(environ.split(|b| *b == 0).any(|var| var == mark.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_counts() {
        let answer = |text: &str| {
            let pipe = rustix::pipe::pipe().unwrap().0;
            let sweep = Sweep { pid: 1, pipe, answer: text.into(), deadline: Moment::default() };
            let answer = sweep.answer();
            (answer.found.alive, answer.found.holding, answer.removed, answer.whole)
        };
        assert_eq!(answer(""), (vec![], vec![], vec![], false));
        assert_eq!(answer("trouble Too many open files (os error 24)\n"), (vec![], vec![], vec![], false));
        let text = "alive 7 70\nholds 9\nremoved psm_a b\nrubbish\ndone\n";
        assert_eq!(answer(text), (vec![(7, 70)], vec![9], vec!["psm_a b".to_owned()], true));
    }
}
