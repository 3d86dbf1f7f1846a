//! The only mutable state that control plane and data plane share: one [`Live`] per tier and run.
use super::fate::Fate;
use super::fingerprint::Fingerprint;
use super::history::{History, Others};
use super::suspects::Present;
use super::totals::{Account, Totals};
use super::upstream::Pool;
use crate::clock;
use crate::policy::{Leads, Moment, Sample, Standing};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What the data plane knows of one run of a tier's engine (or of a remote upstream). The agent makes one when a run
/// becomes routable, puts it into every [`super::RouteTable`] of that run, and lets go of it afterwards; its idle
/// connections end with it.
#[derive(Debug)]
pub struct Live {
    totals: Arc<Totals>,
    pulse: Arc<Pulse>,
    history: Mutex<History>,
    permits: Option<Arc<Semaphore>>,
    fate: watch::Sender<Fate>,
    leads: ArcSwap<Leads>,
    /// Tokens of prompt and answer together; 0 as long as the engine has not told.
    context: AtomicU64,
    /// It asked to be left alone until then.
    busy_until: AtomicU64,
    pub(super) pool: Pool,
}

/// Signs of life. Apart from [`Live`], because connections hold it, and connections must not keep a `Live` alive.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last_progress: AtomicU64,
    last_byte: AtomicU64,
    in_flight: AtomicU32,
    /// Of those in flight: waiting for their client to read. That is no silence of the engine.
    stalled: AtomicU32,
    answered: AtomicU64,
    answered_at: AtomicU64,
    present: Mutex<Present>,
}

impl Pulse {
    /// A byte came, or nothing was asked of the engine until now.
    pub fn progress(&self) {
        let now = clock::now().as_nanos();
        self.last_progress.fetch_max(now, Relaxed);
        self.last_byte.fetch_max(now, Relaxed);
    }

    /// Held for a few instructions, twice per request.
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine is waited for from now on: the first request in flight begins, or a client reads again. No byte came.
    fn begin(&self) {
        self.last_progress.fetch_max(clock::now().as_nanos(), Relaxed);
    }
}

impl Live {
    /// `max_concurrent`: requests at one time; `None` or 0 is no limit of ours. Opens as [`Standing::Open`].
    pub fn new(totals: Arc<Totals>, max_concurrent: Option<u32>) -> Arc<Self> {
        let permits = max_concurrent.filter(|&n| n > 0).map(|n| Arc::new(Semaphore::new(n as usize)));
        let (fate, _) = watch::channel(Fate { standing: Standing::Open, cut: false });
        let (pulse, history, leads) = (Arc::default(), Mutex::default(), ArcSwap::default());
        Arc::new(Self {
            totals,
            pulse,
            history,
            permits,
            fate,
            leads,
            context: AtomicU64::new(0),
            busy_until: AtomicU64::new(0),
            pool: Pool::default(),
        })
    }

    /// The figures that policy judges by. Requests that wait for their client to read do not make the engine look
    /// silent.
    pub fn sample(&self) -> Sample {
        let pulse = &self.pulse;
        let in_flight = pulse.in_flight.load(Relaxed);
        if in_flight > 0 && pulse.stalled.load(Relaxed) >= in_flight {
            pulse.begin();
        }
        let (row, answered, answered_at) = {
            let history = self.history();
            (history.row(), pulse.answered.load(Relaxed), pulse.answered_at.load(Relaxed))
        };
        Sample {
            in_flight,
            last_progress: Moment::from_nanos(pulse.last_progress.load(Relaxed)),
            last_byte: Moment::from_nanos(pulse.last_byte.load(Relaxed)),
            failures_in_row: row.failures,
            repeats_in_row: row.repeats,
            turned_away_in_row: row.turned_away,
            answered,
            answered_at: Moment::from_nanos(answered_at),
        }
    }

    /// Tells attempts in flight: `Leaving` and `Closed` make those without content move to another tier, if one is
    /// open; new requests follow the stricter of this and the route table.
    pub fn set_standing(&self, standing: Standing) {
        self.fate.send_if_modified(|fate| std::mem::replace(&mut fate.standing, standing) != standing);
    }

    /// Closes every upstream connection of this run now, in use or idle, and lets none be opened. Final.
    pub fn cut(&self) {
        self.pulse.present().all_lost(clock::now());
        self.fate.send_if_modified(|fate| !std::mem::replace(&mut fate.cut, true));
        self.pool.clear();
    }

    /// What its checks say is behind a remote tier.
    pub fn set_leads(&self, leads: Leads) {
        self.leads.store(Arc::new(leads));
    }

    pub fn leads(&self) -> Arc<Leads> {
        self.leads.load_full()
    }

    /// The engine was started for so many tokens of prompt and answer together.
    pub fn set_context(&self, tokens: u64) {
        self.context.store(tokens, Relaxed);
    }

    pub(super) fn context(&self) -> Option<u64> {
        Some(self.context.load(Relaxed)).filter(|&tokens| tokens > 0)
    }

    pub(super) fn fate(&self) -> watch::Receiver<Fate> {
        self.fate.subscribe()
    }

