//! The only source of randomness in policy: a small generator whose seed is injected, so that a whole host can be
//! replayed. It spreads restarts; nothing secret depends on it.
use std::time::Duration;

/// splitmix64: one word of state, any seed is good.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// `around` ± 25 %, so that engines that died together do not come back together.
    pub(super) fn jitter(&mut self, around: Duration) -> Duration {
        let permille = 750 + self.next() % 501;
        around.saturating_mul(u32::try_from(permille).unwrap_or(1_000)) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter_and_uses_all_of_it() {
        let mut chance = Chance::new(7);
        let drawn: Vec<u128> =
            (0..5_000).map(|_| chance.jitter(Duration::from_secs(4)).as_millis()).collect();
        assert!(drawn.iter().all(|ms| (3_000..=5_000).contains(ms)));
        assert!(drawn.iter().any(|ms| *ms < 3_050) && drawn.iter().any(|ms| *ms > 4_950));
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..8).map(|_| chance.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
