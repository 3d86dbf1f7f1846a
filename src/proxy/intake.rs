//! Reading request bodies, within what one of them and all of them may take.
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Memory for so many of the longest bodies is there at least, also where none is to be kept.
const TRANSIT_MIN: usize = 8;

/// Memory for request bodies. The first part is `replay_memory`: what lies in it is kept for another try. A body that finds
/// it full takes from a second part, at least as large, until it was sent, and one that finds both full is refused.
#[derive(Debug)]
pub(super) struct Budget {
    replay_limit: usize,
    transit_limit: usize,
    replay: AtomicUsize,
    transit: AtomicUsize,
}

/// A body's share of the budget.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
    /// The body may be kept.
    replay: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

impl Budget {
    pub fn new(replay_memory: usize, max_body: usize) -> Arc<Self> {
        let transit_limit = replay_memory.max(max_body.saturating_mul(TRANSIT_MIN));
        let (replay, transit) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { replay_limit: replay_memory, transit_limit, replay, transit })
    }

    pub fn lease(self: &Arc<Self>) -> Lease {
        Lease { budget: self.clone(), bytes: 0, replay: true }
    }

    fn pool(&self, replay: bool) -> &AtomicUsize {
        if replay { &self.replay } else { &self.transit }
    }

    fn take(&self, replay: bool, bytes: usize) -> bool {
        let limit = if replay { self.replay_limit } else { self.transit_limit };
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= limit);
        self.pool(replay).fetch_update(Relaxed, Relaxed, fits).is_ok()
    }
}

impl Lease {
    /// Makes it `bytes` large, if it is smaller.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let more = bytes.saturating_sub(self.bytes);
        if self.budget.take(self.replay, more) {
            self.bytes += more;
            return Ok(());
        }
        if !self.replay || !self.budget.take(false, self.bytes + more) {
            return Err(NoMemory);
        }
        self.budget.pool(true).fetch_sub(self.bytes, Relaxed);
        self.replay = false;
        self.bytes += more;
        Ok(())
    }

    /// Makes it large enough for `body` and its values. `max`: longest body.
    pub fn grow_to_parsed(&mut self, body: &[u8], max: usize) -> Result<(), Unread> {
        let weight = weight(body);
        if weight > self.budget.transit_limit.max(max) {
            return Err(Unread::TooLarge);
        }
        Ok(self.grow_to(weight)?)
    }

    pub fn keeps(&self) -> bool {
        self.replay
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.pool(self.replay).fetch_sub(self.bytes, Relaxed);
    }
}

/// Why a body was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge,
    NoMemory,
    /// It is not what its head said, or its client is gone.
    Broken,
    NotJson(String),
}

impl From<NoMemory> for Unread {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// Is the body longer than `max` by its own account?
pub(super) fn is_announced_too_large(headers: &HeaderMap, max: usize) -> bool {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    announced.is_some_and(|length| length > max as u64)
}

/// Reads a JSON object.
pub(super) async fn read_object(mut body: Incoming, max: usize, lease: &mut Lease) -> Result<Value, Unread> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > max {
            return Err(Unread::TooLarge);
        }
        lease.grow_to(bytes.len() + data.len())?;
        bytes.extend_from_slice(&data);
    }
    lease.grow_to_parsed(&bytes, max)?;
    match serde_json::from_slice(&bytes) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(Unread::NotJson("it is not an object".into())),
        Err(e) => Err(Unread::NotJson(e.to_string())),
    }
}

/// About how much memory the parsed body takes: 32 MiB of `[1,1,1,…` become half a gigabyte of values.
fn weight(body: &[u8]) -> usize {
    let values = body.iter().filter(|b| matches!(b, b',' | b'[' | b'{')).count();
    body.len().max(values.saturating_mul(size_of::<Value>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_finds_the_replay_memory_full_is_taken_without_replay() {
        let (replay, transit) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let budget = Arc::new(Budget { replay_limit: 100, transit_limit: 100, replay, transit });
        let mut first = budget.lease();
        first.grow_to(60).unwrap();
        let mut second = budget.lease();
        second.grow_to(30).unwrap();
        assert!(second.keeps());
        second.grow_to(50).unwrap();
        assert!(!second.keeps());
        // Its share of the replay memory is free again.
        let mut third = budget.lease();
        third.grow_to(40).unwrap();
        assert!(third.keeps());
        let mut fourth = budget.lease();
        assert_eq!(fourth.grow_to(51), Err(NoMemory));
        drop((first, second, third, fourth));
        assert_eq!((budget.replay.load(Relaxed), budget.transit.load(Relaxed)), (0, 0));
    }

    #[test]
    fn without_replay_memory_bodies_are_taken_all_the_same() {
        let mut lease = Budget::new(0, 1 << 20).lease();
        lease.grow_to(1 << 20).unwrap();
        assert!(!lease.keeps());
    }

    #[test]
    fn many_small_values_weigh_more_than_their_text() {
        assert_eq!(weight(b"\"a long text without structure\""), 31);
        assert!(weight(b"[1,1,1,1,1,1]") > 100);
    }
}
