//! The agent's side: one task that performs what `policy::Prober` decides, and publishes what is known of the GPUs.
//!
//! It runs beside the policy loop, which neither waits for it nor hears of it: whoever wants to know reads the picture.
use super::process::{News, Process};
use super::protocol;
use crate::clock;
use crate::policy::{
    GpuReading, GpuStatus, Gpus, Moment, Pace, ProbeAction, ProbeEvent, ProbeState, ProbeStatus, Prober,
};
use arc_swap::ArcSwap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a probe that was killed at the agent's end may take to go.
const LAST_MOMENT: Duration = Duration::from_millis(250);

/// Between two tries to watch a process, when there are no descriptors for it.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// What is known of the GPUs.
#[derive(Clone, Debug)]
pub struct Picture {
    pub probe: ProbeStatus,
    pub gpus: Vec<GpuStatus>,
    /// When this was last brought up to date.
    pub at: Moment,
    pace: Pace,
}

impl Picture {
    /// The task that brings the picture up to date has not done so for longer than it ever should.
    pub fn is_stale(&self, now: Moment) -> bool {
        let Pace { every, soft, hard, .. } = self.pace;
        self.probe.state == ProbeState::Ok && now.since(self.at) > every + soft + hard
    }
}

/// The probe, as the agent holds it.
#[derive(Debug)]
pub struct Probe {
    picture: Arc<ArcSwap<Picture>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Option<u32>>,
}

impl Probe {
    /// Begins to watch, on the local tasks of this thread, which must live as long as the agent. `env` is the probe's
    /// whole environment.
    pub fn start(pace: Pace, env: Vec<(OsString, OsString)>) -> Self {
        let now = clock::now();
        let prober = Prober::new(pace, now);
        let first = Picture { probe: prober.status().clone(), gpus: Vec::new(), at: now, pace };
        let picture = Arc::new(ArcSwap::from_pointee(first));
        let watch =
            Watch { prober, gpus: Gpus::default(), process: None, env, pace, picture: Arc::clone(&picture) };
        let (stop, stopped) = oneshot::channel();
        Self { picture, stop, task: tokio::task::spawn_local(watch.run(stopped)) }
    }

    pub fn picture(&self) -> Arc<ArcSwap<Picture>> {
        Arc::clone(&self.picture)
    }

    /// Kills the process, and does not wait long for that. The pid of one that is left behind.
    pub async fn stop(self) -> Option<u32> {
        let _ = self.stop.send(());
        self.task.await.ok().flatten()
    }
}

struct Watch {
    prober: Prober,
    gpus: Gpus,
    process: Option<Process>,
    env: Vec<(OsString, OsString)>,
    pace: Pace,
    picture: Arc<ArcSwap<Picture>>,
}

impl Watch {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Option<u32> {
        loop {
            let heard = tokio::select! {
                biased;
                _ = &mut stopped => break,
                heard = hear(&mut self.process) => heard,
                () = due(self.prober.next_deadline()) => Heard::event(ProbeEvent::Deadline),
            };
            if heard.event == ProbeEvent::Ended {
                self.process = None;
            }
            self.take(heard);
            self.publish();
        }
        let wedged = self.prober.is_wedged();
        self.take(Heard::event(ProbeEvent::Stop));
        let process = self.process?;
        let gone = !wedged && tokio::time::timeout(LAST_MOMENT, process.gone()).await.is_ok();
        (!gone).then_some(process.pid)
    }

    fn take(&mut self, Heard { event, gpus }: Heard) {
        let now = clock::now();
        let before = self.prober.status().state;
        let mut gpus = Some(gpus);
        let mut open = self.prober.on(now, event);
        while let Some(action) = open.pop() {
            match action {
                ProbeAction::Spawn => {
                    let event = self.spawn();
                    open.extend(self.prober.on(clock::now(), event));
                }
                ProbeAction::Ask(number) => {
                    if let Some(process) = &self.process {
                        process.ask(number);
                    }
                }
                ProbeAction::Take => self.gpus.take(now, gpus.take().unwrap_or_default()),
                ProbeAction::Kill => {
                    if let Some(process) = &mut self.process {
                        process.kill();
                    }
                }
            }
        }
        self.tell(before);
    }

    fn spawn(&mut self) -> ProbeEvent {
        match Process::spawn(&self.env) {
            Ok(process) => {
                self.process = Some(process);
                ProbeEvent::Spawned
            }
            Err(why) => ProbeEvent::SpawnFailed(why.to_string()),
        }
    }

    /// One line for each change of state.
    fn tell(&self, before: ProbeState) {
        let ProbeStatus { state, reason, driver, .. } = self.prober.status();
        let driver = driver.as_deref().unwrap_or("unknown");
        match (before, state) {
            (before, now) if before == *now => tracing::debug!(?now, why = reason, "gpu probe"),
            (_, ProbeState::Ok) => tracing::info!(driver, from = ?before, "the GPU probe answers"),
            (_, ProbeState::NoDriver) => {
                tracing::info!(why = reason, "there is no GPU to watch; it is looked again every ten minutes")
            }
            (_, ProbeState::Unresponsive) => {
                tracing::warn!(why = reason, from = ?before, "the GPU probe does not answer: the GPUs are unknown")
            }
            (_, ProbeState::Wedged) => {
                tracing::error!(why = reason, from = ?before, "the GPU driver is wedged; reboot the host if it stays so")
            }
            (_, ProbeState::Starting) => {}
        }
    }

    fn publish(&mut self) {
        let (now, probe) = (clock::now(), self.prober.status().clone());
        match probe.state {
            ProbeState::Ok => {}
            ProbeState::Starting | ProbeState::NoDriver | ProbeState::Unresponsive | ProbeState::Wedged => {
                self.gpus.lose_sight(now, &probe.reason)
            }
        }
        let gpus = self.gpus.status().cloned().collect();
        self.picture.store(Arc::new(Picture { probe, gpus, at: now, pace: self.pace }));
    }
}

/// An event, and the reading that may have come with it.
struct Heard {
    event: ProbeEvent,
    gpus: Vec<GpuReading>,
}

impl Heard {
    fn event(event: ProbeEvent) -> Self {
        Self { event, gpus: Vec::new() }
    }
}

/// The next news of the process; never, while there is none.
async fn hear(process: &mut Option<Process>) -> Heard {
    let Some(process) = process else { return std::future::pending().await };
    match process.news().await {
        Ok(News::Line(line)) => match protocol::hear(&line) {
            Ok(protocol::Heard { ask, said, gpus }) => Heard { event: ProbeEvent::Answered(ask, said), gpus },
            Err(what) => Heard::event(ProbeEvent::Garbage(what)),
        },
        Ok(News::Endless) => Heard::event(ProbeEvent::Garbage("a line without an end".to_owned())),
        Ok(News::Ended) => Heard::event(ProbeEvent::Ended),
        Err(why) => {
            // It cannot even be watched: no descriptors, no memory. The deadlines decide, and it is tried again.
            tracing::warn!(%why, "the GPU probe cannot be watched");
            tokio::time::sleep(WATCH_AGAIN).await;
            Heard::event(ProbeEvent::Deadline)
        }
    }
}

async fn due(at: Option<Moment>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(clock::now())).await,
        None => std::future::pending().await,
    }
}
