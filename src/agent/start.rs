//! Brings the agent up: directories, lock, listeners, data plane, sockets, and then the loop.
//!
//! The order matters. The lock comes before anything that another agent could be using; the first route table and picture
//! before anybody is answered; the sockets and listeners before READY=1; the engines last, because nothing that they need
//! may still fail.
use super::counters::Counters;
use super::echo::EngineLog;
use super::failure::{StartError, failed};
use super::faults::Faults;
use super::inbox::{Sender, inbox};
use super::lock::{Lock, LockError};
use super::oom::Kills;
use super::past::Past;
use super::picture::{Identity, Picture};
use super::ports::Ports;
use super::probe::Probe;
use super::recorder::Recorder;
use super::seat::Seat;
use super::signals::Signals;
use super::sockets::Sockets;
use super::state_dir::{StateDir, make_dir};
use super::turn::{Agent, Doors};
use super::world::World;
use super::{
    devices, gpus, launch, log, mail, previous, reaper, recorder, scrape, secrets, settings, signals, sockets,
};
use crate::alert::{Clerk, Courier, Ground, Outbox};
use crate::clock;
use crate::config::{self, Config, Environment, LogFormat, LogLevel};
use crate::control::feed::Event;
use crate::control::metrics;
use crate::heart::Heart;
use crate::policy::incident::LetterSettings;
use crate::policy::{Host, InstanceId, Saved, StartMode};
use crate::proxy::{self, Metrics, Proxy, RouteTable};
use crate::redact::Redactor;
use crate::shim::Lifeline;
use crate::systemd::{Notifier, Watchdog, watchdog};
use crate::threads;
use arc_swap::ArcSwap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;

/// This process, among mainstays. The standard library's hasher has keys of the system's chance.
static INSTANCE: LazyLock<InstanceId> =
    LazyLock::new(|| InstanceId::new(RandomState::new().hash_one((std::process::id(), clock::now()))));

/// Connections that the kernel may queue before they are accepted.
const BACKLOG: i32 = 4096;
/// Reports of the data plane and orders of operators that may wait for the loop.
const WAITING_MAX: usize = 64;
/// In the runtime directory: a link to the state directory.
pub const STATE_LINK: &str = "state";
/// How long answers that are on their way out may still take once every engine has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to stop and every engine has ended. False: something withstands its end, or nobody can tell.
pub fn run(config: Config, environment: Environment) -> Result<bool, StartError> {
    signals::hold_back().map_err(failed("cannot hold signals back"))?;
    let secrets = secrets::known(&config);
    let redactor = Arc::new(Redactor::new(&secrets));
    log::start(level(config.agent.log), format(config.agent.log_format), Arc::clone(&redactor));
    for problem in &config.pending {
        tracing::warn!("{problem}; what needs it waits for it, everything else goes on");
    }
    let outcome = prepare(config, environment, Hidden { secrets, redactor }).and_then(Prepared::run);
    log::settle();
    outcome
}

/// The secrets, and what blacks them out.
struct Hidden {
    secrets: Vec<String>,
    redactor: Arc<Redactor>,
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

fn format(format: LogFormat) -> log::Format {
    match format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    }
}

/// Everything that can be had before an engine is started.
struct Prepared {
    config: Arc<Config>,
    environment: Environment,
    notifier: Notifier,
    listen: Vec<SocketAddr>,
    listeners: Vec<TcpListener>,
    lifeline: Lifeline,
    hidden: Hidden,
    /// Of the runtime directory.
    lock: Lock,
    state: Arc<StateDir>,
    /// Why the state directory is not this agent's from the beginning.
    unkept: Option<String>,
}

fn prepare(config: Config, environment: Environment, hidden: Hidden) -> Result<Prepared, StartError> {
    let (run_dir, state_dir) = (&config.agent.run_dir, &config.agent.state_dir);
    make_dir(run_dir).map_err(failed(format_args!("cannot make {}", run_dir.display())))?;
    let lock = lock(run_dir, "agent.run_dir")?;
    // Incidents, events and mail of two agents must not mix either.
    let state = StateDir::new(state_dir, state_dir == run_dir);
    let unkept = state.begin()?;
    point_to(state_dir, run_dir);
    let notifier = Notifier::from_env(|name| std::env::var_os(name));
    reaper::become_subreaper().map_err(failed("cannot become a subreaper"))?;
    abort_on_panic();
    raise_descriptor_limit();
    let listeners: Vec<TcpListener> = config.server.listen.iter().map(listen).collect::<Result<_, _>>()?;
    let listen = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let lifeline = Lifeline::new().map_err(failed("cannot make the lifeline"))?;
    let config = Arc::new(config);
    Ok(Prepared { config, environment, notifier, listen, listeners, lifeline, hidden, lock, state, unkept })
}

