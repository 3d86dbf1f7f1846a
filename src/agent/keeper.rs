//! The agent's side of one run: start its shim, pass orders to it, and turn what it says into news for the loop.
//!
//! A spawned shim is handled exactly as an adopted one would be: through its socket. One task per run; it ends when the
//! run has ended and the loop knows. A shim that is dead or does not answer keeps nothing: see `burial`.
mod beginning;
mod burial;

use super::diagnosis::{self, Circumstances};
use super::echo::Echo;
use super::gpus::Seen as SeenGpus;
use super::inbox::{News, RunNews, Sender};
use super::oom::{Kills, Since};
use super::previous::{self, Intent};
use super::state_dir::StateDir;
use super::unstarted;
use super::watch::Watch;
use crate::config::MissingKey;
use crate::kinds::Kind;
use crate::lookout;
use crate::policy::{Ending, EngineEvent, Event, Remains, RunId};
use crate::shim::leftovers::Main;
use crate::shim::{self, Exited, FromShim, LastWords, Lifeline, Link, Spawned, Spec, ToShim};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// How often a shim is asked whether it is there, and how many questions in a row it may leave without a word.
const PING_EVERY: Duration = previous::SHIM_ANSWERS;
const PINGS_MISSED_MAX: u32 = 2;
/// The same for the first word of a new shim, which starts the engine first: its program may lie on a disk that has to wake
/// up, or on another host's.
const FIRST_PINGS_MISSED_MAX: u32 = 5;
/// How long a shim may take to open its socket; it does nothing before that but read its orders.
const SHIM_LISTENS: Duration = Duration::from_secs(15);
/// Between the end of a connection and the next one, when the shim is not dead.
const RECONNECT: Duration = Duration::from_millis(100);
/// How long the kernel's log may take to be read.
const KERNEL_ANSWERS: Duration = Duration::from_secs(2);

/// Everything that one run's keeper needs.
pub struct Keeper {
    pub run: RunId,
    pub kind: Kind,
    pub spec: Spec,
    /// Variables that are still to be read from their files.
    pub late_env: BTreeMap<String, MissingKey>,
    /// What is written down of the run before it begins, and whether that is done.
    pub intent: Intent,
    pub is_intended: bool,
    /// The agent's runtime directory.
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    pub state: Arc<StateDir>,
    pub lifeline: Rc<Lifeline>,
    pub sender: Sender,
    pub orders: mpsc::Receiver<ToShim>,
    pub was_ready: Rc<Cell<bool>>,
    /// How often a start is looked at for signs of work.
    pub look_every: Duration,
    /// What is known of the GPUs, where somebody looks at them.
    pub gpus: Option<SeenGpus>,
    /// The unit's counter of what the OOM killer took.
    pub kills: Rc<Kills>,
    /// Shows what the engine prints, where somebody wants that.
    pub echo: Option<Echo>,
}

/// What the keeper has seen of its run.
#[derive(Default)]
struct Seen {
    /// Mainstay asked for the end, so no signal of it is anybody else's.
    asked: bool,
    exited: bool,
    /// The shim answers pings, as it says itself.
    pongs: bool,
    /// The engine's main process.
    pid: Option<u32>,
    main: Option<Main>,
    /// How far it has come that an agent after this one knows `main`.
    noted: Noted,
    watch: Watch,
    /// Where the kernel's word about memory stood when the run began.
    memory: Option<Since>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Noted {
    #[default]
    No,
    /// It failed, and that was said; it is tried again.
    Failed,
    Yes,
}

/// How a conversation with the shim came to its end.
enum Parting {
    /// The run is over, and its shim released.
    Over,
    Disconnected,
    /// It is connected and says nothing.
    Silent,
}

/// How the shim was lost.
enum Lost {
    Dead(LastWords),
    /// It does not answer. Which process that is, if it was ever seen.
    Silent(Option<Main>),
}

impl Keeper {
    /// Keeps the run to its end.
    pub async fn keep(mut self) {
        if self.alone().await {
            match self.set_out().await {
                Ok(spawned) => self.attend(&spawned).await,
                Err(failed) => {
                    // Nothing lives that it would be needed for, and what this host lacks may be space.
                    previous::forget(&self.spec.run_dir);
                    self.tell(failed).await;
                }
            }
        }
        self.gone().await;
    }

