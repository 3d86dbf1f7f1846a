//! The probe's process as the agent sees it: a pidfd and a socket. It is never waited for here: the agent has one reaper.
use super::protocol::{LINE_MAX, PROTO, Question};
use crate::descriptors::{seal_descriptors, watch};
use crate::privileges;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// Bytes taken from the socket at a time.
const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pidfd: OwnedFd,
    /// `None` once nothing is to be heard of it any more.
    socket: Option<UnixStream>,
    /// The beginning of a line.
    begun: Vec<u8>,
}

/// What there is to know of it.
#[derive(Debug)]
pub(super) enum News {
    Line(Vec<u8>),
    /// More than a line may have, without an end.
    Endless,
    /// It is gone, or is a zombie.
    Ended,
}

impl Process {
    /// Starts a probe from this very program, whatever lies at its path by now, with `env` as its whole environment.
    /// It dies with the thread that calls this.
    pub(super) fn spawn(env: &[(OsString, OsString)]) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The probe's side waits for questions.
        rustix::io::ioctl_fionbio(&theirs, false)?;
        let socket = UnixStream::from_std(ours.into())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("mainstay").arg("gpu-probe").env_clear().envs(env.iter().map(|(k, v)| (k, v)));
        // What the driver's library prints goes nowhere it could do harm; a panic's message to the agent's own place.
        command.stdin(theirs).stdout(Stdio::null());
        let become_probe = || {
            // Ctrl-C is for the agent.
            rustix::process::setsid()?;
            privileges::give_none_to_children()?;
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            seal_descriptors()
        };
        #[expect(unsafe_code, reason = "pre_exec")]
        // SAFETY: only system calls, no allocation and no lock, as is due in the child of a process with threads.
        unsafe {
            command.pre_exec(become_probe);
        }
        let mut child = command.spawn()?;
        let pid = child.id();
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, pidfd, socket: Some(socket), begun: Vec::new() }),
            Err(why) => {
                let _ = child.kill();
                Err(why.into())
            }
        }
    }

    /// Asks. One question is open at a time and it is short, so there is room for it; where there is none, or nobody
    /// listens, no answer will come, which is noticed.
    pub(super) fn ask(&self, number: u64) {
        let question = serde_json::to_vec(&Question { proto: PROTO, ask: number });
        if let (Some(socket), Ok(mut line)) = (&self.socket, question) {
            line.push(b'\n');
            let _ = rustix::net::send(socket, &line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    /// Sends SIGKILL, and listens no more.
    pub(super) fn kill(&mut self) {
        self.deafen();
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn deafen(&mut self) {
        self.socket = None;
        self.begun = Vec::new();
    }

    /// The next thing to know. Nothing is lost when the future is dropped.
    pub(super) async fn news(&mut self) -> io::Result<News> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let rest = self.begun.split_off(end + 1);
                let line = std::mem::replace(&mut self.begun, rest);
                return Ok(News::Line(line));
            }
            if self.begun.len() > LINE_MAX {
                self.deafen();
                return Ok(News::Endless);
            }
            let Self { pidfd, socket, begun, .. } = &mut *self;
            let gone = watch(pidfd.as_fd())?;
            let Some(socket) = socket else {
                gone.readable().await?.retain_ready();
                return Ok(News::Ended);
            };
            // Last words come before the end.
            let closed = tokio::select! {
                biased;
                read = read_some(socket, begun) => !matches!(read, Ok(1..)),
                ready = gone.readable() => {
                    ready?.retain_ready();
                    return Ok(News::Ended);
                }
            };
            drop(gone);
            if closed {
                self.deafen();
            }
        }
    }

    /// Returns when it is gone.
    pub(super) async fn gone(&self) -> io::Result<()> {
        watch(self.pidfd.as_fd())?.readable().await?.retain_ready();
        Ok(())
    }
}

async fn read_some(socket: &mut UnixStream, into: &mut Vec<u8>) -> io::Result<usize> {
    into.reserve(CHUNK);
    socket.read_buf(into).await
}
