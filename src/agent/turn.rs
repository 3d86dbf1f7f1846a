//! The one loop: wait → take all that is ready → step → perform → publish → beat.
//!
//! It owns every decision's state and awaits nothing but its next event: what takes long is a task that comes back as
//! news. It runs on the main thread, because shims are spawned from it.
use super::counters::Counters;
use super::faults::Faults;
use super::gpus::Told;
use super::inbox::News;
use super::mail;
use super::notice;
use super::picture::{Picture, Told as ToldOperator};
use super::recorder::{Around, Recorder};
use super::settings;
use super::world::World;
use crate::alert::{Felt, Job, Record};
use crate::clock;
use crate::control::feed::{Event, Feed};
use crate::control::{Order, Refused, wire};
use crate::heart::Heart;
use crate::policy::{
    Action, Command, EngineState, Event as Fact, Host, HostState, Moment, Notice, TierEvent, TierId,
};
use crate::proxy::{Code, Proxy, Report, Tally};
use crate::redact::Redactor;
use crate::systemd::{Notifier, StopTime};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The loop turns at least this often, so that its heart shows that it can.
const TURN_MAX: Duration = Duration::from_secs(2);
/// News taken in one turn; the rest waits for the next, so that the heart beats in a flood as well.
const NEWS_MAX: usize = 64;

/// What reaches the loop, each kind by a door of its own.
pub struct Doors {
    pub facts: mpsc::Receiver<News>,
    pub orders: mpsc::Receiver<Order>,
    pub reports: mpsc::Receiver<Report>,
}

/// All that the loop owns.
pub struct Agent {
    pub host: Host,
    pub world: World,
    pub doors: Doors,
    pub heart: Arc<Heart>,
    pub faults: Arc<Faults>,
    pub picture: Arc<Picture>,
    pub proxy: Arc<Proxy>,
    pub notifier: Notifier,
    pub events: Arc<Feed>,
    pub gpus_told: Told,
    pub redactor: Arc<Redactor>,
    pub recorder: Recorder,
    pub counters: Arc<Counters>,
    /// `None`: nobody is mailed.
    pub mail: Option<mail::Standing>,
    /// The number of the last event that an operator caused.
    pub operator_seq: u64,
    /// When the data plane's figures were last read.
    pub sampled: Moment,
    /// The agent was told to end, and everybody who should know does.
    pub stopping: Option<StopTime>,
    /// It was told that nothing is kept.
    pub is_unkept: bool,
}

impl Agent {
    /// Turns until every engine has ended. `first` is what policy wants done at the start.
    pub async fn run(mut self, first: Vec<Action>) -> Arc<Proxy> {
        self.perform(first);
        self.publish();
        while !self.world.finished {
            let news = self.wait().await;
            self.faults.maybe_stick();
            for item in news {
                self.take(item);
            }
            self.sample();
            if self.host.next_deadline().is_some_and(|at| at <= clock::now()) {
                self.step(Fact::Deadline);
            }
            self.publish();
            self.tell_of_gpus();
            self.tell_of_state_dir();
            if let Some(time) = &mut self.stopping {
                time.ask(clock::now(), &self.notifier);
            }
            self.heart.beat();
        }
        self.proxy
    }

    /// Everything that is ready, or nothing when it is time for something else.
    async fn wait(&mut self) -> Vec<News> {
        let sleep = self.sleep();
        let doors = &mut self.doors;
        let first = tokio::select! {
            biased;
            Some(news) = doors.facts.recv() => news,
            Some(asked) = doors.orders.recv() => News::Order(asked),
            Some(report) = doors.reports.recv() => News::Report(report),
            () = tokio::time::sleep(sleep) => return Vec::new(),
        };
        let mut ready = vec![first];
        while ready.len() < NEWS_MAX
            && let Ok(news) = doors.facts.try_recv()
        {
            ready.push(news);
        }
        while ready.len() < NEWS_MAX
            && let Ok(report) = doors.reports.try_recv()
        {
            ready.push(News::Report(report));
        }
        ready
    }

    /// Until the next deadline, sample or compulsory turn.
    fn sleep(&self) -> Duration {
        let now = clock::now();
        let deadline = self.host.next_deadline().map_or(TURN_MAX, |at| at.since(now));
        let sample = self.host.sample_interval().map_or(TURN_MAX, |every| (self.sampled + every).since(now));
        let letters = self.recorder.next_deadline().map_or(TURN_MAX, |at| at.since(now));
        deadline.min(sample).min(letters).min(TURN_MAX)
    }