    async fn gone(&self) {
        let port = self.spec.port.unwrap_or(0);
        self.sender.fact(News::Run(self.run, RunNews::Gone { port })).await;
    }

    /// There is no port to be had: says so, and ends.
    pub async fn give_up(self, failed: EngineEvent) {
        self.tell(failed).await;
        self.gone().await;
    }

    /// Listens to the shim until the run is over, and passes orders on.
    async fn attend(&mut self, shim: &Spawned) {
        let mut seen = Seen { memory: Some(self.kills.begin()), ..Seen::default() };
        loop {
            let lost = match self.reach(shim).await {
                Ok(link) => match self.converse(link, &mut seen).await {
                    Parting::Over => return,
                    // Only a dead shim does not take the next connection.
                    Parting::Disconnected => {
                        let _ = tokio::time::timeout(RECONNECT, shim::gone(shim.pidfd.as_fd())).await;
                        continue;
                    }
                    Parting::Silent => Lost::Silent(shim.process),
                },
                Err(lost) => lost,
            };
            return self.bury(shim, &seen, lost).await;
        }
    }

    /// Connects to the shim.
    async fn reach(&self, shim: &Spawned) -> Result<Link, Lost> {
        tokio::select! {
            biased;
            connected = Link::connect(&self.spec.run_dir, SHIM_LISTENS) => {
                connected.map_err(|_| Lost::Silent(shim.process))
            }
            () = shim::gone(shim.pidfd.as_fd()) => Err(Lost::Dead(shim.last_words())),
        }
    }

    /// One connection's worth of news and orders.
    async fn converse(&mut self, mut link: Link, seen: &mut Seen) -> Parting {
        let ticks = |every| {
            let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut looks, mut pings) = (ticks(self.look_every), ticks(PING_EVERY));
        let (mut is_heard, mut missed) = (false, 0);
        loop {
            let starting = seen.pid.filter(|_| !self.was_ready.get());
            tokio::select! {
                biased;
                // First what the shim has said: where this process or the host stood still, its answer lies there.
                said = link.from.recv() => match said {
                    Ok(said) => {
                        (is_heard, missed) = (true, 0);
                        if self.hear(said, seen, &mut link).await {
                            return Parting::Over;
                        }
                    }
                    Err(_) => return Parting::Disconnected,
                },
                Some(order) = self.orders.recv() => {
                    seen.asked |= !matches!(order, ToShim::KillWorkers { .. });
                    if link.to.send(&order).await.is_err() {
                        return Parting::Disconnected;
                    }
                }
                _ = pings.tick() => {
                    self.note_main(seen);
                    let limit = if is_heard { PINGS_MISSED_MAX } else { FIRST_PINGS_MISSED_MAX };
                    if missed >= limit && (seen.pongs || !is_heard) {
                        return Parting::Silent;
                    }
                    missed += 1;
                    if link.to.send(&ToShim::Ping).await.is_err() {
                        return Parting::Disconnected;
                    }
                }
                _ = looks.tick(), if starting.is_some() => self.look_for_work(starting, seen).await,
            }
        }
    }

    /// True when the run is over and its shim released.
    async fn hear(&mut self, said: FromShim, seen: &mut Seen, link: &mut Link) -> bool {
        if !matches!(said, FromShim::Hello(_) | FromShim::Started { .. } | FromShim::Pong) {
            self.show_output();
        }
        match said {
            FromShim::Hello(hello) => {
                (seen.pid, seen.pongs) = (hello.pid, hello.pongs);
                if let Some(pid) = hello.pid {
                    self.note_main(seen);
                    let news = RunNews::Spawned { shim_pid: hello.shim_pid, pid };
                    self.sender.fact(News::Run(self.run, news)).await;
                }
            }
            FromShim::Started { pid } => self.tell(EngineEvent::Spawned { pid }).await,
            FromShim::StartFailed { errno, message } => {
                let why = io::Error::from_raw_os_error(errno);
                self.tell(unstarted::not_spawned(&why, message)).await;
                let _ = link.to.send(&ToShim::Release).await;
                return true;
            }
            FromShim::Activity { .. } => self.follow_progress(seen).await,
            FromShim::Exited(exited) => {
                seen.exited = true;
                self.sender.fact(News::Run(self.run, RunNews::Exited)).await;
                let ending = self.diagnose(&exited, seen).await;
                self.tell(EngineEvent::Exited(ending)).await;
            }
            FromShim::Ended { left } if left.is_empty() => {
                self.tell(EngineEvent::Ended(Remains::Nothing)).await;
                let _ = link.to.send(&ToShim::Release).await;
                return true;
            }
            FromShim::Ended { left } => self.tell(EngineEvent::Ended(Remains::Processes(left))).await,
            FromShim::Pong | FromShim::Unknown => {}
        }
        false
    }

