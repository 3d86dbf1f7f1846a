//! `[server]`: the endpoint.
use super::limits::WAIT_OR_NOT;
use super::section::Section;
use super::value::{duration, duration_or_none, flag, size, whole};
use super::{address, forwarding, passthrough};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Never empty; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Bytes of one request's body.
    pub max_body: usize,
    /// Bytes of request bodies kept for another try, in all.
    pub replay_memory: usize,
    pub max_connections: usize,
    /// Of one client address.
    pub max_connections_per_client: usize,
    /// `None` is no limit.
    pub request_timeout: Option<Duration>,
    /// How long open answers may take to finish when the agent stops.
    pub drain: Duration,
    /// `Retry-After` when nothing better is known; a second or more.
    pub all_down_retry_after: Duration,
    /// First and last port for engines, both included.
    pub engine_ports: (u16, u16),
    /// Exact paths of inference.
    pub passthrough: Vec<String>,
    /// Further ones, of which no more is known than that their names do not say that they change an engine.
    pub passthrough_unknown: Vec<String>,
    /// Further header fields, in lower case, that may go to remote upstreams.
    pub forward_headers: Vec<String>,
    /// Origins whose pages may call; `*` is any.
    pub cors_origins: Vec<String>,
    /// Names of this endpoint, in lower case, that a page's request may have in `Host`.
    pub hosts: Vec<String>,
    /// A model name that nobody knows gets the default chain instead of 404.
    pub any_model: bool,
}

/// The section, with the one place that rules over the whole file point at.
pub(super) struct Placed {
    pub(super) server: Server,
    pub(super) engine_ports_at: usize,
}

pub(super) fn read(mut section: Section<'_>) -> Placed {
    let seconds = Duration::from_secs;
    let hour = seconds(3600);
    let server = Server {
        listen: listen(&mut section),
        max_body: section.read("max_body", size(KIB..=4 * GIB)).unwrap_or(32 * MIB),
        replay_memory: section.read("replay_memory", size(0..=1024 * GIB)).unwrap_or(256 * MIB),
        max_connections: section
            .read("max_connections", whole(1..=1_000_000))
            .map_or(20_000, |n: i64| n as usize),
        max_connections_per_client: section
            .read("max_connections_per_client", whole(1..=1_000_000))
            .map_or(1024, |n: i64| n as usize),
        request_timeout: section
            .read("request_timeout", duration_or_none(seconds(1)..=24 * hour))
            .unwrap_or(Some(seconds(600))),
        drain: section.read("drain", duration(WAIT_OR_NOT)).unwrap_or(seconds(30)),
        all_down_retry_after: section
            .read("all_down_retry_after", duration(seconds(1)..=hour))
            .unwrap_or(seconds(30)),
        engine_ports: section.read("engine_ports", address::port_range).unwrap_or((20_000, 20_999)),
        passthrough: distinct(&mut section, "passthrough", r#"["/v1/rerank"]"#, passthrough::known)
            .unwrap_or_else(|| passthrough::DEFAULT.map(str::to_owned).to_vec()),
        passthrough_unknown: distinct(
            &mut section,
            "passthrough_unknown",
            r#"["/v1/videos"]"#,
            passthrough::path,
        )
        .unwrap_or_default(),
        forward_headers: distinct(&mut section, "forward_headers", r#"["x-session-id"]"#, forwarding::field)
            .unwrap_or_default(),
        cors_origins: distinct(
            &mut section,
            "cors_origins",
            r#"["https://chat.example.org"]"#,
            address::origin,
        )
        .unwrap_or_default(),
        hosts: distinct(&mut section, "hosts", r#"["chat.example.org"]"#, address::host).unwrap_or_default(),
        any_model: section.read("any_model", flag).unwrap_or(false),
    };
    let engine_ports_at = section.take("engine_ports").map_or(section.at, |given| given.at);
    section.finish();
    Placed { server, engine_ports_at }
}

fn listen(section: &mut Section<'_>) -> Vec<SocketAddr> {
    if !section.has("listen") {
        return vec![DEFAULT_LISTEN];
    }
    if section.take("listen").is_some_and(|given| given.value.is_str()) {
        return section.read("listen", address::listen).into_iter().collect();
    }
    if let Some(given) = section.take("listen").filter(|given| given.value.as_array().is_none()) {
        section.report(&given, given.of_wrong_type(&format!("{}, or a list of such", address::LISTEN_FORM)));
        return Vec::new();
    }
    let Some(addresses) = section.places("listen", r#"["127.0.0.1:8000"]"#, address::listen) else {
        return Vec::new();
    };
    if addresses.is_empty() {
        section.report_at(
            "listen",
            "`listen` is empty",
            r#"write at least one address, such as ["127.0.0.1:8000"]"#,
        );
    }
    for (index, (at, address)) in addresses.iter().enumerate() {
        if let Some((_, earlier)) = addresses[..index].iter().find(|(_, it)| address::overlap(*it, *address))
        {
            let what = if address.ip().is_unspecified() && address != earlier {
                format!("`listen` has \"{address}\", which covers \"{earlier}\" too")
            } else {
                format!("`listen` has \"{address}\", which \"{earlier}\" covers already")
            };
            section.context.problems.add(*at, what, "remove one of them");
        }
    }
    addresses.into_iter().map(|(_, address)| address).collect()
}

/// A list in which the same thing twice is a slip.
fn distinct(
    section: &mut Section<'_>,
    key: &'static str,
    example: &str,
    parse: impl Fn(&super::value::Given<'_>) -> Result<String, super::value::Wrong>,
) -> Option<Vec<String>> {
    let items = section.places(key, example, parse)?;
    let mut seen = BTreeSet::new();
    for (at, item) in &items {
        if !seen.insert(item) {
            section.context.problems.add(*at, format!("`{key}` has \"{item}\" twice"), "remove one of them");
        }
    }
    Some(items.into_iter().map(|(_, item)| item).collect())
}
