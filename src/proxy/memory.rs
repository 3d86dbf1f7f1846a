//! Memory that many requests share: how much of it each of them may take.
use super::level::Level;
use super::limits::SMALL_BYTES;
use std::sync::Arc;

/// Bytes that many may take from, up to a limit. A quarter is kept for those that take little: whoever has more than
/// `SMALL_BYTES` finds it full at three quarters.
#[derive(Debug)]
pub(super) struct Pool {
    limit: usize,
    used: Level,
}

impl Pool {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: Level::default() }
    }

    /// The most that there can be for one that has `bytes` in all.
    pub fn limit_for(&self, bytes: usize) -> usize {
        if bytes > SMALL_BYTES { self.limit - self.limit / 4 } else { self.limit }
    }

    /// Takes `more` for one that has `bytes` in all then. Takes nothing when that is too much.
    pub fn take(&self, more: usize, bytes: usize) -> bool {
        more == 0 || self.used.rise(more, self.limit_for(bytes))
    }

    pub fn give(&self, bytes: usize) {
        self.used.fall(bytes);
    }

    pub fn level(&self) -> &Level {
        &self.used
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.now()
    }
}

/// What one answer holds back, out of the memory for all of them.
#[derive(Debug)]
pub(super) struct Held {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Held {
    pub fn new(pool: &Arc<Pool>) -> Self {
        Self { pool: pool.clone(), bytes: 0 }
    }

    /// Makes it `bytes` large. When there is no room for that it stays as it is.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.pool.give(self.bytes - bytes);
        } else if !self.pool.take(bytes - self.bytes, bytes) {
            return false;
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pool.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_left_to_those_that_take_little() {
        let pool = Arc::new(Pool::new(16 * SMALL_BYTES));
        let mut large: Vec<Held> = (0..6).map(|_| Held::new(&pool)).collect();
        assert!(large.iter_mut().all(|one| one.resize(2 * SMALL_BYTES)));
        let mut late = Held::new(&pool);
        assert!(!late.resize(SMALL_BYTES + 1), "the rest is not for large ones");
        let mut small: Vec<Held> = (0..4).map(|_| Held::new(&pool)).collect();
        assert!(small.iter_mut().all(|one| one.resize(SMALL_BYTES)));
        assert!(!late.resize(1));
        drop(large);
        assert!(late.resize(2 * SMALL_BYTES) && late.resize(SMALL_BYTES));
        assert_eq!(pool.used(), 5 * SMALL_BYTES);
        drop((late, small));
        assert_eq!(pool.used(), 0);
    }
}
