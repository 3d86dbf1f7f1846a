//! How much memory clients take, and giving back to the system what the allocator keeps after it has become much less.
//!
//! glibc keeps freed memory wherever a block that is in use lies above it: after 8,000 connections, all closed, it kept
//! 160 MB. `malloc_trim` gives all but 2 MB of that back. Tried as well: fewer arenas and a lower threshold, which changed
//! nothing; jemalloc, which begins with 1.5 MB more (a shim may have 1 MiB) and kept 5 MB with, 105 MB without a thread of
//! its own; mimalloc, which begins with 10 MB more and kept 190 MB.
//!
//! What is free at the top of a thread's arena `malloc_trim` leaves there. By default that may be twice as much as the
//! largest block that was ever freed: four bodies of 500,000 keys kept 24 MB. A fixed threshold makes it 5 MB.
use super::heavy::Heavy;
use super::level::Level;
use super::memory::Pool;
use super::shared::Shared;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether much has become free.
const LOOK: Duration = Duration::from_secs(5);
/// Less than this is not worth walking through the heap for.
const WORTH: usize = 4 << 20;
/// What a connection takes that has had a request: its buffers, its task and its timers.
const CONNECTION_BYTES: usize = 20 << 10;

/// A client's connection, as long as it is open.
#[derive(Debug)]
pub(super) struct Connected(Arc<Shared>);

impl Connected {
    pub fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.rise(CONNECTION_BYTES, usize::MAX);
        Self(shared.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fall(CONNECTION_BYTES);
    }
}

/// Gives freed memory back for as long as the proxy runs.
pub(super) async fn watch(shared: Arc<Shared>) {
    let heavy: &Heavy = shared.budget.heavy();
    loop {
        tokio::time::sleep(LOOK).await;
        let levels = levels(&shared);
        let sum = |of: fn(&Level) -> usize| levels.iter().map(|level| of(level)).sum();
        if has_fallen(sum(Level::peak), sum(Level::now)) {
            levels.iter().for_each(|level| level.forget());
            // It takes ten milliseconds for 160 MB, and holds up whoever wants memory of the same arena meanwhile.
            heavy.run(trim).await;
        }
    }
}

fn levels(shared: &Shared) -> [&Level; 4] {
    let [replay, transit] = shared.budget.pools().map(Pool::level);
    [&shared.connections, replay, transit, shared.held_answers.level()]
}

/// Is so much free that the system should have it? Not under a load that goes up and down a little: the memory is about to
/// be used again.
fn has_fallen(peak: usize, now: usize) -> bool {
    peak.saturating_sub(now) >= WORTH && now <= peak / 2
}

/// To be called once, before there is a client: lets no arena keep more than a little at its top.
#[cfg(target_env = "gnu")]
pub(super) fn keep_little() {
    const TOP: nix::libc::c_int = 1 << 20;
    #[expect(unsafe_code, reason = "no crate has a safe form of it")]
    // SAFETY: it sets a number of the allocator, and locks what it changes.
    unsafe {
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, TOP);
    }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_little() {}

#[cfg(target_env = "gnu")]
fn trim() {
    #[expect(unsafe_code, reason = "no crate has a safe form of it")]
    // SAFETY: it takes no pointer, locks each arena while it works on it, and gives back pages that hold nothing.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_a_fall_and_not_under_load() {
        const MIB: usize = 1 << 20;
        for (peak, now, fallen) in [
            (160 * MIB, 0, true),
            (160 * MIB, 80 * MIB, true),
            (160 * MIB, 81 * MIB, false),
            (4 * MIB, 0, true),
            (4 * MIB - 1, 0, false),
            (0, 0, false),
            (10 * MIB, 10 * MIB, false),
            // A rise between the two readings.
            (10 * MIB, 11 * MIB, false),
        ] {
            assert_eq!(has_fallen(peak, now), fallen, "{peak} {now}");
        }
    }
}
