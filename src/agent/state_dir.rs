//! The state directory, as far as it can be had: history and mail need it, a start does not. Where it cannot be had (a
//! read-only or full disk, another's directory, none at all) it is tried again with every write, by threads that nobody
//! waits for; and nothing is written there, and no mail sent from it, before it is this agent's alone.
use super::failure::StartError;
use super::lock::{Lock, LockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the disk may take to answer before the agent starts without it.
const ANSWERS: Duration = Duration::from_secs(2);
/// With the rights that the unit gives: nobody but our group looks in.
const MODE: u32 = 0o750;

#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    /// It is the runtime directory too, whose lock the agent has.
    is_run_dir: bool,
    held: Mutex<Option<Held>>,
}

/// Made, and this agent's alone.
#[derive(Debug)]
struct Held {
    /// For its drop.
    _lock: Option<Lock>,
}

impl StateDir {
    pub fn new(dir: &Path, is_run_dir: bool) -> Arc<Self> {
        Arc::new(Self { dir: dir.to_owned(), is_run_dir, held: Mutex::new(None) })
    }

    /// At the start: why the agent has to do without, for now; `None` where it has it.
    ///
    /// # Errors
    /// When another agent has it.
    pub fn begin(self: &Arc<Self>) -> Result<Option<String>, StartError> {
        let (told, heard) = sync_channel(1);
        let own = Arc::clone(self);
        let taking =
            std::thread::Builder::new().name("state".into()).spawn(move || _ = told.send(own.take()));
        let outcome = match taking {
            Ok(_) => heard.recv_timeout(ANSWERS).map_err(|_| "it does not answer".to_owned()),
            Err(why) => Err(why.to_string()),
        };
        let why = match outcome {
            Ok(Ok(())) => return Ok(None),
            Ok(Err(LockError::Held { holder })) => {
                return Err(StartError::Held { dir: self.dir.clone(), key: "agent.state_dir", holder });
            }
            Ok(Err(LockError::Io(why))) => why.to_string(),
            Err(why) => why,
        };
        Ok(Some(format!("cannot use {}: {why}", self.dir.display())))
    }

    /// Makes it this agent's, unless it is already. May hang with the disk.
    ///
    /// # Errors
    /// When it cannot be made or locked.
    pub fn open(&self) -> io::Result<()> {
        let dir = self.dir.display();
        self.take().map_err(|why| match why {
            LockError::Held { holder } => {
                io::Error::other(format!("another agent (pid {holder}) holds {dir}"))
            }
            LockError::Io(why) => io::Error::new(why.kind(), format!("cannot use {dir}: {why}")),
        })
    }

    fn take(&self) -> Result<(), LockError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            make_dir(&self.dir).map_err(LockError::Io)?;
            let lock = if self.is_run_dir { None } else { Some(Lock::take(&self.dir)?) };
            *held = Some(Held { _lock: lock });
        }
        Ok(())
    }
}

/// Makes one of the agent's directories, where it is not there yet.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(MODE).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_had_is_had_once_it_can_be() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("state");
        std::fs::write(&dir, "in the way").expect("a file");
        let state = StateDir::new(&dir, false);
        let told = state.begin().expect("the start goes on").expect("it is told why");
        assert!(told.starts_with(&format!("cannot use {}: ", dir.display())), "{told}");
        let why = state.open().expect_err("a file is in the way").to_string();
        assert!(why.starts_with(&format!("cannot use {}: ", dir.display())), "{why}");
        std::fs::remove_file(&dir).expect("it is there");
        state.open().expect("nothing is in the way");
        let second = StateDir::new(&dir, false);
        assert!(matches!(second.begin(), Err(StartError::Held { key: "agent.state_dir", .. })));
        let why = second.open().expect_err("the first has it").to_string();
        assert!(why.contains("another agent (pid "), "{why}");
        drop(state);
        second.open().expect("nobody has it");
    }
}
