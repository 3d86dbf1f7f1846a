//! The key of a remote tier that was not there, or not good, when the agent started: looked for before each check.
use crate::config::{MissingKey, Secret};
use crate::lookout::Lookout;
use std::sync::Arc;
use std::time::Duration;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct LateKey {
    missing: Arc<MissingKey>,
    lookout: Lookout,
}

impl LateKey {
    pub fn new(missing: MissingKey) -> Self {
        Self { missing: Arc::new(missing), lookout: Lookout::default() }
    }

    /// The key, or why there is none.
    pub async fn look(&self, limit: Duration) -> Result<Secret, String> {
        let missing = Arc::clone(&self.missing);
        match tokio::time::timeout(limit, self.lookout.look(move || missing.look())).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => {
                Err("`api_key` is in a file that cannot be read in time; see to its file system".to_owned())
            }
        }
    }
}
