//! The clocks of a stop, in one place for both that keep them. The shim acts when one of them runs out; policy acts itself
//! only [`SHIM_LATE`] later, when the shim should have been heard of.
use std::time::Duration;

/// When the main process is gone, what it leaves behind gets this long to end by itself: vLLM's resource tracker needs
/// about a second to remove shared memory. Orphaned workers never end by themselves.
pub const SETTLE: Duration = Duration::from_secs(2);
/// From the first KILL until what is left is reported as surviving it.
pub const REAP_DEADLINE: Duration = Duration::from_secs(30);
/// A shim that lives has acted, and said so, this long after it was to.
pub(super) const SHIM_LATE: Duration = Duration::from_secs(5);
