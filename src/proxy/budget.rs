//! Memory for request bodies, and which of them has to go when there is not enough.
use super::heavy::Heavy;
use super::limits::{PARSED_HERE_BYTES, SMALL_BYTES};
use super::memory::Pool;
use crate::policy::Moment;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Memory for so many of the longest bodies is there at least, also where none is to be kept.
const TRANSIT_MIN: usize = 8;
/// How fast a body comes is measured over its last one to two of these. Not since its beginning: a client that sends
/// almost everything at once and then withholds the rest would look fast for a long time.
const WINDOW: Duration = Duration::from_secs(1);

/// Memory for request bodies. The first part is `replay_memory`: what lies in it is kept for another try. A body that finds
/// it full takes from a second part, at least as large, until it was sent. One that finds both full takes the place of the
/// slowest that is still on its way, unless it is that itself.
#[derive(Debug)]
pub(super) struct Budget {
    replay: Pool,
    transit: Pool,
    heavy: Heavy,
    arriving: Mutex<Arriving>,
}

/// Bodies that are still on their way.
#[derive(Debug, Default)]
struct Arriving {
    next: u64,
    bodies: BTreeMap<u64, Body>,
}

#[derive(Debug)]
struct Body {
    share: Share,
    is_large: bool,
    pace: Pace,
    evicted: Arc<Notify>,
}

/// What one body has of the budget.
#[derive(Debug)]
struct Share {
    bytes: usize,
    /// The body may be kept.
    replay: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

/// The body has more values than there is memory for in all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Budget {
    pub fn new(replay_memory: usize, max_body: usize, heavy: Heavy) -> Arc<Self> {
        let transit = Pool::new(replay_memory.max(max_body.saturating_mul(TRANSIT_MIN)));
        Arc::new(Self { replay: Pool::new(replay_memory), transit, heavy, arriving: Mutex::default() })
    }

    /// The threads for work on large bodies.
    pub fn heavy(&self) -> &Heavy {
        &self.heavy
    }

    pub fn pools(&self) -> [&Pool; 2] {
        [&self.replay, &self.transit]
    }

    fn arriving(&self) -> MutexGuard<'_, Arriving> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, share: &Share) -> &Pool {
        if share.replay { &self.replay } else { &self.transit }
    }

    fn grow(&self, share: &mut Share, to: usize) -> bool {
        let more = to.saturating_sub(share.bytes);
        if self.pool(share).take(more, share.bytes + more) {
            share.bytes += more;
            return true;
        }
        if !share.replay || !self.transit.take(share.bytes + more, share.bytes + more) {
            return false;
        }
        self.replay.give(share.bytes);
        *share = Share { bytes: share.bytes + more, replay: false };
        true
    }

    fn give(&self, share: &Share) {
        self.pool(share).give(share.bytes);
    }

    /// Takes the memory of the slowest body that is still on its way; for a small one also that of a small one. It counts as
    /// free at once, and is free as soon as the body's task has seen that it was evicted. `false`: there is none.
    fn evict(&self, arriving: &mut Arriving, now: Moment, for_large: bool) -> bool {
        let slowest = |large: bool| {
            let bodies = arriving.bodies.iter().filter(|(_, body)| body.is_large == large);
            bodies.min_by_key(|(_, body)| body.pace.per_second(now)).map(|(id, _)| *id)
        };
        let victim = slowest(true).or_else(|| slowest(false).filter(|_| !for_large));
        let Some(body) = victim.and_then(|id| arriving.bodies.remove(&id)) else { return false };
        self.give(&body.share);
        body.evicted.notify_one();
        true
    }
}

/// A body that is on its way. Its memory may be taken from it.
#[derive(Debug)]
pub(super) struct Arrival {
    budget: Arc<Budget>,
    id: u64,
    evicted: Arc<Notify>,
}

impl Arrival {
    pub fn new(budget: &Arc<Budget>, now: Moment) -> Self {
        let evicted = Arc::new(Notify::new());
        let mut arriving = budget.arriving();
        let id = arriving.next;
        arriving.next += 1;
        let share = Share { bytes: 0, replay: true };
        let body = Body { share, is_large: false, pace: Pace::new(now), evicted: evicted.clone() };
        arriving.bodies.insert(id, body);
        Self { budget: budget.clone(), id, evicted }
    }

