//! What reaches the loop from outside: events for policy, and the few things that the agent answers by itself.
//!
//! Facts (exits, an operator's orders, the ends of tickets) wait for a place and are never dropped; the data plane's
//! reports come through a door of their own and are dropped when the loop is behind, because a later one says the same.
use crate::alert;
use crate::config::Secret;
use crate::control::Order;
use crate::policy::{Ending, EngineEvent, Event, Outcome, Prepared, Processor, RunId, Still, TierId};
use crate::proxy::Report;
use crate::redact::Redactor;
use std::sync::Arc;
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
    /// What became of a mail.
    Mail(alert::Outcome),
    /// A remote tier's key that was missing is there.
    Key(TierId, Secret),
    /// A secret of an engine that was missing is there.
    Secret(Secret),
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
    /// What its log, or the answer of a download, tells of its start; in order.
    Progress(Vec<crate::kinds::Progress>),
    /// Its main process is reaped.
    Exited,
    /// Its keeper is done: the shim has been released or is dead, and the port may be given out again.
    Gone {
        port: u16,
    },
}

/// The way in for facts. What others wrote is freed of secrets on it, so that policy never has one to tell.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<News>,
    redactor: Arc<Redactor>,
}

impl Sender {
    /// Delivers a fact; waits for a place. When the loop has ended nobody needs it any more.
    pub async fn fact(&self, mut news: News) {
        texts(&mut news).into_iter().for_each(|text| self.redactor.clean(text));
        let _ = self.queue.send(news).await;
    }

    /// A key that was missing is there: from now on nobody may see it.
    pub async fn key(&self, tier: TierId, key: Secret) {
        self.redactor.learn(key.expose());
        self.fact(News::Key(tier, key)).await;
    }

    /// The same for a secret of an engine.
    pub async fn secret(&self, secret: &Secret) {
        self.redactor.learn(secret.expose());
        self.fact(News::Secret(secret.clone())).await;
    }

    /// For those who must not wait; false when there is no place.
    pub fn offer(&self, news: News) -> bool {
        self.queue.try_send(news).is_ok()
    }

    pub async fn event(&self, event: Event) {
        self.fact(News::Event(event)).await;
    }
}

pub fn inbox(redactor: Arc<Redactor>) -> (Sender, mpsc::Receiver<News>) {
    let (queue, receiver) = mpsc::channel(WAITING_MAX);
    (Sender { queue, redactor }, receiver)
}

/// Everything in a fact that an engine, the operating system or an operator's file may have worded.
fn texts(news: &mut News) -> Vec<&mut String> {
    match news {
        News::Event(Event::Engine(_, EngineEvent::SpawnFailed { evidence, .. }))
        | News::Event(Event::Engine(_, EngineEvent::Still(Still { repeats: Some(evidence), .. })))
        | News::Event(Event::Engine(_, EngineEvent::ComputesOn(Processor::Cpu { evidence })))
        | News::Event(Event::Engine(_, EngineEvent::Exited(Ending { evidence: Some(evidence), .. })))
        | News::Event(Event::Done(_, Outcome::Prepared(Prepared::Impossible { evidence, .. })))
        | News::Report(Report::Misconfigured { evidence, .. }) => vec![evidence],
        News::FileChecked(FileVerdict::Wrong(problems)) => problems.iter_mut().collect(),
        // What a relay said is cleaned where it becomes an event.
        News::Mail(_)
        | News::Event(_)
        | News::Run(..)
        | News::Order(_)
        | News::Report(Report::Refused { .. })
        | News::Key(..)
        | News::Secret(_)
        | News::CheckFile
        | News::FileChecked(FileVerdict::Unchanged | FileVerdict::Good) => vec![],
    }
}
