//! Ports for engines: from the configured range, a new one for every run.
use crate::policy::Moment;
use crate::shortage::{self, Shortage};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// A port that was in use this recently is not given out again: a late connection to the run before must not reach
/// the next one.
const REST: Duration = Duration::from_secs(60);

/// Hands out ports from an inclusive range, going round it.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    last: u16,
    next: u16,
    reserved: BTreeSet<u16>,
    released: BTreeMap<u16, Moment>,
    taken: BTreeSet<u16>,
}

impl Ports {
    /// `reserved` are never given out. `start_at` spreads agents that share a host over the range; any number will do.
    pub fn new((first, last): (u16, u16), reserved: impl Iterator<Item = u16>, start_at: u64) -> Self {
        let width = u64::from(last - first) + 1;
        let next = first + (start_at % width) as u16;
        Self {
            first,
            last,
            next,
            reserved: reserved.collect(),
            released: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// A port that nobody listens on just now; `None` when the whole range is taken.
    ///
    /// # Errors
    /// When this host has nothing left to try a port with.
    pub fn take(&mut self, now: Moment) -> Result<Option<u16>, Shortage> {
        self.released.retain(|_, at| now.since(*at) < REST);
        for _ in self.first..=self.last {
            let port = self.next;
            self.next = if port == self.last { self.first } else { port + 1 };
            let rested = ![&self.taken, &self.reserved].iter().any(|set| set.contains(&port))
                && !self.released.contains_key(&port);
            if rested && is_free(port)? {
                self.taken.insert(port);
                return Ok(Some(port));
            }
        }
        Ok(None)
    }

    pub fn release(&mut self, port: u16, now: Moment) {
        if self.taken.remove(&port) {
            self.released.insert(port, now);
        }
    }
}

/// Does nobody listen there just now, as far as we may know?
///
/// # Errors
/// When this host has nothing left to try it with: that says nothing about the port.
pub fn is_free(port: u16) -> Result<bool, Shortage> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::AddrInUse => Ok(false),
        // A port that we may not have, the engine may not have either: its own words say that better.
        Err(why) => shortage::of(&why).map_or(Ok(true), Err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::from_nanos(secs * 1_000_000_000)
    }

    /// Three ports that were free a moment ago.
    fn range() -> (u16, u16) {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let first = probe.local_addr().expect("its address").port().min(65_000);
        (first, first + 2)
    }

    #[test]
    fn a_port_rests_for_a_minute_after_its_run() {
        let (first, last) = range();
        let mut ports = Ports::new((first, first), std::iter::empty(), 7);
        let _ = last;
        let Ok(Some(port)) = ports.take(at(0)) else { return };
        assert_eq!(ports.take(at(0)), Ok(None), "it is in use");
        ports.release(port, at(10));
        assert_eq!(ports.take(at(69)), Ok(None), "used 59 s ago");
        assert_eq!(ports.take(at(70)), Ok(Some(port)));
    }

    #[test]
    fn a_reserved_port_is_never_given_out() {
        let (first, _) = range();
        assert_eq!(Ports::new((first, first), std::iter::once(first), 0).take(at(0)), Ok(None));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("its address").port();
        assert_eq!(Ports::new((port, port), std::iter::empty(), 0).take(at(0)), Ok(None));
    }
}
