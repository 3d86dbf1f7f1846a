//! What timed out, and counts as failed only if the engine is then seen to stand still.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct Doubts {
    pub(in crate::policy) check: bool,
    pub(in crate::policy) trial: bool,
}

impl Doubts {
    pub(in crate::policy) const CHECK: Self = Self { check: true, trial: false };
    pub(in crate::policy) const TRIAL: Self = Self { check: false, trial: true };

    pub(super) fn any(self) -> bool {
        self.check || self.trial
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { check: self.check || other.check, trial: self.trial || other.trial }
    }
}
