//! What the limit on open descriptors allows, and how it shows when it is reached.
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use std::io;

/// Descriptors that are neither a client's nor an upstream's: listeners, sockets of the control plane, shims, logs.
const OTHERS: u64 = 128;

/// How many clients may be connected at one time, each of them with an upstream connection of its own.
pub(super) fn clients_at_most() -> io::Result<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(clients_within(soft))
}

fn clients_within(descriptors: u64) -> usize {
    // One client at least: it costs nothing to try.
    let clients = (descriptors.saturating_sub(OTHERS) / 2).max(1);
    usize::try_from(clients).unwrap_or(usize::MAX)
}

/// Whether a socket could not be had or bound because this host ran out of something, whoever it was to reach.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::EADDRNOTAVAIL | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// Whether no socket can be had at all. A resolver that finds none says only that it does not know the name.
pub(crate) fn are_used_up() -> bool {
    tokio::net::TcpSocket::new_v4().is_err_and(|e| is_shortage(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_their_upstreams_fit_into_the_limit() {
        let table =
            [(1024, 448), (524_288, 262_080), (130, 1), (128, 1), (0, 1), (u64::MAX, usize::MAX / 2 - 64)];
        for (descriptors, clients) in table {
            assert_eq!(clients_within(descriptors), clients, "{descriptors}");
        }
    }

    #[test]
    fn whose_fault_an_error_is() {
        let ours = [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS, Errno::ENOMEM];
        let theirs = [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::ECONNRESET];
        for (errno, expected) in ours.map(|e| (e, true)).into_iter().chain(theirs.map(|e| (e, false))) {
            assert_eq!(is_shortage(&io::Error::from(errno)), expected, "{errno}");
        }
        assert!(!is_shortage(&io::Error::other("no number")));
    }
}