    /// `more` of it came at `now`, and takes `memory` in all.
    pub fn received(&self, now: Moment, more: usize, memory: usize) -> Result<(), NoMemory> {
        let mut arriving = self.budget.arriving();
        let body = arriving.bodies.get_mut(&self.id).ok_or(NoMemory)?;
        body.pace.note(now, more);
        body.is_large = memory > SMALL_BYTES;
        // Each turn makes them fewer, and the last one is this body.
        loop {
            let body = arriving.bodies.get_mut(&self.id).ok_or(NoMemory)?;
            if self.budget.grow(&mut body.share, memory) {
                return Ok(());
            }
            self.budget.evict(&mut arriving, now, memory > SMALL_BYTES);
        }
    }

    /// Waits until its memory was taken.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// All of it is there: nobody takes its memory any more.
    pub fn whole(self) -> Result<Lease, NoMemory> {
        let body = self.budget.arriving().bodies.remove(&self.id).ok_or(NoMemory)?;
        Ok(Lease { budget: self.budget.clone(), share: body.share, body: None })
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if let Some(body) = self.budget.arriving().bodies.remove(&self.id) {
            self.budget.give(&body.share);
        }
    }
}

/// The memory of a body that is whole.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    share: Share,
    /// What lies in it.
    body: Option<Arc<Value>>,
}

impl Lease {
    /// Makes it `bytes` large, if it is smaller.
    fn grow_to(&mut self, now: Moment, bytes: usize) -> Result<(), NoMemory> {
        while !self.budget.grow(&mut self.share, bytes) {
            let mut arriving = self.budget.arriving();
            if !self.budget.evict(&mut arriving, now, bytes > SMALL_BYTES) {
                return Err(NoMemory);
            }
        }
        Ok(())
    }

    /// Makes it large enough for the text and `values` bytes of what it is made into.
    pub fn grow_to_parsed(&mut self, now: Moment, values: usize) -> Result<Result<(), NoMemory>, TooMany> {
        let all = self.share.bytes + values;
        if all > self.budget.transit.limit_for(all) {
            return Err(TooMany);
        }
        Ok(self.grow_to(now, all))
    }

    pub fn hold(&mut self, body: &Arc<Value>) {
        self.body = Some(body.clone());
    }

    /// The body is given away.
    pub fn take(&mut self) -> Option<Arc<Value>> {
        self.body.take()
    }

    pub fn keeps(&self) -> bool {
        self.share.replay
    }

    /// Work on it is nothing for a thread that has others to serve.
    pub fn is_heavy(&self) -> bool {
        self.share.bytes > PARSED_HERE_BYTES
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let share = std::mem::replace(&mut self.share, Share { bytes: 0, replay: true });
        match self.body.take().filter(|_| share.bytes > PARSED_HERE_BYTES) {
            None => self.budget.give(&share),
            // Millions of values take their time to be freed too.
            Some(body) => {
                let budget = self.budget.clone();
                self.budget.heavy.later(move || {
                    drop(body);
                    budget.give(&share);
                });
            }
        }
    }
}

/// How fast a body comes.
#[derive(Debug)]
struct Pace {
    first: Moment,
    /// When the window began in which `counted` bytes came; in the one before it were `before`.
    began: Moment,
    counted: usize,
    before: usize,
}

impl Pace {
    fn new(now: Moment) -> Self {
        Self { first: now, began: now, counted: 0, before: 0 }
    }

    fn note(&mut self, now: Moment, bytes: usize) {
        let age = now.since(self.began);
        if age >= WINDOW {
            let before = if age < 2 * WINDOW { self.counted } else { 0 };
            *self = Self { first: self.first, began: now, counted: 0, before };
        }
        self.counted += bytes;
    }

