//! One tier of the table: its line, and below it what an operator would ask next. Whatever is wrong says why, what
//! happens next and when.
use super::paint::{Colour, bytes, fit, instant, paint, span, time_of_day};
use crate::control::wire::{Health, LastExit, Process, ProcessState, Progress, Tier, Traffic};
use crate::policy::Cause;

/// The cells of a tier's line.
pub(super) struct Row<'s> {
    name: &'s str,
    mark: (&'static str, Colour),
    health: (&'static str, Colour),
    state: &'static str,
    age: String,
    traffic: &'s Traffic,
}

impl<'s> Row<'s> {
    pub(super) fn of(tier: &'s Tier, now_ms: i64) -> Self {
        let state = tier.process.as_ref().map(|process| process.state);
        let since = tier.process.as_ref().map_or(&tier.since, |process| &process.since);
        Self {
            name: &tier.name,
            mark: mark(tier.health, state),
            health: (tier.health.name(), colour_of(tier.health)),
            state: state.map_or("-", ProcessState::name),
            age: instant(since).map_or_else(|| "?".to_owned(), |at| span(now_ms - at)),
            traffic: &tier.traffic,
        }
    }

    /// The line without its end. The name of the tier that serves is bold.
    pub(super) fn show(&self, name_width: usize, serves: bool, colour: bool) -> String {
        let name = format!("{:<name_width$}", fit(self.name, name_width));
        let name = paint(&name, if serves { Colour::Bold } else { Colour::Plain }, colour);
        let health = paint(&format!("{:<8}", self.health.0), self.health.1, colour);
        let mark = paint(self.mark.0, self.mark.1, colour);
        let Traffic { in_flight, answered, failed_over, cut, .. } = self.traffic;
        format!(
            "{mark} {name}  {health}  {:<8}  {:<9}{in_flight:>5}{answered:>10}{failed_over:>7}{cut:>5}",
            self.state, self.age
        )
    }
}

/// As systemctl marks units: full when it works, a circle when nobody wants it, an arrow on its way back, a cross.
fn mark(health: Health, state: Option<ProcessState>) -> (&'static str, Colour) {
    use ProcessState::{Backoff, Fenced, Held, Ready, Starting, Stopped, Stopping, Wedged};
    match (health, state) {
        (Health::Healthy, _) => ("●", Colour::Green),
        (Health::Degraded, _) => ("●", Colour::Yellow),
        (Health::Down, Some(Stopped)) => ("○", Colour::Dim),
        (Health::Down, Some(Starting | Stopping | Backoff)) => ("↻", Colour::Yellow),
        (Health::Down, None | Some(Ready | Held | Wedged | Fenced)) => ("×", Colour::Red),
    }
}

const fn colour_of(health: Health) -> Colour {
    match health {
        Health::Healthy => Colour::Green,
        Health::Degraded => Colour::Yellow,
        Health::Down => Colour::Red,
    }
}

/// The lines below a tier's own, in the order in which one would ask.
pub(super) fn details(tier: &Tier, now_ms: i64) -> Vec<(String, Colour)> {
    let mut lines = vec![(what_it_is(tier), Colour::Dim)];
    if tier.health != Health::Healthy || !tier.routable {
        lines.push((why(tier, now_ms), Colour::Plain));
    }
    let Some(process) = &tier.process else {
        lines.extend(advice_on_remote(tier).map(|line| (line, Colour::Plain)));
        return lines;
    };
    lines.extend(what_runs(process).map(|line| (line, Colour::Dim)));
    let in_trouble = match process.state {
        ProcessState::Held | ProcessState::Wedged | ProcessState::Fenced => Colour::Red,
        ProcessState::Starting | ProcessState::Stopping | ProcessState::Backoff => Colour::Yellow,
        ProcessState::Stopped | ProcessState::Ready => Colour::Plain,
    };
    lines.extend(what_next(process, tier.traffic.in_flight, now_ms).map(|line| (line, in_trouble)));
    if let Some(exit) = &process.last_exit
        && (exit.cause != "asked" || process.state != ProcessState::Ready)
    {
        lines.push((how_it_ended(exit, now_ms), Colour::Plain));
        let told = |line: &&String| lines.iter().any(|(told, _)| told.contains(line.as_str()));
        let evidence = exit.evidence.as_ref().filter(|line| !told(line)).map(|line| format!("  {line}"));
        lines.extend(evidence.map(|line| (line, Colour::Dim)));
    }
    lines.extend(advice(tier, process).map(|line| (line, Colour::Plain)));
    lines
}

/// The command that helps with what is shown above it; nothing for a tier that is well, or that looks after itself.
fn advice(tier: &Tier, process: &Process) -> Option<String> {
    let name = &tier.name;
    match process.state {
        ProcessState::Held => {
            Some(format!("→ when mended: mainstay start {name} (a changed file: restart mainstay)"))
        }
        ProcessState::Stopped => Some(format!("→ to start it: mainstay start {name}")),
        ProcessState::Backoff => {
            Some(format!("→ its last lines: mainstay logs {name}; at once: mainstay start {name}"))
        }
        ProcessState::Starting => Some(format!("→ to see how it comes up: mainstay logs {name} -f")),
        ProcessState::Wedged => {
            Some("→ a reboot helps when that lasts: mainstay help troubleshooting".to_owned())
        }
        ProcessState::Fenced => Some("→ why: mainstay gpus".to_owned()),
        ProcessState::Ready if tier.health != Health::Healthy => {
            Some(format!("→ what it says: mainstay logs {name}"))
        }
        ProcessState::Ready | ProcessState::Stopping => None,
    }
}

/// What helps with a remote tier that is down: not the way there, when it answers.
fn advice_on_remote(tier: &Tier) -> Option<String> {
    let url = tier.url.as_ref().filter(|_| tier.health == Health::Down)?;
    let cause = Cause::ALL.iter().find(|cause| Some(cause.name()) == tier.cause.as_deref())?;
    Some(match cause {
        Cause::Network => format!("→ does this host reach it? curl -v {url}"),
        Cause::Hang => format!("→ does it answer? curl -v {url}"),
        Cause::AuthGated => "→ check `api_key` of this tier, and the account at that server".to_owned(),
        Cause::ModelMissing => "→ check `model` of this tier: that server does not know the name".to_owned(),
        Cause::BadArgument => "→ check `url`, `health_path` and `model` of this tier".to_owned(),
        _ if tier.mainstay => "→ that host says why: run `mainstay status` there".to_owned(),
        _ => format!("→ its own log says why; what it answers: curl -v {url}"),
    })
}

fn what_it_is(tier: &Tier) -> String {
    let model = tier.model.as_ref().map_or_else(String::new, |model| format!(" {model}"));
    let url = tier.url.as_ref().map_or_else(String::new, |url| format!(" at {url}"));
    let peer = if tier.mainstay { " (mainstay)" } else { "" };
    format!("{}{peer}{model}{url}", tier.engine)
}

fn why(tier: &Tier, now_ms: i64) -> String {
    let age = instant(&tier.since).map_or_else(String::new, |at| format!(" for {}", span(now_ms - at)));
    let checks = match tier.check.failures {
        0 => String::new(),
        // The reason begins with their number: "3 checks failed: timed out", "1 of 3 checks failed: …".
        n if tier.reason.starts_with(&format!("{n} ")) => String::new(),
        1 => "; 1 check failed".to_owned(),
        n => format!("; {n} checks failed in a row"),
    };
    format!("{}{age}: {}{checks}", tier.health.name(), tier.reason)
}

/// The tree that lives now, as far as it is known.
fn what_runs(process: &Process) -> Option<String> {
    let mut facts = vec![format!("pid {}", process.pid?)];
    facts.extend(process.run.map(|run| format!("run {run}")));
    facts.extend(process.rss.map(bytes));
    facts.extend(process.cpu_s.map(|s| match s < 60.0 {
        true => format!("CPU {s:.1}s"),
        false => format!("CPU {}", span((s * 1e3) as i64)),
    }));
    facts.extend(counted(process.restarts, "restart"));
    Some(facts.join(", "))
}

pub(super) fn counted(count: u64, noun: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {noun}")),
        n => Some(format!("{n} {noun}s")),
    }
}

