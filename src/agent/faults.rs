//! Faults of the agent itself, for tests only: they exist when it was started with `MAINSTAY_TEST_FAULTS=1`, and are
//! caused through the control socket.
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which faults have been caused. In an agent that was not started for tests nobody can.
#[derive(Debug, Default)]
pub struct Faults {
    stuck_loop: AtomicBool,
    no_failover: AtomicBool,
}

impl Faults {
    /// Was this agent started for tests?
    pub fn allowed() -> bool {
        std::env::var_os("MAINSTAY_TEST_FAULTS").is_some_and(|v| v == "1")
    }

    /// Where a test says that the unit's cgroup is.
    pub fn cgroup() -> Option<PathBuf> {
        Self::allowed().then(|| std::env::var_os("MAINSTAY_TEST_CGROUP").map(PathBuf::from))?
    }

    /// Causes the fault of this name; false when there is none.
    pub fn cause(&self, name: &str) -> bool {
        match name {
            "stuck-loop" => self.stuck_loop.store(true, Ordering::Relaxed),
            "no-failover" => self.no_failover.store(true, Ordering::Relaxed),
            "failover" => self.no_failover.store(false, Ordering::Relaxed),
            _ => return false,
        }
        true
    }

    /// A policy loop that never turns again, as a deadlock would leave it.
    pub fn maybe_stick(&self) {
        while self.stuck_loop.load(Ordering::Relaxed) {
            std::thread::park();
        }
    }

    /// False: only the first tier is ever tried, so that a script can show what failover is worth.
    pub fn failover(&self) -> bool {
        !self.no_failover.load(Ordering::Relaxed)
    }
}
