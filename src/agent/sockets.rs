//! The status and control sockets of this agent: what is behind them, and the thread that serves them.
use super::failure::{StartError, failed};
use super::faults::Faults;
use super::picture::Picture;
use super::scrape;
use crate::control::{self, Feed, Order, Served};
use crate::threads;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Status and control socket, open; whoever holds this decides when they close.
pub struct Sockets {
    /// Dropped: the thread ends.
    close: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Sockets {
    /// Opens status and control socket, on a thread of their own: a stuck loop can still be looked at. `scrapes` is answered
    /// there too.
    pub fn open(
        run_dir: &Path,
        served: Served,
        scrapes: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, StartError> {
        let (opened, outcome) = std::sync::mpsc::sync_channel(1);
        let (close, closed) = oneshot::channel();
        let run_dir = run_dir.to_owned();
        let serve = move || {
            let served = async {
                let open = control::serve(&run_dir, served).await;
                let (open, outcome) = match open {
                    Ok(open) => (Some(open), Ok(())),
                    Err(why) => (None, Err(why)),
                };
                let _ = opened.send(outcome);
                if open.is_some() {
                    tokio::spawn(scrapes);
                    let _ = closed.await;
                }
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(2)
                .thread_keep_alive(threads::FOR_EVER)
                .build();
            match runtime {
                Ok(runtime) => {
                    threads::keep_one(runtime.handle());
                    runtime.block_on(served);
                    // A look at a process that hangs in the driver is not waited for.
                    runtime.shutdown_background();
                }
                Err(why) => drop(opened.send(Err(why))),
            }
        };
        let doing = "cannot open the control sockets";
        let thread =
            std::thread::Builder::new().name("control".into()).spawn(serve).map_err(failed(doing))?;
        outcome.recv().map_err(io::Error::other).and_then(|outcome| outcome).map_err(failed(doing))?;
        Ok(Self { close, thread })
    }

    /// Ends every conversation and removes the files.
    pub fn close(self) {
        drop(self.close);
        let _ = self.thread.join();
    }
}

/// What the sockets serve.
pub fn served(
    picture: &Arc<Picture>,
    events: &Arc<Feed>,
    metrics: scrape::Source,
    operator: mpsc::Sender<Order>,
    faults: &Arc<Faults>,
) -> Served {
    let status = Arc::clone(picture);
    let faults = Faults::allowed().then(|| {
        let faults = Arc::clone(faults);
        Arc::new(move |name: &str| faults.cause(name)) as control::Faults
    });
    Served {
        status: Arc::new(move || {
            let picture = Arc::clone(&status);
            Box::pin(async move { picture.status().await })
        }),
        events: Arc::clone(events),
        metrics,
        operator,
        faults,
    }
}