    fn take(&mut self, news: News) {
        match news {
            News::Event(event) => {
                if matches!(event, Fact::Shutdown(_)) {
                    self.stop();
                }
                // Whether a time-out counts is for figures to say that are no older.
                if matches!(event, Fact::Done(..)) && self.host.sample_interval().is_some() {
                    self.read_figures();
                }
                self.step(event);
            }
            News::Run(run, news) => self.world.hear(run, news),
            News::Order(asked) => self.order(asked),
            News::Report(Report::Refused { tier, run, at }) => {
                if self.world.is_current(tier, run) {
                    self.step(Fact::Tier(tier, TierEvent::Refused { at }));
                }
            }
            News::Report(Report::Misconfigured { tier, evidence, .. }) => {
                self.world.misconfigured(tier, &evidence)
            }
            News::Mail(outcome) => {
                self.mail.iter_mut().for_each(|mail| mail.note(&outcome));
                self.announce(mail::event(&outcome));
            }
            News::Key(tier, key) => self.world.take_key(tier, key),
            News::Secret(secret) => self.world.take_secret(&secret),
            News::CheckFile => self.world.check_file(),
            News::FileChecked(verdict) => {
                let text = verdict.sentence();
                self.announce(Event { kind: "config".to_owned(), text, ..Event::default() });
                self.picture.config_problem(self.world.tell_file(verdict));
            }
        }
    }

