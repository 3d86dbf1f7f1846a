//! The agent's side of a shim's birth and death.
use super::leftovers::Main;
use super::protocol::{FromShim, LIFELINE_VAR, LOCK_VAR, Spec};
use super::{lock, sys};
use crate::privileges;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The pipe by which shims know that somebody wants their engines to live. Nothing is ever written to it: when the last
/// copy of `write` is closed, shims stop their engines by themselves.
#[derive(Debug)]
pub struct Lifeline {
    /// Handed to each shim.
    pub read: OwnedFd,
    pub write: OwnedFd,
}

/// Between two looks at a process that cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Most that is taken of a dead shim's standard error, in bytes.
const WORDS_MAX: usize = 16 * 1024;

impl Lifeline {
    /// Both ends are closed at exec; [`spawn`] lets the one through that is meant to.
    pub fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { read, write })
    }
}

/// A shim that was started. From here on it is treated as an adopted one is: the pidfd tells of its death, the socket
/// of everything else.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    /// `None` when it ended at once.
    pub process: Option<Main>,
    pub pidfd: OwnedFd,
    /// Its standard error.
    words: OwnedFd,
}

/// What a shim wrote before it died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastWords {
    /// It could not begin, and started no engine.
    NotBegun { errno: i32, message: String },
    /// Anything else: of a panic, of the dynamic loader. Mostly nothing.
    Text(String),
}

impl Spawned {
    /// What the shim wrote to standard error, for when it is dead. Only once.
    pub fn last_words(&self) -> LastWords {
        let (mut written, mut bytes) = (Vec::new(), [0; 4096]);
        while written.len() < WORDS_MAX {
            match rustix::io::read(&self.words, &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(len) => written.extend_from_slice(&bytes[..len]),
            }
        }
        last_words(&written)
    }
}

fn last_words(written: &[u8]) -> LastWords {
    let text = String::from_utf8_lossy(written);
    match text.lines().next_back().map(serde_json::from_str) {
        Some(Ok(FromShim::StartFailed { errno, message })) => LastWords::NotBegun { errno, message },
        _ => LastWords::Text(text.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

/// Starts the shim of a run from this very program, whatever lies at its path by now.
///
/// Call it from a thread that lives as long as the agent. The shim itself has no death signal, so that it may outlive
/// the agent one day; but a thread that ends is no place for a fork whose child is expected to stay.
///
/// # Errors
/// When the run's lock could not be had, or no process made: then none lives. That the engine could not be started comes as
/// `StartFailed` over the link.
pub fn spawn(spec: &Spec, lifeline: BorrowedFd<'_>) -> io::Result<Spawned> {
    spawn_as(Path::new("/proc/self/exe"), spec, lifeline)
}

/// [`spawn`], from another copy of the program.
pub fn spawn_as(program: &Path, spec: &Spec, lifeline: BorrowedFd<'_>) -> io::Result<Spawned> {
    // Dropped at the end of this function: from then on the shim alone holds it.
    let lock = lock::take(&spec.run_dir)?;
    // Neither end waits: what a shim writes there without measure is lost.
    let (words, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let mut command = Command::new(program);
    command.arg0("mainstay").args(["shim", &spec.tier]);
    command.env_clear().env(LIFELINE_VAR, lifeline.as_raw_fd().to_string());
    command.env(LOCK_VAR, lock.as_raw_fd().to_string());
    command.stdin(spec_file(spec)?).stdout(Stdio::null()).stderr(stderr);
    let inherited = [lifeline.as_raw_fd(), lock.as_raw_fd()];
    let become_shim = move || {
        // Away from the agent's terminal: Ctrl-C is for the agent, which then stops its engines in order.
        rustix::process::setsid()?;
        privileges::give_none_to_children()?;
        sys::seal_descriptors()?;
        inherited.into_iter().try_for_each(sys::let_through)
    };
    #[expect(unsafe_code, reason = "pre_exec")]
    // SAFETY: only system calls, no allocation and no lock, as is due in the child of a process with threads.
    unsafe {
        command.pre_exec(become_shim);
    }
    // The pidfd's place, and before that of a look at it: a shim that runs already and cannot be watched would have to be
    // killed.
    let place = lifeline.try_clone_to_owned()?;
    let mut child = command.spawn()?;
    drop(place);
    let pid = child.id();
    let seen = Main::of(pid).and_then(|process| {
        let pidfd = rustix::process::pidfd_open(raw_pid(pid)?, PidfdFlags::empty())?;
        Ok((process, pidfd))
    });
    match seen {
        Ok((process, pidfd)) => Ok(Spawned { pid, process, pidfd, words }),
        Err(why) => {
            // An error means that there is no shim, so there must be none: it may have started its engine already, which
            // then gets TERM from its death signal, and the lifeline's end from us.
            let _ = child.kill();
            let _ = child.wait();
            Err(why)
        }
    }
}

/// Returns when the process of this pidfd is gone, and reaps it if it is a child of ours. What this host lacks to watch it
/// with says nothing about the process: it is looked at now and then meanwhile, which needs nothing.
pub async fn gone(pidfd: BorrowedFd<'_>) {
    while watched(pidfd).await.is_err() && !is_gone(pidfd) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // An adopted shim is not our child, and a child may have been reaped by whoever reaps orphans: both are fine.
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

async fn watched(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    sys::watch(pidfd)?.readable().await?.retain_ready();
    Ok(())
}

fn is_gone(pidfd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
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
    fn only_a_shims_own_message_is_taken_for_one() {
        let text = |text: &str| LastWords::Text(text.to_owned());
        let failed = r#"{"type":"start_failed","errno":28,"message":"the shim cannot listen"}"#;
        let not_begun = LastWords::NotBegun { errno: 28, message: "the shim cannot listen".to_owned() };
        let cases = [
            ("", text("")),
            (failed, not_begun.clone()),
            (&format!("a warning of the loader\n{failed}\n"), not_begun),
            ("memory allocation of 64 bytes failed\n", text("memory allocation of 64 bytes failed")),
            (r#"{"type":"pong"}"#, text(r#"{"type":"pong"}"#)),
        ];
        for (written, expected) in cases {
            assert_eq!(last_words(written.as_bytes()), expected, "{written}");
        }
    }

    /// Before: an error of the watch counted as the shim's death.
    #[tokio::test]
    async fn a_process_that_cannot_be_watched_is_not_gone_before_it_is() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = rustix::process::pidfd_open(raw_pid(child.id()).unwrap(), PidfdFlags::empty()).unwrap();
        // The kernel refuses the same descriptor a second time.
        let _first = sys::watch(pidfd.as_fd()).unwrap();
        assert!(watched(pidfd.as_fd()).await.is_err(), "it cannot be watched");
        let looked = tokio::time::timeout(LOOK_AGAIN / 2, gone(pidfd.as_fd())).await;
        assert!(looked.is_err(), "it lives");
        child.kill().unwrap();
        gone(pidfd.as_fd()).await;
        assert!(child.wait().is_err(), "it is reaped");
    }

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
