//! What each room needs of the configuration: policy gets numbers and names, the data plane its limits.
use super::devices::Gpus;
use crate::config::{Config, Tier, Upstream};
use crate::kinds;
use crate::policy::{EngineId, EngineSettings, Place, REAP_DEADLINE, SETTLE, Settings, TierId, TierSettings};
use crate::proxy::{BODY_STALL, HELD_ANSWER_BYTES, Limits};
use std::time::Duration;

const SILENCE: Duration = Duration::from_secs(10);
/// Without a GPU the first token of a long prompt takes its time.
const SILENCE_ON_CPU: Duration = Duration::from_secs(120);

/// What a busy host adds to a stop.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// Memory for so many of the largest held answers is there at least, also where no request bodies are to be kept.
const HELD_AT_LEAST: usize = 8;

/// Policy's settings, and which tier each engine belongs to. Today each local tier has an engine of its own.
pub fn policy(config: &Config, seed: u64, gpus: Gpus) -> (Settings, Vec<TierId>) {
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
        settings.tiers.push(tier_settings(tier, place, gpus));
    }
    (settings, engines)
}

/// How long a stop of the agent may take, to the end of a process that withstands KILL.
pub fn stop_limit(config: &Config) -> Duration {
    let grace = config.slowest_to_stop().map_or(Duration::ZERO, |(_, grace)| grace);
    config.server.drain + grace + SETTLE + REAP_DEADLINE + STOP_SLACK
}

fn tier_settings(tier: &Tier, place: Place, gpus: Gpus) -> TierSettings {
    let silence = if is_for_cpu(tier, gpus) { SILENCE_ON_CPU } else { SILENCE };
    TierSettings {
        name: tier.name.clone(),
        place,
        check: tier.check,
        silence: tier.silence.unwrap_or(silence),
        silence_on_cpu: tier.silence.unwrap_or(SILENCE_ON_CPU),
        silence_on_gpu: tier.silence.unwrap_or(SILENCE),
        wants_gpu: wants_gpu(tier, gpus),
        suspect: tier.suspect,
    }
}

/// Is its engine to compute on the CPU: given no GPU, told so by its own words, or on a host without one?
pub fn is_for_cpu(tier: &Tier, gpus: Gpus) -> bool {
    tier.local().is_some_and(|local| local.asks_for_cpu(tier.kind) || local.runs_on_cpu(gpus.usable))
}

/// Is its engine to use a GPU: one that it was given, or of the host's?
pub fn wants_gpu(tier: &Tier, gpus: Gpus) -> bool {
    let local = tier.local();
    local.is_some_and(|local| !local.runs_on_cpu(gpus.expected) && !local.asks_for_cpu(tier.kind))
}

/// May its engine be found to use one: does nobody keep it from that?
pub fn may_use_gpu(tier: &Tier) -> bool {
    tier.local().is_some_and(|local| !local.runs_on_cpu(true) && !local.asks_for_cpu(tier.kind))
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
        forward_headers: server.forward_headers.clone(),
        cors_origins: server.cors_origins.clone(),
        hosts: [server.hosts.as_slice(), &[short, host_name]].concat(),
        any_model: server.any_model,
        tiers: config.tiers.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    fn config(keys: &str) -> Config {
        let text = format!(
            "[agent]\nrun_dir = '/r'\nstate_dir = '/s'\n[[tier]]\nname = 'a'\nengine = 'llama-server'\nmodel = '/m'\n{keys}\n"
        );
        config::parse("t.toml", &text, &Environment::empty()).expect("it is right")
    }

    fn settings(keys: &str, gpus: Gpus) -> TierSettings {
        policy(&config(keys), 1, gpus).0.tiers[0].clone()
    }

    /// `silence` of a tier with these keys, in seconds.
    fn silence(keys: &str, usable: bool) -> u64 {
        settings(keys, Gpus { usable, expected: false }).silence.as_secs()
    }

    #[test]
    fn an_engine_without_a_gpu_is_given_time() {
        assert_eq!((silence("", true), silence("", false)), (10, 120), "what the host has decides");
        assert_eq!((silence("gpus = []", true), silence("gpus = []", false)), (120, 120));
        assert_eq!((silence("gpus = [0]", true), silence("gpus = [0]", false)), (10, 10));
        assert_eq!((silence("silence = '7s'", true), silence("silence = '7s'", false)), (7, 7));
        assert_eq!(silence("gpus = [0]\nargs = ['-ngl', '0']", true), 120, "it was told to");
    }

    /// Seen to fail: a render node was a GPU.
    #[test]
    fn beside_a_render_node_an_engine_is_given_time_until_its_log_shows_a_gpu() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("dev/dri/renderD128")).unwrap();
        let of = |keys: &str| settings(keys, super::super::devices::gpus(root.path()));
        let plain = of("");
        assert_eq!((plain.silence, plain.silence_on_gpu), (SILENCE_ON_CPU, SILENCE));
        assert_eq!(of("gpus = [0]").silence, SILENCE);
        for (keys, may) in
            [("", true), ("gpus = [0]", true), ("gpus = []", false), ("args = ['-ngl', '0']", false)]
        {
            assert_eq!(may_use_gpu(&config(keys).tiers[0]), may, "{keys}: is its log looked at?");
        }
    }

    #[test]
    fn an_engine_is_to_use_a_gpu_unless_host_or_operator_say_otherwise() {
        let wants = |keys: &str, expected| settings(keys, Gpus { usable: true, expected }).wants_gpu;
        assert_eq!((wants("", true), wants("", false)), (true, false), "what the host has decides");
        assert_eq!((wants("gpus = [0]", true), wants("gpus = [0]", false)), (true, true));
        for cpu in ["gpus = []", "args = ['-ngl', '0']", "gpus = [0]\nenv = { CUDA_VISIBLE_DEVICES = '-1' }"]
        {
            assert!(!wants(cpu, true), "{cpu}");
        }
    }
}
