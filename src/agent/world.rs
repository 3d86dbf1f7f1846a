//! What the agent does for policy: one short arm per action, none of which waits.
use super::echo::EngineLog;
use super::gpus::Seen;
use super::inbox::{FileVerdict, News, RunNews, Sender};
use super::notice::Names;
use super::oom::Kills;
use super::ports::Ports;
use super::previous;
use super::previous::Intent;
use super::probe::{Probe, Target};
use super::seat::Seat;
use super::state_dir::StateDir;
use crate::clock;
use crate::config::{self, Config, Environment, Refusal, Secret};
use crate::descriptors;
use crate::kinds;
use crate::lookout;
use crate::policy::{
    Action, CheckFailure, Checked, EngineEvent, Event, Moment, Outcome, Prepared, Retry, Route, RunId,
    Sample, Standing, Ticket, TierId, Tried,
};
use crate::proxy::RouteTable;
use crate::shim::{Lifeline, ToShim};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two lines of the log that say the same of a tier.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The world as the loop can reach it.
pub struct World {
    pub config: Arc<Config>,
    pub environment: Environment,
    /// One per tier, in rank order.
    pub seats: Vec<Seat>,
    /// The tiers' names, in rank order.
    pub names: Vec<String>,
    /// Which tier each engine belongs to. Today each local tier has an engine of its own.
    pub engines: Vec<TierId>,
    pub ports: Ports,
    pub lifeline: Rc<Lifeline>,
    pub run_dir: PathBuf,
    pub state: Arc<StateDir>,
    /// What engines get for a home.
    pub home: String,
    /// The cgroup under which runs get theirs, where there is a delegated one.
    pub cgroup: Option<PathBuf>,
    /// What is known of the GPUs, where somebody looks at them.
    pub gpus: Option<Seen>,
    /// What the OOM killer took from the unit.
    pub kills: Rc<Kills>,
    pub boot_id: String,
    /// Values that must not be seen in what a run writes.
    pub secrets: Vec<String>,
    pub engine_log: EngineLog,
    pub probe: Probe,
    pub sender: Sender,
    pub table: Arc<ArcSwap<RouteTable>>,
    /// What the table was last made from.
    pub published: Option<(Vec<Route>, Option<Retry>, bool)>,
    /// Written by `SaveIntent`, used by the `Start` that follows it; and whether it could be written.
    pub intent: Option<(RunId, Intent, bool)>,
    /// When each tier's refusal of our own request was last said.
    pub misconfigured: BTreeMap<TierId, Moment>,
    pub finished: bool,
}

impl World {
    /// Carries an action out, or starts what will.
    pub fn perform(&mut self, action: Action) {
        match action {
            Action::SaveIntent { run } => self.save_intent(run),
            Action::Start { run } => self.start(run),
            Action::Cut { run } => {
                if let Some(seat) = self.seat_of(run) {
                    seat.live.cut();
                }
            }
            Action::Terminate { run, grace } => {
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                self.order(run, ToShim::Term { grace_ms });
            }
            Action::Kill { run } => self.order(run, ToShim::Kill),
            Action::KillWorkers { run } => {
                let Some(seat) = self.seat_of(run) else { return };
                let names =
                    kinds::probe::worker_names(seat.tier.kind).iter().map(|n| (*n).to_owned()).collect();
                self.order(run, ToShim::KillWorkers { names });
            }
            Action::Check { ticket, tier, timeout } => {
                self.check(ticket, tier, timeout);
                self.look_at_device(tier);
            }
            Action::Count { ticket, tier, timeout } => self.ask(ticket, tier, move |probe, at| async move {
                let Some(at) = at else { return Outcome::Counted(None) };
                probe.count(&at, timeout).await.map_or_else(Outcome::NotAsked, Outcome::Counted)
            }),
            Action::Try { ticket, tier, timeout } => {
                let live = self.seats.get(usize::from(tier.0)).map(|seat| Arc::clone(&seat.live));
                self.ask(ticket, tier, move |probe, at| async move {
                    let Some((at, live)) = at.zip(live) else { return Outcome::Tried(Tried::TimedOut) };
                    let sent = clock::now();
                    let tried = probe.attempt(&at, timeout).await;
                    if tried == Ok(Tried::Passed) {
                        live.trial_passed(sent);
                    }
                    tried.map_or_else(Outcome::NotAsked, Outcome::Tried)
                });
            }
            Action::Prepare { ticket, run } => self.prepare(ticket, run),
            // The loop logs these itself, because it owns their numbering.
            Action::Tell(_) => {}
            Action::Finish => {
                // Remote tiers have no run that would have been cut.
                self.seats.iter().for_each(|seat| seat.live.cut());
                self.finished = true;
            }
        }
    }

