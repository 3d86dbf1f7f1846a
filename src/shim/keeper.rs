//! The shim's one loop: wait, hear, do. It has no threads and waits in one place, for everything at once; what could
//! hang is done by a child (`sweep`). What happens next in an end is decided in `life`, and done in `ending`.
mod ending;

use super::cgroup::RunCgroup;
use super::clients::Clients;
use super::engine::{self, StartError};
use super::life::{Life, Stop, Swept};
use super::onset::Onset;
use super::protocol::{
    Asked, Exited, FromShim, Hello, LIFELINE_VAR, LOCK_VAR, LOG, ONSET, PROTO, Spec, ToShim,
};
use super::pump::Pump;
use super::ring::Writer;
use super::shm::Shm;
use super::sink::Sink;
use super::sweep::Sweep;
use super::{sys, tree};
use crate::clock;
use crate::policy::Moment;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// New files in /dev/shm are looked at so long after the start, then after twice that, up to the longest.
const CENSUS_FIRST: Duration = Duration::from_millis(250);
const CENSUS_MAX: Duration = Duration::from_secs(10);

/// A spec is some kilobytes; whatever is longer is not one.
const SPEC_MAX: u64 = 4 * 1024 * 1024;

/// Runs the shim of one run until the run has ended. The spec comes on standard input, the lifeline's read end and the
/// run's lock under the numbers that `MAINSTAY_LIFELINE` and `MAINSTAY_LOCK` name. `tier` is for people who read a list of
/// processes.
pub fn run(tier: &str) -> ExitCode {
    let from_agent = |name| std::env::var(name).ok().and_then(|fd| sys::inherited(fd.parse().ok()?));
    let Some((lifeline, lock)) = from_agent(LIFELINE_VAR).zip(from_agent(LOCK_VAR)) else {
        let _ = writeln!(
            io::stderr(),
            "mainstay shim {tier}: it is started by `mainstay run` only: there is no lifeline"
        );
        return ExitCode::FAILURE;
    };
    match Keeper::prepare(lifeline) {
        Ok(keeper) => {
            keeper.keep();
            // Whoever finds it free knows that nothing more is done here.
            drop(lock);
            ExitCode::SUCCESS
        }
        Err(StartError { errno, message }) => {
            // There is no socket to say it at. Standard error is the agent's, which reads this form there.
            let said = serde_json::to_string(&FromShim::StartFailed { errno, message });
            let _ = writeln!(io::stderr(), "{}", said.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

struct Keeper {
    spec: Spec,
    started_ms: i64,
    /// When this shim began, in clock ticks since boot; 0 when that cannot be read.
    shim_started: u64,
    life: Life,
    signals: SignalFd,
    lifeline: Option<OwnedFd>,
    clients: Clients,
    sink: Sink,
    pump: Option<Pump>,
    /// The engine's main process, or why there is none.
    engine: Result<u32, StartError>,
    /// The main process as it was reaped.
    reaped: Option<sys::Reaped>,
    exited: Option<Exited>,
    /// What was last said to be left, and when; empty: it has ended.
    ended: Option<(Vec<u32>, i64)>,
    cgroup: Option<RunCgroup>,
    shm: Shm,
    /// When to look at /dev/shm again, and how long after that.
    next_census: Option<(Moment, Duration)>,
    /// Inodes of sockets that listen on the run's port and were seen in its hands.
    listeners: Vec<u64>,
    sweep: Option<Sweep>,
    /// Children of ours that hung in their last look.
    hung: Vec<u32>,
    /// This host lacks what a look at the run takes, and that was said.
    is_blind: bool,
    leaving: bool,
}

/// What poll(2) said.
#[derive(Default)]
struct Ready {
    signals: bool,
    lifeline: bool,
    /// Numbers of the pump's pipes.
    pipes: Vec<usize>,
    sweep: bool,
    connecting: bool,
    clients: bool,
}

impl Keeper {
    /// Everything up to the engine's start. An error here means that no engine was started.
    fn prepare(lifeline: OwnedFd) -> Result<Self, StartError> {
        let doing = |what: &'static str| {
            move |e: io::Error| StartError {
                errno: e.raw_os_error().unwrap_or_default(),
                message: format!("the shim {what}: {e}"),
            }
        };
        // The name that ps shows would be "exe", after /proc/self/exe.
        let _ = rustix::thread::set_name(c"mainstay-shim");
        sys::seal_descriptors().map_err(doing("cannot seal descriptors"))?;
        let spec = read_spec().map_err(doing("cannot read the spec"))?;

        let signals = listen_to_signals().map_err(|e| doing("cannot listen to signals")(e.into()))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| doing("cannot become a subreaper")(e.into()))?;
        make_dir(&spec.run_dir)
            // One that is given is there: made here it could hang with its disk.
            .and_then(|()| if spec.tmp.is_none() { make_dir(&spec.tmp()) } else { Ok(()) })
            .map_err(doing("cannot make the run's directory"))?;
        let clients = Clients::listen(&spec.run_dir).map_err(doing("cannot listen on the run's socket"))?;
        Ok(Self::start(spec, lifeline, signals, clients))
    }

    /// Starts the engine, with whatever of its surroundings can be had.
    fn start(mut spec: Spec, lifeline: OwnedFd, signals: SignalFd, clients: Clients) -> Self {
        let ring = Writer::create(&spec.run_dir.join(LOG)).unwrap_or_else(|_| Writer::without_file());
        let mut sink = Sink::new(ring, Onset::create(&spec.run_dir.join(ONSET)), &mut spec);
        let cgroup = spec.cgroup.take().and_then(|path| match RunCgroup::create(path) {
            Ok(cgroup) => Some(cgroup),
            Err(e) => {
                sink.note(&format!("no cgroup for this run: {e}"));
                None
            }
        });
        let (shm, started_ms) = (Shm::before_the_run(), clock::wall_ms());
        let (engine, pump, life) = match engine::start(&spec, cgroup.as_ref()) {
            Ok(engine) => {
                let life = Life::new(Duration::from_millis(spec.reap_deadline_ms));
                (Ok(engine.pid), Some(Pump::new(engine.out, engine.err)), life)
            }
            Err(e) => {
                let message = sink.without_secrets(&e.message);
                (Err(StartError { message, ..e }), None, Life::failed(clock::now()))
            }
        };
        // Only the engine needed it, and it holds secrets.
        spec.env.clear();
        let mut keeper = Self {
            spec,
            started_ms,
            shim_started: tree::Process::find(std::process::id()).ok().flatten().map_or(0, |me| me.started),
            life,
            signals,
            lifeline: Some(lifeline),
            clients,
            sink,
            pump,
            engine,
            reaped: None,
            exited: None,
            ended: None,
            cgroup,
            shm,
            next_census: Some((clock::now() + CENSUS_FIRST, CENSUS_FIRST)),
            listeners: Vec::new(),
            sweep: None,
            hung: Vec::new(),
            is_blind: false,
            leaving: false,
        };
        if let Err(StartError { message, .. }) = &keeper.engine {
            keeper.next_census = None;
            keeper.sink.note(message);
            keeper.tidy_up();
            keeper.write_record();
        }
        keeper
    }

    fn keep(mut self) {
        while !self.leaving {
            let ready = self.wait();
            let now = clock::now();
            if ready.signals {
                self.hear_signals(now);
            }
            if let Some(pump) = &mut self.pump {
                ready.pipes.iter().for_each(|which| pump.turn(now, *which, &mut self.sink));
            }
            if ready.lifeline {
                self.hear_lifeline(now);
            }
            if ready.connecting {
                let state = self.state();
                self.clients.accept(now, &state);
            }
            if ready.clients {
                for asked in self.clients.turn() {
                    self.hear_client(now, asked);
                }
            }
            if ready.sweep || self.sweep.as_ref().is_some_and(|sweep| now >= sweep.deadline) {
                self.hear_sweep(now);
            }
            if let Some(activity) = self.pump.as_mut().and_then(|pump| pump.tick(now, &mut self.sink)) {
                self.clients.send(&activity);
            }
            self.sink.tick(now);
            self.clients.tick(now);
            if let Some((at, pause)) = self.next_census.filter(|(at, _)| now >= *at) {
                self.next_census = Some((at + pause, (pause * 2).min(CENSUS_MAX)));
                if self.shm.is_worth_a_look() {
                    self.take_census();
                }
            }
            if self.life.deadline().is_some_and(|deadline| now >= deadline) {
                let steps = self.life.tick(now);
                self.perform(steps);
            }
        }
    }

    fn wait(&self) -> Ready {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut add = |fd, flags| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            fds.len() - 1
        };
        let lifeline = self.lifeline.as_ref().map(|fd| add(fd.as_fd(), PollFlags::IN));
        let sweep = self.sweep.as_ref().map(|sweep| add(sweep.fd(), PollFlags::IN));
        let pipes: Vec<(usize, usize)> = self
            .pump
            .iter()
            .flat_map(Pump::open)
            .map(|(which, fd)| (add(fd, PollFlags::IN), which))
            .collect();
        let first_client = pipes.len() + 1 + usize::from(lifeline.is_some()) + usize::from(sweep.is_some());
        for (fd, flags) in self.clients.poll_list() {
            add(fd, flags);
        }

        // An error is EINTR or a lack of memory: with nothing ready the turn only looks at its deadlines.
        if rustix::event::poll(&mut fds, self.timeout().as_ref()).is_err() {
            return Ready::default();
        }
        let is_ready = |place: usize| !fds[place].revents().is_empty();
        Ready {
            signals: is_ready(0),
            lifeline: lifeline.is_some_and(is_ready),
            sweep: sweep.is_some_and(is_ready),
            pipes: pipes.into_iter().filter(|(place, _)| is_ready(*place)).map(|(_, which)| which).collect(),
            connecting: is_ready(first_client),
            clients: (first_client + 1..fds.len()).any(is_ready),
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let deadlines = [
            self.life.deadline(),
            self.pump.as_ref().and_then(Pump::deadline),
            self.sink.deadline(),
            self.sweep.as_ref().map(|sweep| sweep.deadline),
            self.next_census.map(|(at, _)| at),
            self.clients.deadline(),
        ];
        let wait = deadlines.into_iter().flatten().min()?.since(clock::now());
        Some(Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) })
    }

    /// What a client that connects now has missed.
    fn state(&self) -> Vec<FromShim> {
        let mut state = vec![FromShim::Hello(Hello {
            proto: PROTO,
            run: self.spec.run,
            nonce: self.spec.nonce.clone(),
            boot_id: self.spec.boot_id.clone(),
            shim_pid: std::process::id(),
            pongs: true,
            pid: self.engine.as_ref().ok().copied(),
        })];
        state.push(match &self.engine {
            Ok(pid) => FromShim::Started { pid: *pid },
            Err(e) => FromShim::StartFailed { errno: e.errno, message: e.message.clone() },
        });
        state.extend(self.pump.as_ref().map(Pump::activity));
        state.extend(self.exited.clone().map(FromShim::Exited));
        state.extend(self.ended.clone().map(|(left, _)| FromShim::Ended { left }));
        state
    }

    fn hear_signals(&mut self, now: Moment) {
        let mut stop = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            stop |= signal.ssi_signo == Signal::SIGTERM as u32;
        }
        while let Some(reaped) = sys::reap_one() {
            let steps = if self.engine.as_ref().is_ok_and(|pid| *pid == reaped.pid) {
                self.note_exit(now, reaped);
                self.life.main_exited(now)
            } else {
                self.life.child_reaped(now)
            };
            self.perform(steps);
        }
        if stop {
            self.sink.note("the shim was sent TERM");
            let grace = Duration::from_millis(self.spec.stop_grace_ms);
            let steps = self.life.abandoned(now, grace, Asked::Signal);
            self.perform(steps);
        }
    }

    fn hear_lifeline(&mut self, now: Moment) {
        // Nobody writes there. One read tells the end from a byte that somebody sent all the same.
        let end = match &self.lifeline {
            Some(lifeline) => rustix::io::read(lifeline, &mut [0; 64]) == Ok(0),
            None => false,
        };
        if end {
            self.lifeline = None;
            if self.ended.is_none() {
                self.sink.note("the agent is gone: stopping");
            }
            let grace = Duration::from_millis(self.spec.stop_grace_ms);
            let steps = self.life.abandoned(now, grace, Asked::Lifeline);
            self.perform(steps);
        }
    }

    fn hear_client(&mut self, now: Moment, asked: ToShim) {
        let steps = match asked {
            ToShim::Term { grace_ms } => {
                let grace = Duration::from_millis(grace_ms);
                self.life.ask(now, Stop::Term { grace }, Asked::Client)
            }
            ToShim::Kill => self.life.ask(now, Stop::Kill, Asked::Client),
            ToShim::KillWorkers { names } => {
                self.kill_workers(&names);
                vec![]
            }
            ToShim::Release => self.life.released(),
            ToShim::Ping => {
                self.clients.send(&FromShim::Pong);
                vec![]
            }
            ToShim::Unknown => vec![],
        };
        self.perform(steps);
    }

    fn hear_sweep(&mut self, now: Moment) {
        let Some(mut sweep) = self.sweep.take() else { return };
        let over = sweep.is_over();
        if !over && now < sweep.deadline {
            self.sweep = Some(sweep);
            return;
        }
        if !over {
            // It holds its end of the pipe, so it lives and the pid is its own.
            kill_process(sweep.pid, rustix::process::Signal::KILL);
            self.hung.push(sweep.pid);
        }
        let answer = sweep.answer();
        if over && !answer.whole && answer.found == Swept::default() {
            // It died, or could not look: the next one may see what this one did not.
            return self.cannot_look(&answer.trouble.as_deref().unwrap_or("the last look was cut short"));
        }
        self.is_blind = false;
        if !answer.whole {
            // What is below us was looked at without its help; for the rest there is no better knowledge to be had.
            self.sink.note("the last look at all processes did not come to an end");
        }
        if !answer.removed.is_empty() {
            self.sink.note(&format!("removed from /dev/shm: {}", answer.removed.join(" ")));
        }
        let steps = self.life.swept(now, answer.found);
        self.perform(steps);
    }
}

fn kill_process(pid: u32, signal: rustix::process::Signal) {
    // A child of ours that is not reaped yet: the pid cannot be another's.
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Reads standard input to its end, and puts /dev/null in its place.
fn read_spec() -> io::Result<Spec> {
    let mut text = Vec::new();
    io::stdin().lock().take(SPEC_MAX).read_to_end(&mut text)?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Blocks every signal and gives the descriptor on which those that matter are read. All others are as good as ignored:
/// Ctrl-C is the agent's business.
fn listen_to_signals() -> nix::Result<SignalFd> {
    SigSet::all().thread_set_mask()?;
    let heard = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn make_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
