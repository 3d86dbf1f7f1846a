//! What each room needs of the configuration: policy gets numbers and names, the data plane its limits.
use crate::config::{Config, Tier, Upstream};
use crate::kinds;
use crate::policy::{EngineId, EngineSettings, Place, Settings, TierId, TierSettings};
use crate::proxy::{BODY_STALL, HELD_ANSWER_BYTES, Limits};

/// Memory for so many of the largest held answers is there at least, also where no request bodies are to be kept.
const HELD_AT_LEAST: usize = 8;

/// Policy's settings, and which tier each engine belongs to. Today each local tier has an engine of its own.
pub fn policy(config: &Config, seed: u64) -> (Settings, Vec<TierId>) {
    let mut settings = Settings { engines: Vec::new(), tiers: Vec::new(), drain: config.server.drain, seed };
    let mut engines = Vec::new();
    for (rank, tier) in config.tiers.iter().enumerate() {
        let place = match &tier.upstream {
            Upstream::Remote(_) => Place::Remote,
            Upstream::Local(local) => {
                let id = EngineId(u16::try_from(settings.engines.len()).unwrap_or(u16::MAX));
                engines.push(TierId(u16::try_from(rank).unwrap_or(u16::MAX)));
                settings.engines.push(EngineSettings {
                    name: tier.name.clone(),
                    start: local.start,
                    restart: local.restart,
                    startup: local.startup,
                    stop_grace: local.stop_grace,
                    replaceable_worker: !kinds::probe::worker_names(tier.kind).is_empty(),
                });
                Place::Local(id)
            }
        };
        settings.tiers.push(tier_settings(tier, place));
    }
    (settings, engines)
}

fn tier_settings(tier: &Tier, place: Place) -> TierSettings {
    TierSettings {
        name: tier.name.clone(),
        place,
        check: tier.check,
        silence: tier.silence,
        suspect: tier.suspect,
    }
}

/// The data plane's limits. `host_name`: what this machine calls itself.
pub fn limits(config: &Config, host_name: &str) -> Limits {
    let server = &config.server;
    let host_name = host_name.to_ascii_lowercase();
    let short = host_name.split('.').next().unwrap_or_default().to_owned();
    Limits {
        max_body: server.max_body,
        replay_memory: server.replay_memory,
        body_stall: BODY_STALL,
        held_answers: server.replay_memory.max(HELD_AT_LEAST * HELD_ANSWER_BYTES),
        max_connections: server.max_connections,
        max_connections_per_client: server.max_connections_per_client,
        request_timeout: server.request_timeout,
        all_down_retry_after: server.all_down_retry_after,
        passthrough: [server.passthrough.as_slice(), &server.passthrough_unknown].concat(),
        cors_origins: server.cors_origins.clone(),
        hosts: [server.hosts.as_slice(), &[short, host_name]].concat(),
        any_model: server.any_model,
    }
}
