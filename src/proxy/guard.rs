//! Panics in a connection's task end that connection only: marked for the panic hook, and counted.
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static PANICS: AtomicU64 = AtomicU64::new(0);

tokio::task_local! {
    static CONNECTION: ();
}

/// Whether the code that asks runs in the task of one connection. For the panic hook: there a panic costs that
/// connection; everywhere else it ends the agent.
pub fn in_connection() -> bool {
    CONNECTION.try_with(|()| ()).is_ok()
}

/// Panics in connections' tasks so far, in this process.
pub(super) fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// Marks `work` as belonging to one connection, with a client or with an upstream.
pub(super) async fn connection<F: Future>(work: F) -> F::Output {
    let _count = PanicCount;
    CONNECTION.scope((), work).await
}

/// The same for work that is done for a connection on another thread, which outlives a panic in it.
pub(super) fn work(work: impl FnOnce()) {
    // Nothing that the work has begun is seen by anybody afterwards.
    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _count = PanicCount;
        CONNECTION.sync_scope((), work);
    }));
}

/// Counts a panic that unwinds through it.
struct PanicCount;

impl Drop for PanicCount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            PANICS.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_marked_counted_and_kept_in_its_task() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(connection(async {
            assert!(in_connection());
            std::panic::resume_unwind(Box::new("planted"));
        }));
        assert!(runtime.block_on(task).unwrap_err().is_panic());
        assert_eq!(panics(), 1);
        assert!(!in_connection());
    }
}
