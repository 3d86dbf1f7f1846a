//! What earlier agents left in the state directory, as the next one begins with it.
use super::starts;
use crate::alert::{Journal, Record, Starts, Store};
use crate::clock;
use crate::config::Config;
use crate::control::feed::{self, Feed};
use std::sync::Arc;
use std::time::Duration;

/// How long the state directory may take to answer.
const PAST_MAX: Duration = Duration::from_secs(2);

pub struct Past {
    pub events: Arc<Feed>,
    /// The records of incidents, and the largest number that was given to one.
    pub records: Result<(Vec<Record>, u64), String>,
    /// How long starts took.
    pub starts: Vec<Starts>,
}

impl Past {
    /// A disk that hangs is not waited for: then there is no past. Nor is there one while the directory is not this agent's
    /// (`is_ours`): whoever has it goes on writing, and its numbers must not be given twice.
    pub fn read(config: &Config, is_ours: bool) -> Self {
        let (found, looked) = std::sync::mpsc::sync_channel(1);
        let state_dir = config.agent.state_dir.clone();
        let (dir, names) =
            (state_dir.clone(), config.tiers.iter().map(|tier| tier.name.clone()).collect::<Vec<_>>());
        let look = move || {
            let store = Store::at(&dir);
            // A damaged record has a number, too.
            let last = store.ids().map(|ids| ids.last().copied().unwrap_or(0));
            let records = store.load_all().and_then(|records| Ok((records, last?)));
            let records = records.map_err(|why| why.to_string());
            let _ = found.send((Journal::at(&dir).tail(feed::KEPT), records, starts::load(&dir, &names)));
        };
        let looking =
            is_ours.then(|| std::thread::Builder::new().name("past".into()).spawn(look).ok()).flatten();
        let past = looking.and_then(|_| looked.recv_timeout(PAST_MAX).ok());
        match past {
            Some((lines, records, starts)) => Self { events: Arc::new(Feed::resume(lines)), records, starts },
            // Numbers go on from the time, which is larger than any that was counted.
            None => Self {
                events: Arc::new(Feed::after(clock::wall_ms().unsigned_abs() / 1_000)),
                records: Err(format!("{} cannot be used, or does not answer", state_dir.display())),
                starts: Vec::new(),
            },
        }
    }
}
