//! Proof that a loop still turns: it beats after each completed turn, and whoever asks sees how long ago that was.
use crate::clock;
use crate::policy::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One critical loop's heart. Beaten by the loop itself, never by a timer on its behalf.
#[derive(Debug)]
pub struct Heart {
    name: &'static str,
    last_beat: AtomicU64,
}

impl Heart {
    /// A heart that has just beaten.
    pub fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, last_beat: AtomicU64::new(clock::now().as_nanos()) })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn beat(&self) {
        self.last_beat.store(clock::now().as_nanos(), Ordering::Relaxed);
    }

    /// Time since the last beat.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(Moment::from_nanos(self.last_beat.load(Ordering::Relaxed)))
    }
}
