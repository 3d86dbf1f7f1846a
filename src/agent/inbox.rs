//! What reaches the loop from outside: events for policy, and the few things that the agent answers by itself.
//!
//! Facts (exits, an operator's orders, the ends of tickets) wait for a place and are never dropped; the data plane's
//! reports come through a door of their own and are dropped when the loop is behind, because a later one says the same.
use crate::control::Order;
use crate::policy::{Event, RunId};
use crate::proxy::Report;
use tokio::sync::mpsc;

/// Facts that may wait for the loop. Their producers wait when it is full.
const WAITING_MAX: usize = 256;

#[derive(Debug)]
pub enum News {
    /// For policy, as it is.
    Event(Event),
    /// What the agent itself remembers of a run.
    Run(RunId, RunNews),
    /// An operator asked, through the control socket.
    Order(Order),
    /// The data plane saw something that must not wait for the next sample.
    Report(Report),
    /// SIGHUP: check the configuration file.
    CheckFile,
    /// What came of that.
    FileChecked(FileVerdict),
}

/// Would the configuration file, as it lies there, be taken?
#[derive(Debug)]
pub enum FileVerdict {
    Unchanged,
    /// It would, and says something else than what runs.
    Good,
    /// One problem a line.
    Wrong(Vec<String>),
}

impl FileVerdict {
    pub fn sentence(&self) -> String {
        match self {
            Self::Unchanged => "the file has not changed".to_owned(),
            Self::Good => "the file is good; restart to apply".to_owned(),
            Self::Wrong(problems) => {
                format!("the file is wrong, nothing was changed: {}", problems.join("; "))
            }
        }
    }
}

#[derive(Debug)]
pub enum RunNews {
    Spawned {
        shim_pid: u32,
        pid: u32,
    },
    Progress(crate::kinds::Progress),
    /// Its main process is reaped.
    Exited,
    /// Its keeper is done: the shim has been released or is dead, and the port may be given out again.
    Gone {
        port: u16,
    },
}

#[derive(Clone, Debug)]
pub struct Sender(mpsc::Sender<News>);

impl Sender {
    /// Delivers a fact; waits for a place. When the loop has ended nobody needs it any more.
    pub async fn fact(&self, news: News) {
        let _ = self.0.send(news).await;
    }

    pub async fn event(&self, event: Event) {
        self.fact(News::Event(event)).await;
    }
}

pub fn inbox() -> (Sender, mpsc::Receiver<News>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Sender(sender), receiver)
}