    /// Finds out which process leads the run's session, and writes it down for an agent that may find what is left of it.
    /// What this host lacks for that now it may have later: then it is tried again.
    fn note_main(&self, seen: &mut Seen) {
        // Once it has exited its pid may be another's.
        let Some(pid) = seen.pid.filter(|_| seen.noted != Noted::Yes && !seen.exited) else { return };
        let found = if seen.main.is_some() { Ok(seen.main) } else { Main::of(pid) };
        let noted = found.and_then(|main| {
            seen.main = main;
            (Intent { main, ..self.intent.clone() }).save(&self.spec.run_dir)
        });
        match noted {
            Ok(()) => seen.noted = Noted::Yes,
            Err(why) => {
                if seen.noted == Noted::No {
                    let (tier, run) = (&self.spec.tier, self.run.number);
                    tracing::warn!(tier, run, %why, "the engine's process cannot be written down; it is tried again");
                }
                seen.noted = Noted::Failed;
            }
        }
    }

    /// An engine that compiles or copies weights may say nothing for minutes: its processes show that it works.
    async fn look_for_work(&self, pid: Option<u32>, seen: &mut Seen) {
        let found = match pid {
            Some(pid) => seen.watch.look(pid, self.gpus.as_ref()).await,
            None => None,
        };
        if let Some(found) = found {
            self.tell(found).await;
        }
    }

    fn show_output(&mut self) {
        if let Some(echo) = &mut self.echo {
            echo.turn(&self.spec.run_dir.join(shim::LOG), &self.spec.tier, self.run.number);
        }
    }

    /// What the newest log lines say of the start.
    async fn follow_progress(&self, seen: &mut Seen) {
        if self.was_ready.get() {
            return;
        }
        let read = seen.watch.read(&self.spec.run_dir.join(shim::LOG), self.kind);
        if !read.telling.is_empty() {
            self.sender.fact(News::Run(self.run, RunNews::Progress(read.telling))).await;
        }
        if read.news {
            self.tell(EngineEvent::Activity).await;
        }
    }

    async fn diagnose(&self, exited: &Exited, seen: &mut Seen) -> Ending {
        let asked = seen.asked || exited.asked.is_some();
        let out_of_memory = if asked { None } else { self.out_of_memory(seen).await };
        let known = Circumstances {
            kind: self.kind,
            exit: diagnosis::exit(exited),
            asked,
            was_ready: self.was_ready.get(),
            out_of_memory,
            at_ms: exited.at_ms,
        };
        diagnosis::ending(self.spec.run_dir.clone(), known).await
    }

    /// Did the OOM killer take a process of this run? The kernel's own words before the mere count.
    async fn out_of_memory(&self, seen: &mut Seen) -> Option<String> {
        let since = seen.memory.take()?;
        let rose = self.kills.rise(&since);
        let cgroup =
            self.spec.cgroup.as_deref().and_then(|path| path.file_name()?.to_str()).map(str::to_owned);
        let pid = seen.pid.unwrap_or_default();
        let lookout = lookout::on(&format!("the kernel's word on {pid}"));
        let word = lookout.look(move || since.kernels_word(pid, cgroup.as_deref()));
        let word = tokio::time::timeout(KERNEL_ANSWERS, word).await;
        word.ok().flatten().flatten().or(rose)
    }

    async fn tell(&self, event: EngineEvent) {
        self.sender.event(Event::Engine(self.run, event)).await;
    }
}
