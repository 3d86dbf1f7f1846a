//! The agent's side of a shim's birth and death.
use super::protocol::{LIFELINE_VAR, Spec};
use super::sys;
use crate::privileges;
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The pipe by which shims know that somebody wants their engines to live. Nothing is ever written to it: when the last
/// copy of `write` is closed, shims stop their engines by themselves.
#[derive(Debug)]
pub struct Lifeline {
    /// Handed to each shim.
    pub read: OwnedFd,
    pub write: OwnedFd,
}

impl Lifeline {
    /// Both ends are closed at exec; [`spawn`] lets the one through that is meant to.
    pub fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Self { read, write })
    }
}

/// A shim that was started. From here on it is treated as an adopted one is: the pidfd tells of its death, the socket
/// of everything else.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Starts the shim of a run from this very program, whatever lies at its path by now.
///
/// Call it from a thread that lives as long as the agent. The shim itself has no death signal, so that it may outlive
/// the agent one day; but a thread that ends is no place for a fork whose child is expected to stay.
///
/// # Errors
/// When no process could be made. That the engine could not be started comes as `StartFailed` over the link.
pub fn spawn(spec: &Spec, lifeline: BorrowedFd<'_>) -> io::Result<Spawned> {
    spawn_as(Path::new("/proc/self/exe"), spec, lifeline)
}

/// [`spawn`], from another copy of the program.
pub fn spawn_as(program: &Path, spec: &Spec, lifeline: BorrowedFd<'_>) -> io::Result<Spawned> {
    let mut command = Command::new(program);
    command.arg0("mainstay").args(["shim", &spec.tier]);
    command.env_clear().env(LIFELINE_VAR, lifeline.as_raw_fd().to_string());
    // Standard error stays the agent's: there a shim tells why it could not even begin.
    command.stdin(spec_file(spec)?).stdout(Stdio::null());
    let (lifeline_end, lifeline) = (lifeline, lifeline.as_raw_fd());
    let become_shim = move || {
        // Away from the agent's terminal: Ctrl-C is for the agent, which then stops its engines in order.
        rustix::process::setsid()?;
        privileges::give_none_to_children()?;
        sys::seal_descriptors()?;
        sys::let_through(lifeline)
    };
    #[expect(unsafe_code, reason = "pre_exec")]
    // SAFETY: only system calls, no allocation and no lock, as is due in the child of a process with threads.
    unsafe {
        command.pre_exec(become_shim);
    }
    // The pidfd's place: a shim that runs already and cannot be watched would have to be killed.
    let place = lifeline_end.try_clone_to_owned()?;
    let mut child = command.spawn()?;
    drop(place);
    let pid = child.id();
    match rustix::process::pidfd_open(raw_pid(pid)?, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Spawned { pid, pidfd }),
        Err(why) => {
            // An error means that there is no shim, so there must be none: it may have started its engine already, which
            // then gets TERM from its death signal, and the lifeline's end from us.
            let _ = child.kill();
            let _ = child.wait();
            Err(why.into())
        }
    }
}

/// Returns when the process of this pidfd is gone, and reaps it if it is a child of ours.
pub async fn gone(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    sys::watch(pidfd)?.readable().await?.retain_ready();
    // An adopted shim is not our child, and a child may have been reaped by whoever reaps orphans: both are fine.
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    Ok(())
}

/// The spec as a file that has no name, and no copy once the shim has read it.
fn spec_file(spec: &Spec) -> io::Result<Stdio> {
    let mut file = File::from(rustix::fs::memfd_create("mainstay-spec", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(spec)?)?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file.into())
}

fn raw_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_lifeline_ends_with_its_last_write_end() {
        let Lifeline { read, write } = Lifeline::new().unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        let copy = write.try_clone().unwrap();
        drop(write);
        assert_eq!(rustix::io::read(read.as_fd(), &mut [0; 1]), Err(rustix::io::Errno::AGAIN));
        drop(copy);
        assert_eq!(rustix::io::read(read.as_fd(), &mut [0; 1]), Ok(0));
    }
}
