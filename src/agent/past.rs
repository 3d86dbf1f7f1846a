//! What earlier agents left in the state directory, as the next one begins with it.
use super::starts;
use crate::alert::{Journal, Record, Starts, Store};
use crate::config::Config;
use crate::control::feed::{self, Feed};
use std::sync::Arc;
use std::time::Duration;

/// How long the state directory may take to answer.
const PAST_MAX: Duration = Duration::from_secs(2);

pub struct Past {
    pub events: Arc<Feed>,
    /// The records of incidents.
    pub records: Result<Vec<Record>, String>,
    /// How long starts took.
    pub starts: Vec<Starts>,
}

impl Past {
    /// A disk that hangs is not waited for: then there is no past.
    pub fn read(config: &Config) -> Self {
        let (found, looked) = std::sync::mpsc::sync_channel(1);
        let state_dir = config.agent.state_dir.clone();
        let (dir, names) =
            (state_dir.clone(), config.tiers.iter().map(|tier| tier.name.clone()).collect::<Vec<_>>());
        let look = move || {
            let records = Store::at(&dir).load_all().map_err(|why| why.to_string());
            let _ = found.send((Journal::at(&dir).tail(feed::KEPT), records, starts::load(&dir, &names)));
        };
        let looking = std::thread::Builder::new().name("past".into()).spawn(look);
        let past = looking.ok().and_then(|_| looked.recv_timeout(PAST_MAX).ok());
        let nothing = || (Vec::new(), Err(format!("{} does not answer", state_dir.display())), Vec::new());
        let (lines, records, starts) = past.unwrap_or_else(nothing);
        Self { events: Arc::new(Feed::resume(lines)), records, starts }
    }
}
