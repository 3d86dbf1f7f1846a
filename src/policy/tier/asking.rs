//! A tier that this host cannot ask, for want of descriptors, ports or memory. That says nothing about the tier: it is no
//! failure, and after a while no health either.
use crate::policy::{Cause, Health, Unasked};

/// The checks that could not be made since something was last heard of the tier.
#[derive(Debug, Default)]
pub(super) struct Asking {
    in_vain: u32,
    last: Option<Unasked>,
}

impl Asking {
    pub fn could_not(&mut self, why: Unasked) {
        self.in_vain = self.in_vain.saturating_add(1);
        self.last = Some(why);
    }

    /// Something was heard of it.
    pub fn heard(&mut self) {
        *self = Self::default();
    }

    /// What is due to this host, once `limit` checks in a row could not be made.
    pub fn cause(&self, limit: u32) -> Option<Cause> {
        self.last.as_ref().filter(|_| self.in_vain >= limit).map(|last| last.cause)
    }

    /// What else is known of the tier, and what could not be asked.
    pub fn beside(&self, (health, reason): (Health, String), limit: u32) -> (Health, String) {
        let Some(Unasked { why, .. }) = &self.last else { return (health, reason) };
        match health {
            Health::Healthy if self.in_vain >= limit => {
                (Health::Degraded, format!("{} checks could not be made: {why}", self.in_vain))
            }
            Health::Healthy | Health::Degraded | Health::Down => {
                (health, format!("{reason}; the last check could not be made: {why}"))
            }
        }
    }
}
