//! The cgroup of one run, where there can be one (cgroup v2, and somebody delegated it to us). It holds the engine only,
//! and makes two things sure that a walk over processes only makes likely: killing all at once, and knowing all.
use crate::shortage;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct RunCgroup {
    path: PathBuf,
    /// Open for the engine's process to join by, between fork and exec.
    procs: File,
}

impl RunCgroup {
    /// Makes the directory and proves that it is a cgroup that one may join.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        match std::fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        match OpenOptions::new().write(true).open(path.join("cgroup.procs")) {
            Ok(procs) => Ok(Self { path, procs }),
            Err(e) => {
                let _ = std::fs::remove_dir(&path);
                Err(e)
            }
        }
    }

    /// The way in, for a process to take between fork and exec.
    pub fn joiner(&self) -> io::Result<Joiner> {
        Ok(Joiner(self.procs.try_clone()?))
    }

    /// KILL to every member at once. Kernels before 5.14 cannot: then the walk has to do. An error when there was none, for
    /// want of a descriptor.
    pub fn kill(&self) -> io::Result<()> {
        // Without truncate(2): the file is the kernel's.
        let kill = OpenOptions::new().write(true).open(self.path.join("cgroup.kill"));
        shortage::seen(kill.and_then(|mut file| file.write_all(b"1"))).map(drop)
    }

    /// The pids of its members, zombies left out as the kernel does. An error when it could not be looked at.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        let read = std::fs::read_to_string(self.path.join("cgroup.procs"));
        let text = shortage::seen(read)?.unwrap_or_default();
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Removes it once it is empty.
    pub fn remove(&self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[derive(Debug)]
pub(super) struct Joiner(File);

impl Joiner {
    /// Moves the calling process into the cgroup.
    pub fn join(&self) -> io::Result<()> {
        (&self.0).write_all(b"0")
    }
}
