//! The only file that reads the operating system's clocks.
//!
//! Decisions are made on [`Moment`] (CLOCK_BOOTTIME: it goes on counting through a suspend and can be compared across
//! lives of the agent within one boot). The wall clock is only ever shown.
use crate::policy::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::OnceLock;

/// Now, on CLOCK_BOOTTIME.
pub fn now() -> Moment {
    let t = clock_gettime(ClockId::Boottime);
    Moment::from_nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// Now, on CLOCK_MONOTONIC, which stands still in a suspend: the kernel log's clock, and to be compared with that alone.
pub fn awake() -> Moment {
    let t = clock_gettime(ClockId::Monotonic);
    Moment::from_nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// Now on the wall clock, in milliseconds since 1970-01-01 UTC.
pub fn wall_ms() -> i64 {
    let t = clock_gettime(ClockId::Realtime);
    t.tv_sec * 1_000 + t.tv_nsec / 1_000_000
}

/// A wall-clock time as RFC 3339 UTC with milliseconds, e.g. `2026-11-22T21:47:00.123Z`.
pub fn rfc3339(wall_ms: i64) -> String {
    let t = jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default();
    format!("{t:.3}")
}

/// Reads what [`rfc3339`] wrote, or any other RFC 3339 time; `None` when it is none.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}

/// The wall-clock time of a moment of this boot, as RFC 3339 UTC. Right as long as nobody set the clock in between,
/// which is all that showing needs.
pub fn rfc3339_of(moment: Moment) -> String {
    let ahead_ms = moment.as_nanos() as i64 / 1_000_000 - now().as_nanos() as i64 / 1_000_000;
    rfc3339(wall_ms() + ahead_ms)
}

/// The kernel's id of this boot. With a run number and a nonce it names a run beyond doubt. Read once: who has had it is
/// given it again whatever this host lacks by then.
///
/// # Errors
/// When it cannot be read. Then nobody knows whether a run is of this boot.
pub fn boot_id() -> io::Result<&'static str> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(ID.get_or_init(|| read.trim().to_owned()))
}
