//! Threads for work on large JSON. A million values take a second to be read, printed or freed, in which a thread of the
//! data plane would relay no stream. The runtime's own blocking threads resolve names, and must not wait for this either.
use super::guard;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// More would take the cores from those that relay; with one alone a single body would hold up all others.
const THREADS: usize = 2;
const NAME: &str = "proxy-json";

type Job = Box<dyn FnOnce() + Send>;

/// The queue of these threads. What waits there is bounded by the memory for bodies, of which each job holds its part.
/// Dropped, the threads end after the jobs that are left.
#[derive(Clone, Debug)]
pub(super) struct Heavy(mpsc::Sender<Job>);

impl Heavy {
    pub fn start() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..THREADS {
            let jobs = jobs.clone();
            std::thread::Builder::new().name(NAME.into()).spawn(move || work(&jobs))?;
        }
        Ok(Self(sender))
    }

    /// Does `work` there, and waits for it. `None` when it panicked. A caller that is dropped meanwhile stops nothing: what
    /// `work` owns lives until it is done.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.begin(work).await.ok()
    }

    /// The same for a caller that does not wait in one place.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, done) = oneshot::channel();
        self.later(move || {
            // Nobody may be waiting any more.
            let _ = sender.send(work());
        });
        done
    }

    /// Does `work` there at some time.
    pub fn later(&self, work: impl FnOnce() + Send + 'static) {
        // The threads live as long as this sender.
        let _ = self.0.send(Box::new(work));
    }
}

fn work(jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        guard::work(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_a_panic_in_it_is_its_own() {
        let heavy = Heavy::start().unwrap();
        let name = heavy.run(|| std::thread::current().name().map(str::to_owned)).await;
        assert_eq!(name, Some(Some(NAME.to_owned())));
        let panics = (0..2 * THREADS).map(|_| heavy.run(|| std::panic::resume_unwind(Box::new("planted"))));
        for one in panics {
            assert_eq!(one.await, None::<()>);
        }
        assert_eq!(heavy.run(|| 7).await, Some(7));
    }
}
