//! Errors of our own, by their code: requests to which mainstay itself gave the answer.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Declares the codes together with their names on the wire, so that neither can be forgotten.
macro_rules! codes {
    ($($variant:ident = $name:literal;)*) => {
        /// The `code` of an error of our own (contract "Answers").
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($variant),* }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

codes! {
    AllTiersDown = "all_tiers_down";
    OnlyDegradedTiers = "only_degraded_tiers";
    Overloaded = "overloaded";
    UpstreamFailed = "upstream_failed";
    RequestTimeout = "request_timeout";
    PoisonRequest = "poison_request";
    NotSupported = "not_supported";
    ModelNotFound = "model_not_found";
    BodyTooLarge = "body_too_large";
    InvalidBody = "invalid_body";
    InvalidJson = "invalid_json";
    InvalidValue = "invalid_value";
    MethodNotAllowed = "method_not_allowed";
    NotFound = "not_found";
    InvalidRequest = "invalid_request";
    HeadTooLarge = "head_too_large";
    InvalidHost = "invalid_host";
    OriginNotAllowed = "origin_not_allowed";
    UnsupportedMediaType = "unsupported_media_type";
    Loop = "loop";
}

/// How many requests got each of them, since the agent began.
#[derive(Debug, Default)]
pub(super) struct RefusalCounts([AtomicU64; Code::ALL.len()]);

/// The counts at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Code::ALL.len()]);

impl RefusalCounts {
    pub fn count(&self, code: Code) {
        self.0[code as usize].fetch_add(1, Relaxed);
    }

    pub fn snapshot(&self) -> Refusals {
        Refusals(std::array::from_fn(|code| self.0[code].load(Relaxed)))
    }
}

impl Refusals {
    /// Every code with its count, in the order of [`Code::ALL`].
    pub fn by_code(&self) -> impl Iterator<Item = (Code, u64)> {
        Code::ALL.iter().copied().zip(self.0)
    }

    pub fn of(&self, code: Code) -> u64 {
        self.0[code as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_a_count_of_its_own() {
        let counts = RefusalCounts::default();
        counts.count(Code::AllTiersDown);
        counts.count(Code::NotFound);
        counts.count(Code::NotFound);
        let shown = counts.snapshot();
        assert_eq!((shown.of(Code::AllTiersDown), shown.of(Code::NotFound)), (1, 2));
        assert_eq!(shown.by_code().map(|(_, count)| count).sum::<u64>(), 3);
    }
}