fn lock(dir: &Path, key: &'static str) -> Result<Lock, StartError> {
    Lock::take(dir).map_err(|why| match why {
        LockError::Held { holder } => StartError::Held { dir: dir.to_owned(), key, holder },
        LockError::Io(why) => failed(format_args!("cannot lock {}", dir.display()))(why),
    })
}

/// Where clients find the state directory when no agent is there to be asked.
fn point_to(state_dir: &Path, run_dir: &Path) {
    let link = run_dir.join(STATE_LINK);
    let _ = std::fs::remove_file(&link);
    if let Err(why) = std::os::unix::fs::symlink(state_dir, &link) {
        tracing::warn!(%why, "{} cannot be made; `mainstay incidents` will need --state-dir", link.display());
    }
}

/// A panic in a connection's task ends that connection only; anywhere else a part of the agent would be dead while the
/// rest seems to live, which is worse than a restart.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if !proxy::in_connection() {
            std::process::abort();
        }
    }));
}

/// Each client costs two descriptors; the soft limit that shells and containers give (1024) is soon used up. Engines
/// inherit the higher one, which the unit gives them as well.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%why, "the limit of open files stays as it is");
    }
}

fn listen(at: &SocketAddr) -> Result<TcpListener, StartError> {
    let open = || -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(*at), socket2::Type::STREAM, None)?;
        // A listener of the agent before may still have connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if let Err(why) = socket.bind(&(*at).into()) {
            if why.kind() != io::ErrorKind::AddrNotAvailable {
                return Err(why);
            }
            // The network may come after us. The kernel accepts there as soon as the address exists.
            if at.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) }?;
            socket.bind(&(*at).into())?;
            tracing::warn!(%at, "no interface of this host has this address yet; clients are served there when one has it. \
                                 Is it wrong? Change server.listen");
        }
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    open().map_err(|why| {
        let what = format!("cannot listen on {at}: {why}");
        match why.kind() {
            io::ErrorKind::AddrInUse => StartError::Failed(format!(
                "{what}; stop what listens there (`ss -ltnp`), or change server.listen"
            )),
            io::ErrorKind::PermissionDenied => StartError::NotPermitted(format!(
                "{what}; choose a port from 1024 on in server.listen, or give the unit CAP_NET_BIND_SERVICE"
            )),
            _ => StartError::Failed(format!("{what}; change server.listen")),
        }
    })
}

impl Prepared {
    fn run(self) -> Result<bool, StartError> {
        // One thread, this one: shims are spawned from it, and it lives as long as the agent.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // For files, and for names, whose look-up may hang for a while; what may hang for ever is a `lookout`'s.
            .max_blocking_threads(32)
            .thread_keep_alive(threads::FOR_EVER)
            .build()
            .map_err(failed("cannot start the runtime"))?;
        threads::keep_one(runtime.handle());
        let outcome = tokio::task::LocalSet::new().block_on(&runtime, self.serve());
        // Not waited for: a thread that looks at a process in the driver's hands may never come back.
        runtime.shutdown_background();
        outcome
    }

