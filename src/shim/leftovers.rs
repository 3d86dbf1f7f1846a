//! For the agent: what is left of a run whose shim died. The agent is a subreaper too, so the orphans are below it. They
//! are known by the nonce in their environment or, where a process has painted over that (as vLLM's workers do for their
//! titles), by the session that the engine's main process had opened; and so is whatever is below them. A process that
//! left the session *and* emptied its environment *and* lost its parents cannot be told from somebody else's, and is left.
use super::sweep::carries;
use super::tree::{Process, descendants, pids};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);

/// Which run's orphans are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphans {
    pub nonce: String,
    /// The engine's main process, where it is known.
    pub main_pid: Option<u32>,
}

impl Orphans {
    /// Pids of what is alive of the run, in order. Looks at /proc/*/environ, which may block for as long as one of the
    /// processes looked at hangs in a driver: call it where that does no harm.
    pub fn survivors(&self) -> Vec<u32> {
        let mut found = self.of_session();
        found.extend(pids().filter(|pid| *pid != std::process::id() && carries(*pid, &self.nonce)));
        let below: Vec<u32> = found.iter().flat_map(|root| descendants(*root, &[])).map(|p| p.pid).collect();
        found.extend(below);
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| Process::read(*pid).is_some_and(|process| process.alive));
        found
    }

    /// KILLs them until none is left or the deadline has passed; gives what is left. Somebody else must reap them.
    pub async fn end(&self, deadline: Duration) -> Vec<u32> {
        let killing = async {
            loop {
                let orphans = self.clone();
                // A look that hangs blocks a thread of its own, not the loop that waits for it.
                let left = tokio::task::spawn_blocking(move || orphans.survivors()).await.unwrap_or_default();
                if left.is_empty() {
                    return;
                }
                left.iter().copied().filter_map(Process::read).for_each(|process| process.kill());
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(deadline, killing).await {
            Ok(()) => vec![],
            Err(_) => self.of_session(),
        }
    }

    /// What can be said without looking into any process: orphans below us, of the run's session.
    fn of_session(&self) -> Vec<u32> {
        let below = descendants(std::process::id(), &[]);
        below
            .iter()
            .filter(|process| Some(process.session) == self.main_pid)
            .map(|process| process.pid)
            .collect()
    }
}
