//! The agent's side of one run: start its shim, pass orders to it, and turn what it says into news for the loop.
//!
//! A spawned shim is handled exactly as an adopted one would be: through its socket. One task per run; it ends when the
//! run has ended and the loop knows.
use super::diagnosis::{self, Circumstances};
use super::echo::Echo;
use super::gpus::Seen as SeenGpus;
use super::inbox::{News, RunNews, Sender};
use super::oom::{Kills, Since};
use super::ports;
use super::previous::{self, Intent};
use super::unstarted;
use super::watch::Watch;
use crate::kinds::Kind;
use crate::lookout;
use crate::policy::{Cause, Ending, EngineEvent, Event, Exit, Moment, Nature, Remains, RunId};
use crate::shim::leftovers::{Main, Orphans};
use crate::shim::{self, Exited, FromShim, Lifeline, Link, Spawned, Spec, ToShim};
use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// How long a new shim may take to open its socket; it does nothing before that but read its orders.
const SHIM_OPENS: Duration = Duration::from_secs(10);
/// A shim that has dropped the connection still listens; one that is dead does not.
const SHIM_AGAIN: Duration = Duration::from_secs(1);
/// How long the kernel's log may take to be read.
const KERNEL_ANSWERS: Duration = Duration::from_secs(2);
/// How long the directories of old runs may take to be removed before the new run begins all the same.
const TIDY_LIMIT: Duration = Duration::from_secs(5);
/// How long what a dead shim left may withstand KILL before it is called wedged, and how often it is killed again.
const BURIAL: Duration = Duration::from_secs(30);

/// Everything that one run's keeper needs.
pub struct Keeper {
    pub run: RunId,
    pub kind: Kind,
    pub spec: Spec,
    /// What was written down of the run before it began.
    pub intent: Intent,
    /// The agent's runtime directory.
    pub run_dir: PathBuf,
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
    /// The engine's main process.
    pid: Option<u32>,
    main: Option<Main>,
    watch: Watch,
    /// Where the kernel's word about memory stood when the run began.
    memory: Option<Since>,
}

impl Keeper {
    /// Keeps the run to its end.
    pub async fn keep(mut self) {
        if self.alone().await {
            match self.begin() {
                Ok(spawned) => self.attend(&spawned).await,
                Err(failed) => self.tell(failed).await,
            }
        }
        self.gone().await;
    }

    /// Starts the shim, or says why there is none.
    fn begin(&self) -> Result<Spawned, EngineEvent> {
        let port = self.spec.port.unwrap_or(0);
        let short = |shortage| unstarted::short(shortage, &format!("port {port} cannot be tried"));
        if !ports::is_free(port).map_err(short)? {
            // Whoever it is would be asked, and believed, in the engine's place.
            return Err(unstarted::port_in_use(format!("another program listens at port {port}")));
        }
        shim::spawn(&self.spec, self.lifeline.read.as_fd())
            .map_err(|why| unstarted::not_spawned(&why, format!("the shim could not be started: {why}")))
    }

    /// Waits until no earlier run of this engine is left. False when this one is over before it began.
    async fn alone(&mut self) -> bool {
        let (run_dir, tier, number) = (self.run_dir.clone(), self.spec.tier.clone(), self.run.number);
        let mut is_wedged = false;
        loop {
            let left = tokio::select! {
                left = previous::ended(&run_dir, &tier, number) => left,
                order = self.orders.recv() => match order {
                    // What is wedged is looked at, and killed, again and again anyway.
                    Some(ToShim::Term { .. } | ToShim::Kill) if is_wedged => continue,
                    Some(ToShim::Term { .. } | ToShim::Kill) | None => {
                        let evidence = "it was stopped before it was started".to_owned();
                        let (cause, nature) = (Cause::Asked, Nature::Engine);
                        self.tell(EngineEvent::SpawnFailed { cause, nature, evidence }).await;
                        return false;
                    }
                    Some(ToShim::KillWorkers { .. } | ToShim::Release | ToShim::Unknown) => continue,
                },
            };
            if left.is_empty() {
                break;
            }
            // A run of an earlier agent is wedged, and so is this engine until it comes loose.
            is_wedged = true;
            self.tell(EngineEvent::Ended(Remains::Processes(left))).await;
        }
        if is_wedged {
            // Policy has given this run up; it starts the next one.
            self.tell(EngineEvent::Ended(Remains::Nothing)).await;
            return false;
        }
        // The space that an old run's files took may be what the new one's log needs.
        let lookout = lookout::on(&format!("old runs of {tier}"));
        let tidy = lookout.look(move || previous::tidy(&run_dir, &tier, number));
        let _ = tokio::time::timeout(TIDY_LIMIT, tidy).await;
        true
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
        let mut patience = SHIM_OPENS;
        while let Ok(link) = Link::connect(&self.spec.run_dir, patience).await {
            if self.converse(link, &mut seen).await {
                return;
            }
            patience = SHIM_AGAIN;
        }
        self.bury(shim, &seen).await;
    }