/// What happens next, and when; nothing for a process that is as it should be.
fn what_next(process: &Process, open: u64, now_ms: i64) -> Option<String> {
    let start = process.next_start.as_deref().and_then(instant);
    let when = start.map(|at| next_try(at, now_ms));
    let strikes = counted(process.strikes.into(), "strike");
    let after = strikes.map_or_else(String::new, |strikes| format!(" after {strikes}"));
    match process.state {
        ProcessState::Ready => None,
        ProcessState::Starting => Some(match &process.progress {
            Some(known) => format!("starting: {}", progress(known)),
            None => "starting: no progress seen yet".to_owned(),
        }),
        ProcessState::Backoff => {
            Some(format!("starts again {}{after}", when.unwrap_or_else(|| "as soon as it may".to_owned())))
        }
        ProcessState::Held => {
            let next = when.map_or_else(String::new, |when| format!("; next try {when}"));
            Some(format!("held{after}{next}"))
        }
        ProcessState::Stopping => Some(match counted(open, "open request") {
            Some(requests) => format!("stopping: {requests} may finish first"),
            None => "stopping: its processes are being ended".to_owned(),
        }),
        ProcessState::Stopped => Some(match when {
            Some(when) => format!("not running; starts {when}"),
            None => "not running".to_owned(),
        }),
        ProcessState::Wedged => {
            Some("wedged: its processes survive SIGKILL, nothing can be started".to_owned())
        }
        ProcessState::Fenced => {
            Some("fenced: nothing is started on its GPU until that is good again".to_owned())
        }
    }
}

/// "loading weights (2 of 4), 50 %, about 24s left".
pub fn progress(known: &Progress) -> String {
    let count = known.n.zip(known.of).map_or_else(String::new, |(n, of)| format!(" ({n} of {of})"));
    let percent = known.percent.map_or_else(String::new, |percent| format!(", {percent} %"));
    let left = match known.eta_s {
        None => String::new(),
        Some(0) => ", less than 1s left".to_owned(),
        Some(seconds) => {
            format!(", about {} left", span(i64::try_from(seconds).unwrap_or(i64::MAX / 1000) * 1000))
        }
    };
    format!("{}{count}{percent}{left}", known.stage)
}

/// "in 14min (22:02:00 UTC)"; a time that has passed is not far.
fn next_try(at: i64, now_ms: i64) -> String {
    match at - now_ms {
        ..1000 => "at any moment".to_owned(),
        left => format!("in {} ({})", span(left), time_of_day(at)),
    }
}

fn how_it_ended(exit: &LastExit, now_ms: i64) -> String {
    let age = instant(&exit.at).map_or_else(String::new, |at| format!(" {} ago", span(now_ms - at)));
    let how = match (exit.code, &exit.signal) {
        (Some(code), _) => format!("exit {code}, "),
        (None, Some(signal)) => format!("{signal}, "),
        (None, None) => String::new(),
    };
    format!("run {} ended{age}: {how}{}; {}", exit.run, exit.cause, exit.action)
}
