//! One agent per runtime directory.
//!
//! The lock is a `flock` on `agent.lock`: the kernel releases it with the process, however that ends, so it can never
//! be stale. The file's text names the holder. An agent that ends takes its name out, so one that was killed is known.
//! Whoever may open the file may lock it, for reading even, and so keep every agent out: it is the owner's alone.
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Held for the life of the agent.
#[derive(Debug)]
pub struct Lock {
    file: std::fs::File,
    /// The agent before, if it did not end by itself; within this boot where the file is on a tmpfs.
    pub died: Option<String>,
}

#[derive(Debug)]
pub enum LockError {
    /// Another agent holds the directory; its pid, as far as the file tells.
    Held {
        holder: String,
    },
    Io(std::io::Error),
}

impl Lock {
    /// Takes the lock of `run_dir`, or says who has it.
    pub fn take(run_dir: &Path) -> Result<Self, LockError> {
        let path = run_dir.join("agent.lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd: OwnedFd = rustix::fs::open(&path, flags, MODE).map_err(|e| LockError::Io(e.into()))?;
        // Earlier versions made it for everybody. A file system without modes is no reason not to start.
        let _ = rustix::fs::fchmod(&fd, MODE);
        let mut file = std::fs::File::from(fd);
        if let Err(e) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if e != rustix::io::Errno::WOULDBLOCK {
                return Err(LockError::Io(e.into()));
            }
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(LockError::Held { holder: holder.trim().to_owned() });
        }
        let mut before = String::new();
        let _ = file.read_to_string(&mut before);
        let died = Some(before.trim().to_owned()).filter(|pid| !pid.is_empty());
        let mut name_us = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        // On a full disk the lock holds all the same.
        let _ = name_us();
        Ok(Self { file, died })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_lock_is_its_owners_alone_also_one_that_an_earlier_version_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent.lock");
        let mode = || std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        drop(Lock::take(dir.path()).expect("nobody holds it"));
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("rights can be set");
        drop(Lock::take(dir.path()).expect("nobody holds it"));
        assert_eq!(mode(), 0o600);
    }
}
