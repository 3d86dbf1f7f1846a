//! What becomes of a run, as the connections to it have to know.
use crate::policy::Standing;

/// What attempts in flight must learn of at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub standing: Standing,
    /// Every upstream connection of the run is closed.
    pub cut: bool,
}