    async fn serve(self) -> Result<bool, StartError> {
        let signals = Signals::listen().map_err(failed("cannot listen to signals"))?;
        let (source, scrapes) = scrape::queue();
        let table = Arc::new(ArcSwap::from_pointee(RouteTable { failover: true, ..RouteTable::default() }));
        let (proxy, reports) = data_plane(&self.config, &table, &source, &self.hidden.redactor)?;
        let faults = Arc::new(Faults::default());
        let limit = watchdog::limit(std::process::id(), |name| std::env::var_os(name));
        let identity = identity(&self.config, &self.listen, limit);
        let listen = identity.listen.join(" ");
        // Its first turn comes when this function waits for the first time, so it delays nothing that follows.
        let gpus = gpus::watch(&self.config);
        let shown = gpus.as_ref().map(crate::gpu::Probe::picture);
        let redactor = Arc::clone(&self.hidden.redactor);
        let picture =
            Picture::new(identity, Arc::clone(&proxy), self.notifier.clone(), shown.clone(), redactor);
        let (operator, orders) = mpsc::channel(WAITING_MAX);
        let Past { events, records, starts } = Past::read(&self.config, self.unkept.is_none());
        let heart = Heart::new("policy loop");
        let served = sockets::served(&picture, &events, source, operator, &faults);
        let scrapes = scrapes.answer(Arc::clone(&picture), Arc::clone(&heart));
        let Hidden { secrets, redactor } = self.hidden;
        let (sender, facts) = inbox(Arc::clone(&redactor));
        tokio::task::spawn_local(signals.pass_on(sender.clone()));
        let (outbox, courier) = post_office(&self.config, &self.state, &redactor, sender.clone())?.unzip();
        let (mut world, host, first) =
            world(&self.config, self.environment, self.lifeline, &self.state, secrets, sender, table)?;
        world.remember_starts(starts);
        world.gpus = shown;
        let mail = outbox.clone().map(mail::Standing::new);
        let clerk = clerk(&self.config.agent.state_dir, &self.state, outbox, self.unkept)?;
        let recorder =
            Recorder::resume(letters(&self.config), &world, records, clerk.clone(), Arc::clone(&redactor));
        let doors = Doors { facts, orders, reports };
        let mut agent = Agent {
            host,
            world,
            doors,
            heart,
            faults,
            picture,
            proxy,
            notifier: self.notifier,
            events,
            gpus_told: gpus::Told::default(),
            redactor,
            recorder,
            counters: Arc::new(Counters::default()),
            mail,
            operator_seq: 0,
            sampled: clock::now(),
            stopping: None,
            is_unkept: false,
        };
        agent.publish();
        let sockets = Sockets::open(&self.config.agent.run_dir, served, scrapes)?;
        agent.proxy.accept(self.listeners).map_err(failed("cannot serve clients"))?;
        start_watchdog(limit, &agent.notifier, &agent.heart, &agent.proxy)?;
        end_unwanted_runs(&self.config).map_err(failed("cannot look at earlier runs"))?;
        tracing::info!(listen, config = %self.config.path.display(), "mainstay serves");
        agent.notifier.ready("starting the engines");
        agent.announce(started(&listen, self.lock.died.as_deref()));
        let proxy = agent.run(first).await;
        let _ = tokio::time::timeout(LAST_WORDS, proxy.idle()).await;
        let left_behind = stop_probe(gpus).await;
        reaper::alone(LAST_WORDS, left_behind).await;
        clerk.settle();
        courier.into_iter().for_each(Courier::stop);
        sockets.close();
        Ok(previous::last_look(&self.config.agent.run_dir).await)
    }
}

/// What earlier agents left of tiers that are not started now.
fn end_unwanted_runs(config: &Config) -> io::Result<()> {
    let local = |name: &str| config.tiers.iter().find(|tier| tier.name == name)?.local();
    let is_started = |name: &str| local(name).is_some_and(|local| local.start == StartMode::Always);
    previous::end_unwanted(&config.agent.run_dir, |name| local(name).is_some(), is_started)
}

fn data_plane(
    config: &Config,
    table: &Arc<ArcSwap<RouteTable>>,
    source: &scrape::Source,
    redactor: &Arc<Redactor>,
) -> Result<(Arc<Proxy>, mpsc::Receiver<proxy::Report>), StartError> {
    let (report, reports) = mpsc::channel(WAITING_MAX);
    let metrics = Metrics { content_type: metrics::CONTENT_TYPE, source: Arc::clone(source) };
    let limits = settings::limits(config, &recorder::host_name());
    let (table, redactor) = (Arc::clone(table), Arc::clone(redactor));
    let proxy = proxy::start(*INSTANCE, limits, table, report, metrics, redactor);
    Ok((Arc::new(proxy.map_err(failed("cannot start the data plane"))?), reports))
}

fn identity(config: &Config, listen: &[SocketAddr], watchdog: Option<Duration>) -> Identity {
    Identity {
        started_ms: clock::wall_ms(),
        listen: listen.iter().map(ToString::to_string).collect(),
        config: config.path.display().to_string(),
        state_dir: config.agent.state_dir.display().to_string(),
        watchdog,
    }
}

/// `died` is the agent before, if it did not end by itself.
fn started(listen: &str, died: Option<&str>) -> Event {
    let version = env!("CARGO_PKG_VERSION");
    let before = died.map_or_else(String::new, |pid| {
        format!("; the agent before it (pid {pid}) was killed or crashed, and its engines ended with it")
    });
    let text = format!("mainstay {version} serves at {listen}{before}");
    Event { kind: "started".to_owned(), text, ..Event::default() }
}

/// Ends the GPU probe; its pid when it cannot be ended.
async fn stop_probe(gpus: Option<crate::gpu::Probe>) -> Option<u32> {
    let pid = gpus?.stop().await?;
    tracing::warn!(pid, "the GPU probe cannot be ended; it is left behind");
    Some(pid)
}

/// The thread that writes incidents, events and mail.
fn clerk(
    state_dir: &Path,
    state: &Arc<StateDir>,
    outbox: Option<Outbox>,
    unkept: Option<String>,
) -> Result<Clerk, StartError> {
    let complain = |why: &io::Error| {
        tracing::error!(%why, "the state directory cannot be written: look at its free space and its owner");
    };
    let started = Clerk::start(state_dir, ground(state), outbox, Box::new(complain), unkept);
    started.map(|(clerk, _)| clerk).map_err(failed("cannot start the clerk's thread"))
}

