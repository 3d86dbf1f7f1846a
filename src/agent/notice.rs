//! What policy tells, for people and programs: one event per notice, and one line of the agent's log per event.
use crate::control::feed::Event;
use crate::control::wire::{self, signal_name};
use crate::policy::{Cause, Command, Ending, EngineState, Exit, Health, Notice, RunId, TierId};

/// The names by which events speak of tiers.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// In rank order.
    pub tiers: &'a [String],
    /// Which tier each engine belongs to.
    pub engines: &'a [TierId],
}

impl Names<'_> {
    pub fn tier(&self, tier: TierId) -> String {
        self.tiers.get(usize::from(tier.0)).map_or("?", String::as_str).to_owned()
    }

    fn of_run(&self, run: RunId) -> String {
        self.engines.get(usize::from(run.engine.0)).map_or_else(|| "?".to_owned(), |tier| self.tier(*tier))
    }
}

/// The event that tells of a notice, without number and time.
pub fn event(notice: &Notice, names: Names<'_>) -> Event {
    let tier = |tier: &TierId| Some(names.tier(*tier));
    match notice {
        Notice::Engine { run, from, to, why } => Event {
            kind: state(*to).to_owned(),
            tier: Some(names.of_run(*run)),
            run: Some(run.number),
            from: Some(state(*from).to_owned()),
            to: Some(state(*to).to_owned()),
            text: why.clone(),
            ..Event::default()
        },
        Notice::Exit { run, ending } => {
            Event { tier: Some(names.of_run(*run)), run: Some(run.number), ..exit(ending) }
        }
        Notice::CpuFallback { run, evidence } => Event {
            kind: Cause::CpuFallback.name().to_owned(),
            tier: Some(names.of_run(*run)),
            run: Some(run.number),
            cause: Some(Cause::CpuFallback.name().to_owned()),
            evidence: Some(evidence.clone()),
            text: "it runs on the CPU, although it was to use a GPU".to_owned(),
            ..Event::default()
        },
        Notice::LastResort { tier: of, cause, why } => last_resort(names.tier(*of), *cause, why),
        Notice::Worker { run, why } => Event {
            kind: "worker".to_owned(),
            tier: Some(names.of_run(*run)),
            run: Some(run.number),
            cause: Some(Cause::Hang.name().to_owned()),
            text: format!("its worker is killed, the engine starts another: {why}"),
            ..Event::default()
        },
        Notice::Waiting { run, cause, why } => waiting(names.of_run(*run), *run, *cause, why),
        Notice::Health { tier: of, from, to, cause, why } => Event {
            kind: "health".to_owned(),
            tier: tier(of),
            from: Some(wire::Health::from(*from).name().to_owned()),
            to: Some(wire::Health::from(*to).name().to_owned()),
            cause: cause.map(|cause| cause.name().to_owned()),
            text: why.clone(),
            ..Event::default()
        },
        Notice::Serving { from, to, why } => {
            Event { tier: to.as_ref().and_then(tier), ..moved("serving", *from, *to, why, names) }
        }
        Notice::Failover { from, to, cause, why } => {
            Event { cause: blame(*cause), ..moved("failover", Some(*from), Some(*to), why, names) }
        }
        Notice::Return { from, to } => {
            let why = format!("{} serves again", names.tier(*to));
            moved("return", Some(*from), Some(*to), &why, names)
        }
        Notice::AllDown { from, cause, why } => {
            Event { cause: blame(*cause), ..moved("all-down", *from, None, why, names) }
        }
        Notice::Operator { tier: of, command } => Event {
            kind: "operator".to_owned(),
            tier: tier(of),
            text: match command {
                Command::Start => "start",
                Command::Stop => "stop",
                Command::Restart => "restart",
            }
            .to_owned(),
            ..Event::default()
        },
    }
}

fn waiting(tier: String, run: RunId, cause: Cause, why: &str) -> Event {
    Event {
        kind: "waiting".to_owned(),
        tier: Some(tier),
        run: Some(run.number),
        cause: Some(cause.name().to_owned()),
        text: format!("{why}; it is started again every minute or sooner until it is ready"),
        ..Event::default()
    }
}

fn exit(ending: &Ending) -> Event {
    let (code, signal, how) = match ending.exit {
        Exit::Code(code) => (Some(code), None, format!("exit status {code}")),
        Exit::Signal(number) => (None, Some(signal_name(number)), signal_name(number)),
        Exit::Unknown => (None, None, "no exit status".to_owned()),
    };
    Event {
        kind: "exit".to_owned(),
        cause: Some(ending.cause.name().to_owned()),
        evidence: ending.evidence.clone(),
        code,
        signal,
        text: format!("ended ({how}): {}", ending.cause.meaning()),
        ..Event::default()
    }
}

/// Serving went from here to there.
fn moved(kind: &str, from: Option<TierId>, to: Option<TierId>, why: &str, names: Names<'_>) -> Event {
    let from = from.map(|from| names.tier(from));
    Event {
        kind: kind.to_owned(),
        tier: from.clone(),
        from,
        to: to.map(|to| names.tier(to)),
        text: why.to_owned(),
        ..Event::default()
    }
}

fn last_resort(tier: String, cause: Option<Cause>, why: &str) -> Event {
    Event {
        kind: "last-resort".to_owned(),
        tier: Some(tier),
        cause: blame(cause),
        text: format!("{why}; it stays open, because no other tier is"),
        ..Event::default()
    }
}

/// Where something is known to have gone wrong, "unknown" says that it is not known why.
fn blame(cause: Option<Cause>) -> Option<String> {
    Some(cause.unwrap_or(Cause::Unknown).name().to_owned())
}

/// Logs an event: what an operator should look at as a warning, what is an outage as an error.
pub fn log(event: &Event) {
    let Event { seq, tier, run, from, to, cause, evidence, text, .. } = event;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                seq,
                tier = tier.as_deref(),
                run,
                from = from.as_deref(),
                to = to.as_deref(),
                cause = cause.as_deref(),
                evidence = evidence.as_deref(),
                why = text,
                "{}",
                event.kind
            )
        };
    }
    match event.kind.as_str() {
        "all-down" => line!(error),
        "failover" | "state" | "backoff" | "held" | "wedged" | "waiting" | "worker" | "cpu-fallback"
        | "last-resort" => {
            line!(warn)
        }
        "mail" if to.as_deref() != Some("sent") => line!(warn),
        _ => line!(info),
    }
}

pub const fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Down => "down",
    }
}

pub const fn state(state: EngineState) -> &'static str {
    match state {
        EngineState::Stopped => "stopped",
        EngineState::Starting => "starting",
        EngineState::Ready => "ready",
        EngineState::Stopping => "stopping",
        EngineState::Backoff => "backoff",
        EngineState::Held => "held",
        EngineState::Wedged => "wedged",
    }
}
