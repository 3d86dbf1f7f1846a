//! The end of a run whose shim is dead or does not answer: nobody holds the engine's pipes any more, and nobody else can
//! clear its tree. The agent is a subreaper for this day.
use super::{Keeper, Lost, Seen};
use crate::agent::{previous, unstarted};
use crate::policy::{Cause, Ending, EngineEvent, Exit, Moment, Nature, Remains};
use crate::shim::leftovers::{self, Main, Orphans};
use crate::shim::{LastWords, Spawned};
use rustix::process::Signal;
use std::io;
use std::time::Duration;

/// How long what such a shim left may withstand KILL before it is called wedged, and how often it is killed again. With the
/// time in which a shim may be silent it is shorter than policy's own patience, which knows no pids.
const BURIAL: Duration = Duration::from_secs(15);

/// Words by which the dynamic loader, the allocator and the kernel say that there was no memory.
const NO_MEMORY: [&str; 3] =
    ["memory allocation of", "Cannot allocate memory", "failed to map segment from shared object"];

impl Keeper {
    pub(super) async fn bury(&self, shim: &Spawned, seen: &Seen, lost: Lost) {
        let tree = match &lost {
            Lost::Dead(_) => Vec::new(),
            Lost::Silent(None) => Vec::new(),
            Lost::Silent(Some(shim)) => leftovers::until_seen(|| leftovers::tree(*shim)).await,
        };
        let why = why(shim, &lost);
        tracing::error!(
            tier = self.spec.tier,
            run = self.run.number,
            why,
            "the run has no shim; clearing it"
        );
        // By its pidfd, whatever became of its pid; what is below it follows.
        let _ = rustix::process::pidfd_send_signal(&shim.pidfd, Signal::KILL);
        let was_seen = seen.pid.is_some();
        if was_seen && !seen.exited {
            let blame = Some(why.clone());
            let (exit, cause, nature) = (Exit::Unknown, Cause::Unknown, Nature::Engine);
            let ending = Ending { exit, cause, nature, deterministic: None, evidence: blame };
            self.tell(EngineEvent::Exited(ending)).await;
        }
        let since = Moment::from_nanos(self.intent.began);
        let orphans = Orphans { nonce: self.spec.nonce.clone(), main: seen.main, since, until: None, tree };
        let mut was_wedged = false;
        loop {
            let left = orphans.end(BURIAL).await;
            if left.is_empty() {
                break;
            }
            was_wedged = true;
            self.tell(EngineEvent::Ended(Remains::Processes(left))).await;
        }
        previous::clear_up(self.spec.run_dir.clone(), self.spec.cgroup.clone()).await;
        if was_seen || was_wedged {
            self.tell(EngineEvent::Ended(Remains::Nothing)).await;
        } else {
            previous::forget(&self.spec.run_dir);
            self.tell(not_begun(&lost, why)).await;
        }
    }
}

fn why(shim: &Spawned, lost: &Lost) -> String {
    match lost {
        Lost::Dead(LastWords::NotBegun { message, .. }) => message.clone(),
        Lost::Dead(LastWords::Text(words)) if words.is_empty() => {
            "the shim that kept this run died".to_owned()
        }
        Lost::Dead(LastWords::Text(words)) => format!("the shim that kept this run died: {words}"),
        Lost::Silent(process) => {
            let hindrance = process.and_then(Main::hindrance).map(|why| format!(": {why}"));
            let because = hindrance.unwrap_or_default();
            format!("the shim that kept this run (pid {}) does not answer{because}; it was killed", shim.pid)
        }
    }
}

/// Why there was never an engine.
fn not_begun(lost: &Lost, why: String) -> EngineEvent {
    match lost {
        Lost::Dead(words) => unstarted::not_spawned(&error(words), why),
        Lost::Silent(_) => unstarted::hung(why),
    }
}

/// As an error of the system that stopped the shim.
fn error(words: &LastWords) -> io::Error {
    match words {
        LastWords::NotBegun { errno, .. } => io::Error::from_raw_os_error(*errno),
        LastWords::Text(words) if NO_MEMORY.iter().any(|known| words.contains(known)) => {
            io::ErrorKind::OutOfMemory.into()
        }
        LastWords::Text(_) => io::ErrorKind::Other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before: a program on a mount that hung was held.
    #[test]
    fn what_a_shim_died_of_is_read_from_its_last_words() {
        let said = |text: &str| Lost::Dead(LastWords::Text(text.to_owned()));
        let cases = [
            (Lost::Dead(LastWords::NotBegun { errno: 24, message: String::new() }), Nature::Shortage),
            (said("memory allocation of 65536 bytes failed"), Nature::Shortage),
            (
                said(
                    "mainstay: error while loading shared libraries: libc.so.6: failed to map segment from shared object",
                ),
                Nature::Shortage,
            ),
            (said("thread 'main' panicked at src/shim/keeper.rs:1:1"), Nature::Engine),
            (said(""), Nature::Engine),
            (Lost::Silent(None), Nature::Environment),
        ];
        for (lost, expected) in cases {
            let EngineEvent::SpawnFailed { nature, .. } = not_begun(&lost, String::new()) else {
                panic!("it was never there");
            };
            assert_eq!(nature, expected);
        }
    }
}