    fn per_second(&self, now: Moment) -> u128 {
        let age = now.since(self.began);
        let (bytes, span) = match age {
            _ if age < WINDOW => (self.before + self.counted, age + WINDOW),
            _ if age < 2 * WINDOW => (self.counted, age),
            _ => (0, age),
        };
        let span = span.min(now.since(self.first)).max(Duration::from_millis(1));
        bytes as u128 * 1000 / span.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;
    const LARGE: usize = 2 * SMALL_BYTES;

    fn budget(replay: usize, transit: usize) -> Arc<Budget> {
        let (replay, transit) = (Pool::new(replay), Pool::new(transit));
        Arc::new(Budget { replay, transit, heavy: Heavy::start().unwrap(), arriving: Mutex::default() })
    }

    fn at(ms: u64) -> Moment {
        Moment::default() + Duration::from_millis(ms)
    }

    /// A body of which `bytes` have come at one instant.
    fn arrival(budget: &Arc<Budget>, ms: u64, bytes: usize) -> Result<Arrival, NoMemory> {
        let arrival = Arrival::new(budget, at(ms));
        arrival.received(at(ms), bytes, bytes)?;
        Ok(arrival)
    }

    fn used(budget: &Budget) -> (usize, usize) {
        (budget.replay.used(), budget.transit.used())
    }

    fn is_evicted(arrival: &Arrival) -> bool {
        !arrival.budget.arriving().bodies.contains_key(&arrival.id)
    }

    #[test]
    fn a_body_that_finds_the_replay_memory_full_is_taken_without_replay() {
        let budget = budget(100, 100);
        let first = arrival(&budget, 0, 60).unwrap().whole().unwrap();
        let second = arrival(&budget, 0, 30).unwrap();
        second.received(at(1), 20, 50).unwrap();
        let second = second.whole().unwrap();
        assert_eq!((first.keeps(), second.keeps()), (true, false));
        // Its share of the replay memory is free again.
        let third = arrival(&budget, 2, 40).unwrap().whole().unwrap();
        assert!(third.keeps());
        // Nobody takes what whole bodies have.
        assert_eq!(arrival(&budget, 3, 51).unwrap_err(), NoMemory);
        drop((first, second, third));
        assert_eq!(used(&budget), (0, 0));
    }

    #[test]
    fn without_replay_memory_bodies_are_taken_all_the_same() {
        let budget = Budget::new(0, 1 << 20, Heavy::start().unwrap());
        assert!(!arrival(&budget, 0, 1 << 20).unwrap().whole().unwrap().keeps());
    }

    #[test]
    fn the_slowest_large_body_gives_way() {
        let budget = budget(8 * LARGE, 0);
        // Almost all of it came at once, and then nothing.
        let withheld: Vec<_> = (0..5).map(|_| arrival(&budget, 0, LARGE).unwrap()).collect();
        // It began earlier, and has sent less, but goes on.
        let steady = Arrival::new(&budget, at(0));
        for ms in (0..2500).step_by(100) {
            steady.received(at(ms), 3 * KIB, SMALL_BYTES + 1 + ms as usize).unwrap();
        }
        let fresh = arrival(&budget, 2500, LARGE).unwrap();
        let gone = withheld.iter().filter(|body| is_evicted(body)).count();
        assert_eq!((gone, is_evicted(&steady), is_evicted(&fresh)), (1, false, false));
        assert_eq!(withheld[0].received(at(2500), 1, LARGE + 1), Err(NoMemory), "it knows");
        // One that is slower than all others takes nobody's place.
        drop(withheld);
        let whole: Vec<_> = (0..4).map(|_| arrival(&budget, 2500, LARGE).unwrap().whole().unwrap()).collect();
        steady.received(at(2501), 64 * KIB, SMALL_BYTES + 64 * KIB).unwrap();
        let slow = Arrival::new(&budget, at(0));
        assert_eq!(slow.received(at(2501), 1, LARGE), Err(NoMemory));
        assert!(!is_evicted(&steady) && !is_evicted(&fresh));
        drop((whole, steady, fresh, slow));
        assert_eq!(used(&budget), (0, 0));
    }

    #[test]
    fn small_bodies_have_a_part_of_their_own() {
        let budget = budget(8 * LARGE, 0);
        let large: Vec<_> = (0..6).map(|_| arrival(&budget, 0, LARGE).unwrap().whole().unwrap()).collect();
        assert_eq!(arrival(&budget, 0, LARGE).unwrap_err(), NoMemory);
        let small: Vec<_> = (0..4).map(|_| arrival(&budget, 0, SMALL_BYTES).unwrap()).collect();
        // Among small ones the slowest gives way too, but never to a large one.
        assert_eq!(arrival(&budget, 10, LARGE).unwrap_err(), NoMemory);
        assert!(!small.iter().any(is_evicted));
        let next = arrival(&budget, 10, SMALL_BYTES).unwrap();
        assert_eq!(small.iter().filter(|body| is_evicted(body)).count(), 1);
        drop((large, small, next));
        assert_eq!(used(&budget), (0, 0));
    }

    #[test]
    fn what_is_whole_goes_before_what_is_on_its_way() {
        let budget = budget(8 * LARGE, 8 * LARGE);
        let arriving: Vec<_> = (0..12).map(|_| arrival(&budget, 0, LARGE).unwrap()).collect();
        let mut lease = arrival(&budget, 0, KIB).unwrap().whole().unwrap();
        lease.grow_to_parsed(at(5), 3 * LARGE).unwrap().unwrap();
        assert!(arriving.iter().filter(|body| is_evicted(body)).count() >= 3);
        assert_eq!(lease.grow_to_parsed(at(5), 9 * LARGE), Err(TooMany));
    }
}
