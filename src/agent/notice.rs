//! One line of the agent's log per state change: tier, run, from, to, why.
use crate::policy::{EngineState, Health, Notice, TierId};

/// Logs a notice. `names` are the tiers' names in rank order, `engines` says which tier each engine belongs to.
pub fn log(notice: &Notice, names: &[String], engines: &[TierId], seq: u64) {
    let name = |tier: TierId| names.get(usize::from(tier.0)).map_or("?", String::as_str);
    let place = |tier: Option<TierId>| tier.map_or("none", name);
    match notice {
        Notice::Engine { run, from, to, why } => {
            let tier = engines.get(usize::from(run.engine.0)).map_or("?", |tier| name(*tier));
            let (from, to, run) = (state(*from), state(*to), run.number);
            match to {
                "backoff" | "held" | "wedged" => tracing::warn!(seq, tier, run, from, to, why, "engine"),
                _ => tracing::info!(seq, tier, run, from, to, why, "engine"),
            }
        }
        Notice::Health { tier, from, to, why } => {
            tracing::info!(seq, tier = name(*tier), from = health(*from), to = health(*to), why, "health");
        }
        Notice::Serving { from, to, why } => {
            tracing::info!(seq, from = place(*from), to = place(*to), why, "serving");
        }
        Notice::Failover { from, to, why } => {
            tracing::warn!(seq, from = name(*from), to = name(*to), why, "failover");
        }
        Notice::Return { from, to } => tracing::info!(seq, from = name(*from), to = name(*to), "return"),
        Notice::AllDown { why } => tracing::error!(seq, why, "all tiers are down"),
        Notice::Operator { tier, command } => {
            tracing::info!(seq, tier = name(*tier), command = ?command, "operator");
        }
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

const fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Down => "down",
    }
}