/// What must hold before anything is written there.
fn ground(state: &Arc<StateDir>) -> Ground {
    let state = Arc::clone(state);
    Arc::new(move || state.open())
}

fn letters(config: &Config) -> LetterSettings {
    config.mail.as_ref().map_or_else(LetterSettings::none, config::Mail::letters)
}

/// Outbox and courier, where mail is configured.
fn post_office(
    config: &Config,
    state: &Arc<StateDir>,
    redactor: &Arc<Redactor>,
    inbox: Sender,
) -> Result<Option<(Outbox, Courier)>, StartError> {
    let Some(settings) = &config.mail else { return Ok(None) };
    let host = recorder::host_name();
    let started = mail::start(settings, &config.agent.state_dir, ground(state), &host, redactor, inbox);
    started.map(Some).map_err(failed("cannot start the courier's thread"))
}

fn start_watchdog(
    limit: Option<Duration>,
    notifier: &Notifier,
    heart: &Arc<Heart>,
    proxy: &Arc<Proxy>,
) -> Result<(), StartError> {
    let Some(limit) = limit else { return Ok(()) };
    let driven = Arc::clone(proxy);
    Watchdog::new(limit, notifier.clone(), vec![Arc::clone(heart)])
        .driving(proxy.heart(), move || drop(driven.drive()))
        .start()
        .map_err(failed("cannot start the watchdog"))
}

/// The ports that tiers have for themselves: no other run is to be given them.
fn fixed_ports(config: &Config) -> impl Iterator<Item = u16> {
    config.tiers.iter().filter_map(|tier| tier.local()?.port)
}

/// The world, and policy over it, with what policy wants done first.
fn world(
    config: &Arc<Config>,
    environment: Environment,
    lifeline: Lifeline,
    state: &Arc<StateDir>,
    secrets: Vec<String>,
    sender: Sender,
    table: Arc<ArcSwap<RouteTable>>,
) -> Result<(World, Host, Vec<crate::policy::Action>), StartError> {
    let now = clock::now();
    let seed = now.as_nanos() ^ u64::from(std::process::id()).rotate_left(32);
    let gpus = devices::gpus(Path::new("/"));
    let (policy, engines) = settings::policy(config, seed, gpus);
    let run_dir = config.agent.run_dir.clone();
    let names: Vec<String> = config.tiers.iter().map(|tier| tier.name.clone()).collect();
    let last_run = |tier: &crate::policy::TierId| {
        let name = &names[usize::from(tier.0)];
        Ok(previous::numbers(&run_dir, name)?.last().copied().unwrap_or(0))
    };
    // A number that is given twice would hide the run that had it first.
    let last_runs: io::Result<_> = engines.iter().map(last_run).collect();
    let saved = Saved { last_runs: last_runs.map_err(failed("cannot look at earlier runs"))? };
    let (host, first) = Host::resume(policy, &saved, now);
    let probe = Probe::new(*INSTANCE).map_err(|why| {
        StartError::Failed(format!(
            "cannot make a client for probes: {why}; see `mainstay help troubleshooting`"
        ))
    })?;
    let world = World {
        seats: config.tiers.iter().cloned().map(|tier| Seat::new(Arc::new(tier), gpus)).collect(),
        names,
        engines,
        ports: Ports::new(config.server.engine_ports, fixed_ports(config), seed),
        lifeline: Rc::new(lifeline),
        cgroup: launch::delegated_cgroup(),
        gpus: None,
        kills: Rc::new(Faults::cgroup().map_or_else(Kills::of_own_cgroup, |dir| Kills::of(&dir))),
        boot_id: clock::boot_id().map_err(failed("cannot read the id of this boot"))?.to_owned(),
        secrets,
        engine_log: EngineLog::choose(config.agent.engine_log),
        home: launch::home(&config.agent),
        config: Arc::clone(config),
        environment,
        state: Arc::clone(state),
        run_dir,
        probe,
        sender,
        table,
        published: None,
        intent: None,
        misconfigured: std::collections::BTreeMap::new(),
        finished: false,
    };
    Ok((world, host, first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the networks that are for documentation: no interface of any host has it.
    #[test]
    fn an_address_that_is_not_there_yet_is_listened_on() {
        let at = SocketAddr::from(([203, 0, 113, 7], 0));
        let plain = TcpListener::bind(at).map_err(|why| why.kind());
        assert_eq!(plain.err(), Some(io::ErrorKind::AddrNotAvailable), "it is not there");
        let listener = listen(&at).expect("it may come");
        assert_eq!(listener.local_addr().expect("it is bound").ip(), at.ip());
    }
}