    /// Tells those outside that the agent is ending: systemd, and clients, who are to connect elsewhere.
    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(StopTime::begin(clock::now(), settings::stop_limit(&self.world.config)));
            self.notifier.stopping("draining");
            self.proxy.stop_accepting();
        }
    }

    fn step(&mut self, event: Fact) {
        let told = tracing::enabled!(tracing::Level::DEBUG).then(|| format!("{event:?}"));
        let actions = self.host.step(clock::now(), event);
        if let Some(event) = told {
            tracing::debug!(event, ?actions, "step");
        }
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Action::Tell(notice) = action {
                self.tell(&notice);
            } else {
                self.world.perform(action);
            }
        }
    }

    /// A state change: event, log line, and what incidents make of it.
    fn tell(&mut self, told: &Notice) {
        let event = self.announce(notice::event(told, self.world.names()));
        self.look_for_poison(told);
        if matches!(told, Notice::Operator { .. }) {
            self.operator_seq = event.seq;
        }
        Arc::make_mut(&mut self.counters).note(told, &self.world.engines);
        let felt = felt(&self.world, &self.proxy);
        let around = Around { world: &self.world, felt: &felt };
        self.recorder.hear(clock::now(), told, &event, around);
    }

    /// An engine died of what may have been a request: those that were there are noted.
    fn look_for_poison(&mut self, told: &Notice) {
        let Notice::Exit { run, ending } = told else { return };
        let Some(tier) = self.world.engines.get(usize::from(run.engine.0)).copied() else { return };
        let seat = self.world.seat_of(*run).filter(|_| ending.cause.may_be_of_a_request());
        let Some(live) = seat.map(|seat| Arc::clone(&seat.live)) else { return };
        let refused = self.proxy.died(tier, &live);
        if refused > 0 {
            let requests = if refused == 1 { "1 request was" } else { &format!("{refused} requests were") };
            let text = format!("{requests} at two engines when they died; refused for an hour with 422");
            let tier = self.world.names.get(usize::from(tier.0)).cloned();
            self.announce(Event { kind: "poison".to_owned(), tier, text, ..Event::default() });
        }
    }

    /// Numbers an event, and shows it to whoever follows; the clerk writes it down.
    pub fn announce(&mut self, event: Event) -> Event {
        let (seq, at) = (self.events.last() + 1, clock::rfc3339(clock::wall_ms()));
        let mut event = Event { seq, at, ..event };
        self.redactor.clean(&mut event.text);
        notice::log(&event);
        let line = self.events.publish(&event);
        self.recorder.clerk().give(Job::Event(line.to_string()));
        event
    }

    fn tell_of_gpus(&mut self) {
        let Some(picture) = self.picture.gpus() else { return };
        for text in self.gpus_told.news(&picture) {
            self.announce(Event { kind: "gpu".to_owned(), text, ..Event::default() });
        }
    }

    fn tell_of_state_dir(&mut self) {
        let trouble = self.recorder.clerk().trouble();
        if trouble.is_some() == self.is_unkept {
            return;
        }
        self.is_unkept = trouble.is_some();
        if trouble.is_none() {
            self.mail.iter_mut().for_each(mail::Standing::note_freed);
        }
        let text = match trouble {
            Some(why) => format!("incidents, events and mail are not kept, until they can be: {why}"),
            None => "incidents, events and mail are kept again".to_owned(),
        };
        self.announce(Event { kind: "state".to_owned(), text, ..Event::default() });
    }

    /// Reads the data plane's figures when policy wants them.
    fn sample(&mut self) {
        let now = clock::now();
        let due = self.host.sample_interval().is_some_and(|every| self.sampled + every <= now);
        if due {
            self.read_figures();
        }
    }

    fn read_figures(&mut self) {
        self.sampled = clock::now();
        for (tier, sample) in self.world.samples() {
            self.step(Fact::Tier(tier, TierEvent::Sampled(sample)));
        }
    }

    /// Shows everybody what is so now: the data plane its routes, and people and programs the picture. Also before the first
    /// turn, so that nobody who is answered meets a host without tiers.
    pub fn publish(&mut self) {
        let status = self.host.status();
        for starts in self.world.look_at_starts(clock::now()) {
            self.recorder.clerk().give(Job::Starts(Box::new(starts)));
        }
        self.world.publish(self.host.routes(), status.retry, self.faults.failover());
        let felt = felt(&self.world, &self.proxy);
        let around = Around { world: &self.world, felt: &felt };
        self.recorder.settle(clock::now(), &status, around);
        let told = ToldOperator {
            incidents: self.recorder.open().map(incident).collect(),
            mail: self.mail.as_ref().map(mail::Standing::on_the_wire),
            unwritten: self.recorder.clerk().lost(),
            state_problem: self.recorder.clerk().trouble(),
        };
        self.picture.show(status, &self.world, &self.counters, told);
    }

    /// An operator's command: refused here when it cannot be, else policy's business.
    fn order(&mut self, asked: Order) {
        let answer = match self.world.tier_named(&asked.tier) {
            None => Err(Refused::NotFound(self.world.names.clone())),
            Some(tier) => match self.conflict(tier, asked.command) {
                Some(why) => Err(Refused::Conflict(why)),
                None => {
                    self.step(Fact::Operator(tier, asked.command));
                    Ok(self.operator_seq)
                }
            },
        };
        let _ = asked.answer.send(answer);
    }

    /// Why a command cannot be carried out now; `None` when it can.
    fn conflict(&self, tier: TierId, command: Command) -> Option<String> {
        let status = self.host.status();
        let name = &self.world.names[usize::from(tier.0)];
        let Some(engine) = &status.tiers[usize::from(tier.0)].engine else {
            return Some(format!(
                "{name} is a remote tier: mainstay does not own its process; do it on that host"
            ));
        };
        if status.state != HostState::Serving {
            return Some("mainstay is stopping; its next start begins every engine anew".to_owned());
        }
        let running = match engine.state {
            EngineState::Starting | EngineState::Ready => true,
            EngineState::Stopped | EngineState::Stopping => false,
            EngineState::Backoff | EngineState::Held | EngineState::Wedged => return None,
        };
        match command {
            Command::Start if running => Some(format!(
                "{name} is already {}; to end it first: mainstay restart {name}",
                notice::state(engine.state)
            )),
            Command::Stop if engine.state == EngineState::Stopped => {
                Some(format!("{name} is already stopped; to start it: mainstay start {name}"))
            }
            Command::Start | Command::Stop | Command::Restart => None,
        }
    }
}

fn incident(record: &Record) -> wire::OpenIncident {
    let Record { id, tier, kind, opened, cause, .. } = record.clone();
    wire::OpenIncident { id, tier, kind, opened, cause }
}

/// What clients have felt of this agent so far, by tier: what became of those that met it; and for each tier the same,
/// how many were answered by a weaker one, and how many by none.
fn felt(world: &World, proxy: &Proxy) -> Vec<Felt> {
    let tallies: Vec<Tally> = world.seats.iter().map(|seat| seat.totals.tally()).collect();
    let refusals = proxy.refusals();
    let refused = [Code::AllTiersDown, Code::OnlyDegradedTiers, Code::UpstreamFailed];
    let refused = refused.into_iter().map(|code| refusals.of(code)).sum();
    let weakened = tallies.iter().map(|tally| tally.weakened).sum();
    tallies.iter().map(|tally| Felt { moved: tally.failed_over, cut: tally.cut, weakened, refused }).collect()
}
