//! What systemd is told, and how it knows that the agent still turns. Where there is no systemd (a shell, a container)
//! everything in here is silent and nothing differs.
pub mod notify;
pub mod stop;
pub mod watchdog;

pub use notify::{Notifier, status_text};
pub use stop::StopTime;
pub use watchdog::Watchdog;

/// What systemd puts into the agent's environment that is about the agent itself. No child may inherit it: an engine
/// that finds these would speak for the agent, and be believed.
pub const OURS_ALONE: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
];