    /// One connection's worth of news and orders. True when the run is over; false when the connection is.
    async fn converse(&mut self, mut link: Link, seen: &mut Seen) -> bool {
        let mut looks = tokio::time::interval(self.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let starting = seen.pid.filter(|_| !self.was_ready.get());
            tokio::select! {
                // However much it writes meanwhile.
                _ = looks.tick(), if starting.is_some() => self.look_for_work(starting, seen).await,
                said = link.from.recv() => match said {
                    Ok(said) => {
                        if self.hear(said, seen, &mut link).await {
                            return true;
                        }
                    }
                    Err(_) => return false,
                },
                Some(order) = self.orders.recv() => {
                    seen.asked |= !matches!(order, ToShim::KillWorkers { .. });
                    if link.to.send(&order).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// True when the run is over and its shim released.
    async fn hear(&mut self, said: FromShim, seen: &mut Seen, link: &mut Link) -> bool {
        if !matches!(said, FromShim::Hello(_) | FromShim::Started { .. }) {
            self.show_output();
        }
        match said {
            FromShim::Hello(hello) => {
                seen.pid = hello.pid;
                if let Some(pid) = hello.pid {
                    seen.main = Main::of(pid);
                    self.note_main(seen.main);
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
            FromShim::Unknown => {}
        }
        false
    }

    /// The shim died, which it never should: nobody holds the engine's pipes any more and nobody else can clear its
    /// tree. The agent is a subreaper for this day.
    async fn bury(&self, shim: &Spawned, seen: &Seen) {
        tracing::error!(tier = self.spec.tier, run = self.run.number, "the shim is dead; clearing its run");
        let dead = rustix::process::pidfd_send_signal(&shim.pidfd, rustix::process::Signal::KILL);
        if dead.is_ok() {
            let _ = shim::gone(shim.pidfd.as_fd()).await;
        }
        let since = Moment::from_nanos(self.intent.began);
        let orphans = Orphans { nonce: self.spec.nonce.clone(), main: seen.main, since, until: None };
        if !seen.exited {
            let ending = Ending {
                exit: Exit::Unknown,
                cause: Cause::Unknown,
                nature: Nature::Engine,
                deterministic: None,
                evidence: Some("the shim that kept this run died".to_owned()),
            };
            self.tell(EngineEvent::Exited(ending)).await;
        }
        loop {
            let left = orphans.end(BURIAL).await;
            if left.is_empty() {
                previous::clear_up(self.spec.run_dir.clone(), self.spec.cgroup.clone()).await;
                return self.tell(EngineEvent::Ended(Remains::Nothing)).await;
            }
            self.tell(EngineEvent::Ended(Remains::Processes(left))).await;
        }
    }

    /// Writes down which process leads the run's session, for an agent that may find what is left of it.
    fn note_main(&self, main: Option<Main>) {
        if let Err(why) = (Intent { main, ..self.intent.clone() }).save(&self.spec.run_dir) {
            tracing::warn!(tier = self.spec.tier, run = self.run.number, %why, "the run's directory cannot be written");
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
