//! How much of something is in use, and how much was of late.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes in use, and the most that there were of late.
#[derive(Debug, Default)]
pub(super) struct Level {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Level {
    /// Adds `more` if that makes no more than `limit`.
    pub fn rise(&self, more: usize, limit: usize) -> bool {
        let fits = |now: usize| now.checked_add(more).filter(|&sum| sum <= limit);
        let Ok(before) = self.now.fetch_update(Relaxed, Relaxed, fits) else { return false };
        self.peak.fetch_max(before + more, Relaxed);
        true
    }

    pub fn fall(&self, less: usize) {
        self.now.fetch_sub(less, Relaxed);
    }

    pub fn now(&self) -> usize {
        self.now.load(Relaxed)
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// From now on the peak is what is in use now.
    pub fn forget(&self) {
        self.peak.store(self.now(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_knows_its_peak_until_it_is_forgotten() {
        let level = Level::default();
        assert!(level.rise(70, 100) && !level.rise(31, 100) && level.rise(30, 100));
        level.fall(90);
        assert_eq!((level.peak(), level.now()), (100, 10));
        level.forget();
        assert_eq!((level.peak(), level.now()), (10, 10));
    }
}
