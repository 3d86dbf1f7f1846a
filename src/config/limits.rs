//! The small tables of a tier: checks, restarts, starts, time limits, and how its answers are weakened.
use super::section::Section;
use super::value::{duration, number, spelled, whole, words};
use crate::kinds::{DEFAULT_NOTICE, Degrade};
use crate::policy::{Check, Restart, Startup};
use std::ops::RangeInclusive;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Any time that is waited for something; zero would be no time at all.
pub(super) const WAIT: RangeInclusive<Duration> = RangeInclusive::new(Duration::from_millis(1), DAY);
/// An engine that is asked more often has less time for clients.
const CHECK_INTERVAL: RangeInclusive<Duration> = RangeInclusive::new(Duration::from_millis(100), DAY);
/// Any time that may be skipped.
pub(super) const WAIT_OR_NOT: RangeInclusive<Duration> = RangeInclusive::new(Duration::ZERO, DAY);

/// Time limits of requests to a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// From the request to the first content; remote tiers only.
    pub first_content: Duration,
    /// Between two pieces of a stream; remote tiers only.
    pub between_chunks: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn check(mut table: Section<'_>) -> Check {
    let check = Check {
        interval: table.read("interval", duration(CHECK_INTERVAL)).unwrap_or(seconds(10)),
        timeout: table.read("timeout", duration(WAIT)).unwrap_or(seconds(5)),
        slow: table.read("slow", duration(WAIT)).unwrap_or(seconds(2)),
        failures: table.read("failures", whole(1..=1000)).unwrap_or(3),
    };
    table.finish();
    check
}

pub(super) fn restart(mut table: Section<'_>) -> Restart {
    let restart = Restart {
        first: table.read("first", duration(WAIT_OR_NOT)).unwrap_or(Duration::ZERO),
        base: table.read("base", duration(WAIT)).unwrap_or(seconds(1)),
        max: table.read("max", duration(WAIT)).unwrap_or(seconds(60)),
        stable: table.read("stable", duration(WAIT)).unwrap_or(seconds(600)),
        hold_after: table.read("hold_after", whole(1..=1000)).unwrap_or(5),
        hold_retry: table.read("hold_retry", duration(WAIT)).unwrap_or(seconds(15 * 60)),
    };
    if restart.max < restart.base {
        let what = format!("`max` is {}, below `base`, {}", spelled(restart.max), spelled(restart.base));
        let key = if table.has("max") { "max" } else { "base" };
        table.report_at(key, what, "let the waits grow from `base` to `max`");
    }
    table.finish();
    restart
}

pub(super) fn startup(mut table: Section<'_>) -> Startup {
    let startup = Startup {
        stall: table.read("stall", duration(WAIT)).unwrap_or(seconds(5 * 60)),
        cap: table.read("cap", duration(WAIT)).unwrap_or(seconds(60 * 60)),
    };
    if startup.cap < startup.stall {
        let what = format!("`cap` is {}, below `stall`, {}", spelled(startup.cap), spelled(startup.stall));
        let key = if table.has("cap") { "cap" } else { "stall" };
        table.report_at(key, what, "give a whole start at least as long as one stall");
    }
    table.finish();
    startup
}

pub(super) fn timeouts(mut table: Section<'_>) -> Timeouts {
    let timeouts = Timeouts {
        connect: table.read("connect", duration(WAIT)).unwrap_or(seconds(2)),
        first_content: table.read("first_content", duration(WAIT)).unwrap_or(seconds(60)),
        between_chunks: table.read("between_chunks", duration(WAIT)).unwrap_or(seconds(60)),
    };
    table.finish();
    timeouts
}

pub(super) fn degrade(mut table: Section<'_>) -> Degrade {
    let degrade = Degrade {
        max_tokens: table.read("max_tokens", whole(1..=i64::from(u32::MAX))).map(i64::cast_unsigned),
        temperature: table.read("temperature", number(0.0..=2.0)),
        notice: table.read("notice", words).unwrap_or_else(|| DEFAULT_NOTICE.to_owned()),
    };
    table.finish();
    degrade
}
