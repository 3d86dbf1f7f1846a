//! The key of a remote tier that was not there, or not good, when the agent started: looked for before each check.
use crate::config::{MissingKey, Secret};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct LateKey {
    missing: Arc<MissingKey>,
    /// A look is under way: one that hangs with its file system must not cost a further thread with each check.
    looking: Arc<AtomicBool>,
}

impl LateKey {
    pub fn new(missing: MissingKey) -> Self {
        Self { missing: Arc::new(missing), looking: Arc::default() }
    }

    /// The key, or why there is none.
    pub async fn look(&self, limit: Duration) -> Result<Secret, String> {
        const HANGS: &str = "`api_key` is in a file that cannot be read in time; see to its file system";
        if self.looking.swap(true, Ordering::AcqRel) {
            return Err(HANGS.to_owned());
        }
        let Self { missing, looking } = self.clone();
        let look = tokio::task::spawn_blocking(move || {
            let found = missing.look();
            looking.store(false, Ordering::Release);
            found
        });
        match tokio::time::timeout(limit, look).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Err(HANGS.to_owned()),
        }
    }
}
