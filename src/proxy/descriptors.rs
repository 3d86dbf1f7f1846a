//! What the limit on open descriptors allows.
use crate::descriptors;

/// Descriptors that are neither a client's nor an upstream's: listeners, sockets of the control plane, shims, logs.
const OTHERS: u64 = 128;

/// How many clients may be connected at one time, each of them with an upstream connection of its own.
pub(super) fn clients_at_most() -> usize {
    clients_within(descriptors::limit())
}

fn clients_within(descriptors: u64) -> usize {
    // One client at least: it costs nothing to try.
    let clients = (descriptors.saturating_sub(OTHERS) / 2).max(1);
    usize::try_from(clients).unwrap_or(usize::MAX)
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
}
