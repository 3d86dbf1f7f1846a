//! Every key of the contract by its section, to say where a misplaced or misspelt one belongs.
use std::collections::BTreeSet;

/// Sections and inline tables with their keys, in the contract's order.
pub(super) const SECTIONS: [(&str, &[&str]); 12] = [
    (
        "[server]",
        &[
            "listen",
            "max_body",
            "replay_memory",
            "max_connections",
            "max_connections_per_client",
            "request_timeout",
            "drain",
            "all_down_retry_after",
            "engine_ports",
            "passthrough",
            "passthrough_unknown",
            "forward_headers",
            "cors_origins",
            "hosts",
            "any_model",
        ],
    ),
    ("[agent]", &["run_dir", "state_dir", "log", "log_format", "engine_log"]),
    ("[gpu]", &["probe"]),
    (
        "[[tier]]",
        &[
            "name",
            "engine",
            "model",
            "aliases",
            "command",
            "args",
            "env",
            "dir",
            "gpus",
            "port",
            "start",
            "stop_grace",
            "max_concurrent",
            "nice",
            "oom_score_adj",
            "health",
            "restart",
            "startup",
            "silence",
            "suspect",
            "timeouts",
            "degrade",
            "url",
            "api",
            "api_key",
            "health_path",
            "pull",
        ],
    ),
    ("`health`", &["interval", "timeout", "slow", "failures"]),
    ("`restart`", &["first", "base", "max", "stable", "hold_after", "hold_retry"]),
    ("`startup`", &["stall", "cap"]),
    ("`timeouts`", &["connect", "first_content", "between_chunks"]),
    ("`degrade`", &["max_tokens", "temperature", "notice"]),
    ("[alert]", &["mail"]),
    ("[alert.mail]", &["relay", "from", "to", "username", "password", "ca", "on", "at_most_every"]),
    ("the file", &["server", "agent", "tier", "alert", "gpu"]),
];

/// More known keys than this are not listed in a message.
const SHORT_LIST: usize = 11;

/// What to do about an unknown key of a section that knows `known`.
pub(super) fn remedy(key: &str, section: &str, known: &BTreeSet<&'static str>) -> String {
    if let Some(near) = nearest(key, known) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = SECTIONS
        .iter()
        .find(|(title, keys)| *title != section && *title != "the file" && keys.contains(&key));
    if let Some((title, _)) = elsewhere {
        return format!("`{key}` belongs in {title}");
    }
    if known.len() <= SHORT_LIST {
        let names: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        return format!("remove it, known here: {}", names.join(", "));
    }
    "remove it, or see `mainstay help configuration` for the keys there are".to_owned()
}

/// The known key that differs least, if it is near enough to be meant: at most two letters in five are wrong.
fn nearest(key: &str, known: &BTreeSet<&'static str>) -> Option<&'static str> {
    // The distance takes time and memory by the product of the lengths.
    if key.len() > 64 {
        return None;
    }
    let key = key.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&key, candidate), *candidate))
        .filter(|(distance, candidate)| distance * 5 <= key.chars().count().max(candidate.len()) * 2)
        .min()
        .map(|(_, candidate)| candidate)
}