    pub(super) fn fate_now(&self) -> Fate {
        *self.fate.borrow()
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Counts a request in, for as long as the visit is not dropped; `None` when `max_concurrent` are in already.
    /// `request`: what it is told by, if it is known what it asks for.
    pub(super) fn enter(&self, request: Option<Fingerprint>) -> Option<(Visit, Account)> {
        let permit = match &self.permits {
            None => None,
            Some(permits) => Some(permits.clone().try_acquire_owned().ok()?),
        };
        let pulse = self.pulse.clone();
        if pulse.in_flight.fetch_add(1, Relaxed) == 0 {
            pulse.begin();
        }
        request.into_iter().for_each(|request| pulse.present().enter(request));
        Some((Visit { pulse, request, stalled: false, _permit: permit }, Account::open(&self.totals)))
    }

    /// A one-token request of ours, sent at `sent`, was answered as a client's would be.
    pub fn trial_passed(&self, sent: Moment) {
        self.history().trial_passed(sent);
    }

    /// The tier had an answer for `request`. An error of the client's is none: who refuses need not be able to compute.
    pub(super) fn succeeded(&self, request: Fingerprint, began: Moment) {
        let mut history = self.history();
        history.answered(request, began);
        // Counted while nobody looks: a sample that has the answer has the row after it.
        self.pulse.answered.fetch_add(1, Relaxed);
        self.pulse.answered_at.fetch_max(clock::now().as_nanos(), Relaxed);
    }

    /// It failed, or refused what it was asked. `suspect`: the request failed elsewhere before.
    pub(super) fn failed(&self, request: Fingerprint, began: Moment, suspect: bool) {
        self.history().failed(request, began, suspect);
    }

    /// The failure was the request's own fault.
    pub(super) fn acquitted(&self, request: Fingerprint) {
        self.history().acquitted(request);
    }

    /// It does not serve what was asked for.
    pub(super) fn not_served(&self) {
        self.history().not_served();
    }

    /// It had no room.
    pub(super) fn turned_away(&self) {
        self.history().turned_away();
    }

    /// The requests that were there when the run died, just before `now`.
    pub(super) fn at_death(&self, now: Moment) -> Vec<Fingerprint> {
        self.pulse.present().at_death(now)
    }

    /// New requests keep away from it for so long, while another tier is open.
    pub(super) fn leave_alone(&self, pause: Duration) {
        self.busy_until.fetch_max((clock::now() + pause).as_nanos(), Relaxed);
    }

    /// Is it to be left alone now?
    pub(super) fn is_busy(&self, now: Moment) -> bool {
        now.as_nanos() < self.busy_until.load(Relaxed)
    }

    pub(super) fn others_than(&self, request: Fingerprint) -> Others {
        self.history().others_than(request)
    }

    /// Held for a few instructions, once per request.
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request at one tier.
#[derive(Debug)]
pub(super) struct Visit {
    pulse: Arc<Pulse>,
    request: Option<Fingerprint>,
    stalled: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Visit {
    /// The connection ended before the answer did.
    pub fn lost(&self) {
        self.request.into_iter().for_each(|request| self.pulse.present().lost(request, clock::now()));
    }

    /// Whether the request waits for its client to read, rather than for the engine.
    pub fn set_stalled(&mut self, stalled: bool) {
        if self.stalled == stalled {
            return;
        }
        self.stalled = stalled;
        if stalled {
            self.pulse.stalled.fetch_add(1, Relaxed);
        } else {
            self.pulse.begin();
            self.pulse.stalled.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.stalled {
            self.pulse.stalled.fetch_sub(1, Relaxed);
        }
        self.pulse.in_flight.fetch_sub(1, Relaxed);
        self.request.into_iter().for_each(|request| self.pulse.present().leave(request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_counts_while_it_lasts() {
        let live = Live::new(Arc::default(), Some(1));
        assert_eq!(live.sample(), Sample::default());
        let visit = live.enter(None).unwrap();
        assert!(live.enter(None).is_none(), "the only permit is taken");
        let sample = live.sample();
        assert_eq!(sample.in_flight, 1);
        assert!(sample.last_progress > Moment::default());
        assert_eq!(sample.last_byte, Moment::default(), "nothing has come");
        drop(visit);
        assert_eq!(live.sample().in_flight, 0);
        assert!(live.enter(None).is_some());
        assert_eq!(live.totals.tally().requests, 2);
    }

    #[test]
    fn a_client_that_does_not_read_is_no_silence_of_the_engine() {
        let live = Live::new(Arc::default(), None);
        let ((mut slow, _), (waiting, _)) = (live.enter(None).unwrap(), live.enter(None).unwrap());
        let before = live.sample().last_progress;
        slow.set_stalled(true);
        assert_eq!(live.sample().last_progress, before, "the other one still waits for the engine");
        drop(waiting);
        assert!(live.sample().last_progress > before);
        slow.set_stalled(false);
        let resumed = live.sample().last_progress;
        let sample = live.sample();
        assert_eq!((sample.last_progress, sample.last_byte), (resumed, Moment::default()), "no byte came");
    }

    #[test]
    fn failures_in_a_row_end_with_a_success() {
        let live = Live::new(Arc::default(), None);
        (0..3).for_each(|request| live.failed(Fingerprint(request), clock::now(), false));
        live.turned_away();
        let sample = live.sample();
        assert_eq!((sample.failures_in_row, sample.repeats_in_row, sample.turned_away_in_row), (3, 3, 1));
        live.succeeded(Fingerprint(9), clock::now());
        let sample = live.sample();
        assert_eq!((sample.failures_in_row, sample.answered), (0, 1));
    }

    #[test]
    fn fate_reaches_those_in_flight() {
        let live = Live::new(Arc::default(), None);
        let mut fate = live.fate();
        live.set_standing(Standing::Open);
        assert!(!fate.has_changed().unwrap());
        live.set_standing(Standing::Leaving);
        live.cut();
        assert!(fate.has_changed().unwrap());
        assert_eq!(*fate.borrow_and_update(), Fate { standing: Standing::Leaving, cut: true });
    }
}
