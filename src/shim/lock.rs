//! How a shim is known to live before it can say so: a flock(2) on a file of its run, which the agent takes before it
//! starts the shim and which the shim inherits. The kernel keeps it for as long as one of them has the file open, so it can
//! neither be stale nor be missed: who finds it free knows that no shim of this run lives, and none begins.
use super::leftovers::Main;
use super::protocol::LOCK;
use super::tree::pids;
use crate::shortage;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Takes the lock of a run that is about to begin, and makes the run's directory where it is not there.
pub(super) fn take(run_dir: &Path) -> io::Result<OwnedFd> {
    DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(run_dir.join(LOCK), flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|why| match why {
        // By its number it would be taken for a limit of processes.
        Errno::WOULDBLOCK => io::Error::new(io::ErrorKind::ResourceBusy, "a shim of this run lives already"),
        why => why.into(),
    })?;
    Ok(file)
}

/// Does a shim of this run live, or is one being started? `None` when the run has no such file: it never came so far, or an
/// older version, which had none, started it. While it cannot be looked at, it counts as held.
pub fn is_held(run_dir: &Path) -> Option<bool> {
    match rustix::fs::open(run_dir.join(LOCK), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Some(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()),
        Err(Errno::NOENT) => None,
        Err(_) => Some(true),
    }
}

/// Who has the lock of this run: its shim, and perhaps a child of it that is not an engine yet. Looks at the descriptors of
/// every process, so call it where waiting does no harm.
///
/// # Errors
/// When this process lacks descriptors or memory to look.
pub fn holders(run_dir: &Path) -> io::Result<Vec<Main>> {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let looked = shortage::seen(fs::metadata(run_dir.join(LOCK)).map(identity))?;
    let Some(lock) = looked else { return Ok(Vec::new()) };
    let is_lock = |link: &Path| -> io::Result<bool> {
        // Only a file of that name is asked what it is: on somebody else's file system that may hang.
        let target = fs::read_link(link)?;
        Ok(target.file_name().is_some_and(|name| name == LOCK) && fs::metadata(link).map(identity)? == lock)
    };
    let mut holders = Vec::new();
    for pid in pids()?.into_iter().filter(|pid| *pid != std::process::id()) {
        for entry in shortage::seen(fs::read_dir(format!("/proc/{pid}/fd")))?.into_iter().flatten() {
            if shortage::seen(entry.and_then(|entry| is_lock(&entry.path())))? == Some(true) {
                holders.extend(Main::of(pid)?);
                break;
            }
        }
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The children that other tests start have copies of all descriptors until their exec.
    fn is_soon(condition: impl Fn() -> bool) -> bool {
        (0..10_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            condition()
        })
    }

    #[test]
    fn it_is_held_for_as_long_as_anybody_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        assert_eq!(is_held(&run), None, "no run has begun");
        let lock = take(&run).unwrap();
        let inherited = lock.try_clone().unwrap();
        drop(lock);
        assert_eq!(is_held(&run), Some(true));
        let why = take(&run).expect_err("nobody begins the same run twice");
        assert_eq!(shortage::of_a_start(&why), None, "this host lacks nothing");
        drop(inherited);
        assert!(is_soon(|| is_held(&run) == Some(false)));
        assert_eq!(is_held(&run), Some(false), "looking does not take it");
    }

    #[test]
    fn its_holder_is_found_by_the_file_and_not_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let [run, another] = ["run", "another"].map(|name| dir.path().join(name));
        let sleeper = |lock: &OwnedFd| {
            let mut sleep = std::process::Command::new("sleep");
            sleep.arg("60").stdin(lock.try_clone().unwrap()).spawn().unwrap()
        };
        let mut children = [&run, &another].map(|run| sleeper(&take(run).unwrap()));
        let holder = Main::of(children[0].id()).unwrap().unwrap();
        assert!(is_soon(|| holders(&run).unwrap() == [holder]));
        for child in &mut children {
            child.kill().and_then(|()| child.wait()).unwrap();
        }
        assert!(is_soon(|| holders(&run).unwrap().is_empty()));
    }
}