    /// The names by which events speak of tiers.
    pub fn names(&self) -> Names<'_> {
        Names { tiers: &self.names, engines: &self.engines }
    }

    /// The figures of every tier that has a data plane just now.
    pub fn samples(&self) -> Vec<(TierId, Sample)> {
        let id = |rank: usize| TierId(u16::try_from(rank).unwrap_or(u16::MAX));
        self.seats.iter().enumerate().map(|(rank, seat)| (id(rank), seat.live.sample())).collect()
    }

    pub fn tier_named(&self, name: &str) -> Option<TierId> {
        let rank = self.names.iter().position(|n| n == name)?;
        Some(TierId(u16::try_from(rank).unwrap_or(u16::MAX)))
    }

    /// Is this what stands behind the tier now? News of the run before must not be held against the next one.
    pub fn is_current(&self, tier: TierId, run: Option<RunId>) -> bool {
        let seat = self.seats.get(usize::from(tier.0));
        seat.is_some_and(|seat| seat.run.as_ref().map(|live| live.run) == run)
    }

    /// An upstream refuses what we were configured to ask for. Said once a minute: every request finds it again.
    pub fn misconfigured(&mut self, tier: TierId, evidence: &str) {
        let now = clock::now();
        let told = self.misconfigured.get(&tier);
        if told.is_none_or(|at| now.since(*at) >= SAY_AGAIN) {
            self.misconfigured.insert(tier, now);
            let tier = self.names.get(usize::from(tier.0)).map_or("?", String::as_str);
            tracing::error!(
                tier,
                evidence,
                "the upstream refuses what it is asked for: check model, url and api_key"
            );
        }
    }

    /// The data plane is given it with the next table, the shims of later runs black it out.
    pub fn take_key(&mut self, tier: TierId, key: Secret) {
        let Some(seat) = self.seats.get_mut(usize::from(tier.0)) else { return };
        tracing::info!(tier = seat.tier.name, "the key of the tier is there");
        seat.take_key(key.clone());
        self.take_secret(&key);
        self.published = None;
    }

    /// The shims of later runs black it out, whoever's it is.
    pub fn take_secret(&mut self, secret: &Secret) {
        if !self.secrets.iter().any(|known| known == secret.expose()) {
            self.secrets.push(secret.expose().to_owned());
        }
    }

    /// What a run's keeper has to say to the agent itself.
    pub fn hear(&mut self, run: RunId, news: RunNews) {
        // Whatever stands in the seat by now: the next run may have begun when the last word of this one comes.
        if let RunNews::Gone { port } = &news {
            self.ports.release(*port, clock::now());
        }
        let Some(seat) = self.seat_of(run) else { return };
        let traffic = Arc::clone(&seat.live);
        let Some(live) = seat.run_mut(run) else { return };
        match news {
            RunNews::Spawned { shim_pid, pid } => {
                live.shim_pid = Some(shim_pid);
                live.pid = Some(pid);
            }
            RunNews::Progress(told) => told.into_iter().for_each(|said| live.climb.hear(clock::now(), said)),
            // What it died of may take seconds to find out. That nobody answers any more is known now.
            RunNews::Exited => {
                live.pid = None;
                traffic.set_standing(Standing::Closed);
            }
            RunNews::Gone { .. } => live.end(),
        }
    }

    pub(super) fn seat_of(&mut self, run: RunId) -> Option<&mut Seat> {
        let tier = *self.engines.get(usize::from(run.engine.0))?;
        self.seats.get_mut(usize::from(tier.0))
    }

    fn order(&mut self, run: RunId, order: ToShim) {
        let Some(live) = self.seat_of(run).and_then(|seat| seat.run_mut(run)) else { return };
        if live.orders.try_send(order).is_err() {
            // Full or closed: the run is over, or its shim is dead and its keeper is clearing up.
            tracing::debug!(run = run.number, "an order found no keeper");
        }
    }

    fn check(&mut self, ticket: Ticket, tier: TierId, timeout: Duration) {
        let seat = self.seats.get(usize::from(tier.0));
        let live = seat.map(|seat| Arc::clone(&seat.live));
        let late_key = seat.and_then(|seat| seat.late_key.clone());
        let sender = self.sender.clone();
        self.ask(ticket, tier, move |probe, at| async move {
            let Some(mut at) = at else { return Outcome::Checked(Checked::Failed(CheckFailure::Refused)) };
            if let Some(late) = late_key {
                match late.look(timeout).await {
                    Ok(key) => {
                        at.api_key = Some(key.expose().to_owned());
                        sender.key(tier, key).await;
                    }
                    Err(why) => return Outcome::Checked(Checked::Failed(CheckFailure::NoKey(why))),
                }
            }
            let (checked, leads) = match probe.check(&at, timeout).await {
                Ok(found) => found,
                Err(why) => return Outcome::NotAsked(why),
            };
            if let Some((live, leads)) = live.zip(leads) {
                live.set_leads(leads);
            }
            Outcome::Checked(checked)
        });
    }

    /// Starts a question whose answer comes back with its ticket, always: a tier that has no address answers too.
    fn ask<F, Fut>(&mut self, ticket: Ticket, tier: TierId, question: F)
    where
        F: FnOnce(Probe, Option<Target>) -> Fut,
        Fut: Future<Output = Outcome> + 'static,
    {
        let target = self.seats.get(usize::from(tier.0)).and_then(Seat::target);
        let answer = question(self.probe.clone(), target);
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let outcome = answer.await;
            sender.event(Event::Done(ticket, outcome)).await;
        });
    }

    /// Like `ask`, but the question ends with its run: loading a model may take as long as the start itself.
    fn prepare(&mut self, ticket: Ticket, run: RunId) {
        let (probe, sender) = (self.probe.clone(), self.sender.clone());
        let Some(seat) = self.seat_of(run) else { return };
        let Some(target) = seat.target() else { return };
        let traffic = Arc::clone(&seat.live);
        let Some(live) = seat.run_mut(run) else { return };
        let was_ready = Rc::clone(&live.was_ready);
        let task = tokio::task::spawn_local(async move {
            let fetching = async |percent| {
                let told = kinds::fetching(target.kind, percent).into_iter().collect();
                sender.fact(News::Run(run, RunNews::Progress(told))).await;
                sender.event(Event::Engine(run, EngineEvent::Activity)).await;
            };
            let prepared = probe.prepare(&target, fetching).await;
            let is_ready = prepared == Prepared::Ready;
            was_ready.set(was_ready.get() || is_ready);
            sender.event(Event::Done(ticket, Outcome::Prepared(prepared))).await;
            // Nobody waits for this one: it is for the list of models only.
            if is_ready && let Some(tokens) = probe.context(&target).await {
                traffic.set_context(tokens);
            }
        });
        live.probes.retain(|probe| !probe.is_finished());
        live.probes.push(task.abort_handle());
    }

    /// Looks at the ready run of this tier, beside its check.
    fn look_at_device(&self, tier: TierId) {
        let Some(seat) = self.seats.get(usize::from(tier.0)) else { return };
        let ready = seat.run.as_ref().filter(|live| seat.may_use_gpu && live.was_ready.get());
        let Some((live, at)) = ready.zip(seat.target()) else { return };
        let (run, looks) = (live.run, Rc::clone(&live.looks));
        let dir = previous::run_path(&self.run_dir, &seat.tier.name, run.number);
        let (probe, sender) = (self.probe.clone(), self.sender.clone());
        tokio::task::spawn_local(async move {
            if let Some(event) = looks.look(run, dir, &probe, &at).await {
                sender.event(event).await;
            }
        });
    }

    /// Makes policy's routes the data plane's. The table is renewed only when something in it has changed.
    pub fn publish(&mut self, routes: Vec<Route>, retry: Option<Retry>, failover: bool) {
        let new = Some((routes, retry, failover));
        if self.published == new {
            return;
        }
        let Some((routes, _, _)) = &new else { return };
        let mut tiers = Vec::with_capacity(routes.len());
        for route in routes {
            let Some(seat) = self.seats.get(usize::from(route.tier.0)) else { continue };
            // A route of a run that this agent has not started yet has no address either, and one whose process has exited
            // answers nothing, though policy hears that only with its cause.
            let live = seat.run.as_ref().filter(|live| Some(live.run) == route.run && live.pid.is_some());
            let current = route.run.is_none() || live.is_some();
            let standing = if current { route.standing } else { Standing::Closed };
            // A tier that is closed because its engine is to be stopped lets what is in flight finish; `Cut` ends it.
            if standing != Standing::Closed {
                seat.live.set_standing(standing);
            }
            tiers.push(seat.route(route, standing));
        }
        self.table.store(Arc::new(RouteTable { tiers, retry, failover }));
        self.published = new;
    }

    /// SIGHUP: finds out whether the file as it lies there would be taken. Reading it, and the secrets that it names, may
    /// hang with their file system, so a thread of its own does.
    pub fn check_file(&self) {
        let (config, environment, sender) =
            (Arc::clone(&self.config), self.environment.clone(), self.sender.clone());
        tokio::task::spawn_local(async move {
            let read = move || {
                let verdict = judged(config::read(&config.path, &environment), &config);
                // A file that could not be opened for want of a descriptor may be as right as ever.
                let is_wrong = matches!(verdict, FileVerdict::Wrong(_));
                descriptors::used_up().filter(|_| is_wrong).map_or(Ok(verdict), Err)
            };
            match lookout::on("the configuration file").look(read).await {
                Some(Ok(verdict)) => sender.fact(News::FileChecked(verdict)).await,
                Some(Err(shortage)) => {
                    let why = shortage.words(descriptors::limit());
                    tracing::warn!(
                        why,
                        "the configuration could not be checked; send the signal again later"
                    );
                }
                None => tracing::warn!("the configuration file is still being read, since an earlier signal"),
            }
        });
    }

    /// Says what came of checking the file, and applies nothing. Gives its problems, for status.
    pub fn tell_file(&self, verdict: FileVerdict) -> Option<String> {
        let file = self.config.path.display();
        match verdict {
            FileVerdict::Unchanged => {
                tracing::info!(%file, "the configuration has not changed");
                None
            }
            FileVerdict::Good => {
                tracing::info!(%file, "the configuration is good; restart to apply");
                None
            }
            FileVerdict::Wrong(problems) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                tracing::error!(%file, "the configuration is wrong; nothing was changed");
                Some(problems.join("\n"))
            }
        }
    }
}

fn judged(read: Result<Config, Refusal>, running: &Config) -> FileVerdict {
    match read {
        Ok(new) if running.says_the_same(&new) => FileVerdict::Unchanged,
        Ok(new) if !new.pending.is_empty() => {
            FileVerdict::Wrong(new.pending.iter().map(ToString::to_string).collect())
        }
        Ok(_) => FileVerdict::Good,
        Err(Refusal::Unreadable(why)) => FileVerdict::Wrong(vec![why]),
        Err(Refusal::Wrong(problems)) => {
            FileVerdict::Wrong(problems.iter().map(ToString::to_string).collect())
        }
    }
}
