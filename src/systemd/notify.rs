//! Messages to systemd over `$NOTIFY_SOCKET`.
//!
//! The crate spells the messages; the datagram is sent from here, because a loop that notifies must not wait for a
//! stuck PID 1, containers give abstract addresses, and the environment is read once.
use crate::policy::{EngineState, Health, HostState, HostStatus, TierStatus};
use crate::printable;
use sd_notify::NotifyState;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// PID 1's queue is full only when it is stuck, and then nothing that we say matters.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// A status line is one datagram, and people read it on one line of a terminal.
const LONGEST_STATUS: usize = 400;

/// The way to systemd, or nowhere. Clones speak over the same socket.
#[derive(Clone, Debug)]
pub struct Notifier {
    way: Option<Arc<Way>>,
}

#[derive(Debug)]
struct Way {
    socket: UnixDatagram,
    /// Addressed anew with each message: a connection would be lost when PID 1 executes itself again.
    to: SocketAddr,
}

impl Notifier {
    /// Looks at `$NOTIFY_SOCKET` once. Where there is none, or none that can be used, every message is dropped.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let way = variable("NOTIFY_SOCKET").and_then(|name| match open(&name) {
            Ok(way) => Some(Arc::new(way)),
            Err(error) => {
                tracing::warn!(%error, socket = %name.display(), "systemd cannot be notified");
                None
            }
        });
        Self { way }
    }

    /// `READY=1`: the endpoint listens.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// `STATUS=`: one line for people.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(&one_line(status))]);
    }

    /// `STOPPING=1`: on our way out, and answering what is open.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// `EXTEND_TIMEOUT_USEC=`: what is going on may take so long from now; never shortens what the unit allows.
    pub fn extend_timeout(&self, by: Duration) {
        self.send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// `WATCHDOG=1`: alive until the limit passes once more.
    pub fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// A message that is lost is not missed: the next status or ping says the same, and a `READY=1` that PID 1 cannot
    /// take within [`LONGEST_WAIT`] is a host on which nothing works. It is logged, and never stops the agent.
    fn send(&self, messages: &[NotifyState<'_>]) {
        let Some(way) = &self.way else { return };
        let text: String = messages.iter().map(|message| format!("{message}\n")).collect();
        if let Err(error) = way.socket.send_to_addr(text.as_bytes(), &way.to) {
            tracing::debug!(%error, "systemd was not notified");
        }
    }
}

fn open(name: &OsStr) -> io::Result<Way> {
    let to = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "not an address of a Unix socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(LONGEST_WAIT))?;
    Ok(Way { socket, to })
}

/// A newline would begin another message; a status that quotes an engine may hold anything.
fn one_line(text: &str) -> String {
    printable::line(text).chars().take(LONGEST_STATUS).collect()
}

/// What `systemctl status` shows: which tier serves, and what is wrong with those above it. `names` are the tiers'
/// names by rank.
pub fn status_text(names: &[&str], host: &HostStatus) -> String {
    let ended: &str = match host.state {
        HostState::Serving => "",
        HostState::Draining => "draining; ",
        HostState::Finished => return "stopped".to_owned(),
    };
    let name = |rank: usize| names.get(rank).copied().unwrap_or("?");
    let serving = host.serving.map(|tier| usize::from(tier.0));
    let sentence = match serving {
        Some(rank) => format!("{} serves", name(rank)),
        None => "no tier can answer".to_owned(),
    };
    let above = host.tiers.iter().enumerate().take(serving.unwrap_or(host.tiers.len()));
    let excuses: String = above.map(|(rank, tier)| format!("; {}: {}", name(rank), excuse(tier))).collect();
    format!("{ended}{sentence}{excuses}")
}

fn excuse(tier: &TierStatus) -> &str {
    match tier.engine.as_ref().map(|engine| engine.state) {
        Some(EngineState::Stopped) => "stopped",
        Some(EngineState::Starting) => "starting",
        Some(EngineState::Stopping) => "stopping",
        Some(EngineState::Backoff) => "waiting to be restarted",
        Some(EngineState::Held) => "held",
        Some(EngineState::Wedged) => "wedged",
        None | Some(EngineState::Ready) => match tier.health {
            Health::Healthy | Health::Degraded => "not routable",
            Health::Down if tier.reason.is_empty() => "down",
            Health::Down => &tier.reason,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{CheckStatus, EngineStatus, Moment, TierId};

    fn tier(state: Option<EngineState>, health: Health, reason: &str) -> TierStatus {
        let since = Moment::from_nanos(0);
        TierStatus {
            health,
            routable: health != Health::Down,
            reason: reason.to_owned(),
            since,
            check: CheckStatus::default(),
            cause: None,
            last_resort: false,
            cpu_fallback: None,
            engine: state.map(|state| EngineStatus {
                run: None,
                state,
                since,
                restarts: 0,
                strikes: 0,
                next_start: None,
                last_exit: None,
            }),
        }
    }

    #[test]
    fn the_status_names_who_serves_and_what_is_wrong_above() {
        let check = |state: HostState, serving: Option<u16>, tiers: &[TierStatus], expected: &str| {
            let host = HostStatus { state, serving: serving.map(TierId), tiers: tiers.to_vec(), retry: None };
            assert_eq!(status_text(&["primary", "gpu2", "cpu"], &host), expected);
        };
        let ready = tier(Some(EngineState::Ready), Health::Healthy, "answered in 2 ms");
        let held = tier(Some(EngineState::Held), Health::Down, "held");
        let remote = tier(None, Health::Down, "connection refused");
        check(HostState::Serving, Some(0), &[ready.clone(), held.clone(), ready.clone()], "primary serves");
        check(
            HostState::Serving,
            Some(2),
            &[held.clone(), remote.clone(), ready.clone()],
            "cpu serves; primary: held; gpu2: connection refused",
        );
        check(
            HostState::Draining,
            None,
            &[held, remote],
            "draining; no tier can answer; primary: held; gpu2: connection refused",
        );
        check(HostState::Finished, None, &[ready], "stopped");
    }

    fn heard(listener: &UnixDatagram) -> String {
        let mut text = [0; 1024];
        let length = listener.recv(&mut text).expect("a datagram has arrived");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn messages_arrive_at_either_kind_of_address_and_stay_one_line() {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let path = dir.path().join("notify");
        let by_name = UnixDatagram::bind(&path).expect("a socket");
        let hidden = format!("mainstay-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&hidden).expect("an abstract name");
        let by_address = UnixDatagram::bind_addr(&address).expect("a socket");
        for (listener, variable) in
            [(by_name, path.into_os_string()), (by_address, format!("@{hidden}").into())]
        {
            let notifier = Notifier::from_env(|name| (name == "NOTIFY_SOCKET").then(|| variable.clone()));
            notifier.ready("primary serves\nMAINPID=1");
            assert_eq!(heard(&listener), "READY=1\nSTATUS=primary serves\\x0aMAINPID=1\n");
            notifier.status("cpu serves");
            assert_eq!(heard(&listener), "STATUS=cpu serves\n");
            notifier.clone().watchdog();
            assert_eq!(heard(&listener), "WATCHDOG=1\n");
            notifier.stopping("draining");
            assert_eq!(heard(&listener), "STOPPING=1\nSTATUS=draining\n");
        }
    }

    #[test]
    fn without_systemd_everything_is_silent() {
        for variable in [None, Some("vsock:2:1234"), Some(""), Some("/nonexistent/notify")] {
            let notifier = Notifier::from_env(|_| variable.map(OsString::from));
            assert_eq!(notifier.way.is_some(), variable == Some("/nonexistent/notify"));
            notifier.ready("ready");
            notifier.watchdog();
        }
    }
}
