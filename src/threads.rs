//! Threads that may wait, while this host allows no further one: work for them is queued for those that there are, but where
//! there is none at all tokio panics, and the agent would end for want of a thread. So one is made at the start, and stays.
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a thread stays that has nothing to do.
pub const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Makes the first thread of this runtime.
pub fn keep_one(runtime: &Handle) {
    drop(runtime.spawn_blocking(|| ()));
}
