//! The events: what happened, numbered, one JSON object a line (contract "Sockets"). The newest are kept in memory for
//! whoever asks, and followers wait for the next one.
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Events that are kept. A few hundred bytes each; a host that is well has a few dozen a day.
pub const KEPT: usize = 1024;

/// One event on the wire. Fields that have no meaning for its kind are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Larger than that of every earlier event, also of an earlier agent.
    pub seq: u64,
    pub at: String,
    /// "started", "starting", "ready", "health", "failover", "return", "exit", … (contract "Sockets").
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// A state or health before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The tier that serving moved to; or the state or health after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A name of the closed list (contract "Causes").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// "SIGKILL".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The incident that a mail is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<u64>,
    /// For people.
    pub text: String,
}

/// The kept events, and the door at which followers wait.
#[derive(Debug)]
pub struct Feed {
    kept: Mutex<VecDeque<(u64, Arc<str>)>>,
    last: watch::Sender<u64>,
}

impl Feed {
    /// Begins with lines that an earlier agent wrote; what is no event is left out.
    pub fn resume(lines: impl IntoIterator<Item = String>) -> Self {
        let numbered = lines.into_iter().filter_map(|line| {
            let event: Event = serde_json::from_str(&line).ok()?;
            Some((event.seq, Arc::from(line)))
        });
        let mut kept: VecDeque<(u64, Arc<str>)> = numbered.collect();
        kept.make_contiguous().sort_by_key(|(seq, _)| *seq);
        let last = kept.back().map_or(0, |(seq, _)| *seq);
        Self { kept: Mutex::new(kept), last: watch::channel(last).0 }
    }

    /// Begins without a past, with numbers above this one.
    pub fn after(seq: u64) -> Self {
        Self { kept: Mutex::default(), last: watch::channel(seq).0 }
    }

    /// The number of the newest event; 0 when there is none.
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Shows an event to everybody; its line, for whoever writes it down. Never waits.
    pub fn publish(&self, event: &Event) -> Arc<str> {
        let line: Arc<str> = serde_json::to_string(event).unwrap_or_default().into();
        let mut kept = self.lock();
        kept.push_back((event.seq, Arc::clone(&line)));
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
        drop(kept);
        self.last.send_replace(event.seq);
        line
    }

    /// What is kept with a larger number, and the largest number of all.
    pub fn since(&self, seq: u64) -> (Vec<Arc<str>>, u64) {
        let kept = self.lock();
        let newer = kept.iter().filter(|(number, _)| *number > seq);
        let last = kept.back().map_or(seq, |(number, _)| seq.max(*number));
        (newer.map(|(_, line)| Arc::clone(line)).collect(), last)
    }

    /// How many wait for the next one.
    pub fn followers(&self) -> usize {
        self.last.receiver_count()
    }

    /// Sees the number of the newest event change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<str>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Event {
        Event { seq, kind: "ready".to_owned(), ..Event::default() }
    }

    #[test]
    fn the_newest_are_kept_and_replayed_from_any_number() {
        let feed = Feed::resume([]);
        for seq in 1..=2_000 {
            feed.publish(&event(seq));
        }
        let (all, last) = feed.since(0);
        assert_eq!((all.len(), last, feed.last()), (KEPT, 2_000, 2_000));
        assert_eq!(feed.since(1_998).0.len(), 2);
        assert_eq!(feed.since(5_000), (Vec::new(), 5_000));
    }

    #[test]
    fn a_later_agent_goes_on_counting_and_what_is_no_event_is_left_out() {
        let earlier = Feed::resume([]);
        let lines: Vec<String> = (1..=3).map(|seq| earlier.publish(&event(seq)).to_string()).collect();
        let garbled = ["{}}".to_owned(), lines[2].clone(), "{\"seq\": -1}".to_owned(), lines[0].clone()];
        let later = Feed::resume(garbled);
        assert_eq!((later.last(), later.since(1).0.len()), (3, 1));
    }

    #[test]
    fn what_has_no_meaning_for_a_kind_is_left_out() {
        let line = Feed::resume([]).publish(&event(7)).to_string();
        assert_eq!(line, r#"{"seq":7,"at":"","kind":"ready","text":""}"#);
    }
}
