//! Looks that may hang: into a process that a driver holds (its environ, maps, io), at a file of a disk or a network that
//! does not answer. Each is made by a thread of its own, beside the few of the runtime, which names and files need; while
//! one hangs, no other of the same thing is begun. So what hangs costs one thread, and everything else goes on.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Looks that may be under way in all. Far more than hosts have tiers; each is a thread of a few kilobytes.
const LOOKS_MAX: usize = 64;

/// How many are under way.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static NAMED: Mutex<BTreeMap<String, Lookout>> = Mutex::new(BTreeMap::new());

/// A place from which one thing is looked at.
#[derive(Clone, Debug, Default)]
pub struct Lookout {
    is_busy: Arc<AtomicBool>,
}

/// The one lookout on what has this name.
pub fn on(what: &str) -> Lookout {
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever holds one may be about to use it.
    named.retain(|_, lookout| Arc::strong_count(&lookout.is_busy) > 1);
    named.entry(what.to_owned()).or_default().clone()
}

impl Lookout {
    /// What `look` finds. `None`: the look before this one still hangs, or too many do. The look goes on when
    /// nobody waits for it any more.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let under_way = UnderWay::begin(self)?;
        let (found, looked) = oneshot::channel();
        let work = move || {
            let seen = look();
            // Before anybody hears of it, who may want to look again.
            drop(under_way);
            let _ = found.send(seen);
        };
        // The thread that cannot be made would take the work with it.
        let work = Arc::new(Mutex::new(Some(work)));
        let same = Arc::clone(&work);
        let made = std::thread::Builder::new().name("look".into()).spawn(move || take(&same)());
        if made.is_err() {
            // This host allows no further thread: the runtime has one that stays (`threads`).
            drop(tokio::task::spawn_blocking(take(&work)));
        }
        looked.await.ok()
    }
}

fn take<W: FnOnce()>(work: &Mutex<Option<W>>) -> impl FnOnce() + use<W> {
    let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
    move || work.into_iter().for_each(|work| work())
}

/// A look from its beginning to its end, however that comes.
struct UnderWay(Lookout);

impl UnderWay {
    fn begin(lookout: &Lookout) -> Option<Self> {
        if UNDER_WAY.fetch_add(1, SeqCst) >= LOOKS_MAX {
            UNDER_WAY.fetch_sub(1, SeqCst);
            return None;
        }
        if lookout.is_busy.swap(true, SeqCst) {
            UNDER_WAY.fetch_sub(1, SeqCst);
            return None;
        }
        Some(Self(lookout.clone()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.is_busy.store(false, SeqCst);
        UNDER_WAY.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    /// A look that hangs until the sender is dropped; whoever asked for it has given up.
    async fn hang(lookout: &Lookout) -> Sender<()> {
        let (end, held) = channel::<()>();
        let look = lookout.look(move || held.recv().is_ok());
        assert!(tokio::time::timeout(Duration::ZERO, look).await.is_err(), "it hangs");
        end
    }

    #[tokio::test]
    async fn what_hangs_is_not_looked_at_again_and_everything_else_is() {
        let stuck = on("a test's process that hangs");
        let end = hang(&stuck).await;
        for _ in 0..1_000 {
            assert_eq!(on("a test's process that hangs").look(|| 1).await, None, "one thread is enough");
        }
        assert_eq!(on("a test's other process").look(|| 2).await, Some(2));
        assert_eq!(Lookout::default().look(|| 3).await, Some(3));
        drop(end);
        while stuck.is_busy.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        assert_eq!(on("a test's process that hangs").look(|| 4).await, Some(4), "it came back");
    }

    #[tokio::test]
    async fn a_look_that_panics_is_over() {
        let lookout = Lookout::default();
        assert_eq!(lookout.look(|| std::panic::resume_unwind(Box::new(()))).await, None::<()>);
        assert_eq!(lookout.look(|| 1).await, Some(1));
    }
}
