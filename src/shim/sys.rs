//! The few system calls that need `unsafe`.
use crate::clock;
pub(super) use crate::descriptors::{inherited, let_through, seal_descriptors, watch};
use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Gives every signal its default disposition: ignored ones would be inherited through exec. Safe between fork and exec.
pub(super) fn default_dispositions() {
    // The kernel's own struct: handler SIG_DFL, no flags, no restorer, empty mask. libc's call would refuse the two
    // signals that it keeps for itself, but whoever started us may have ignored these too.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_LEN: usize = 8;
    for signal in 1..=64 {
        #[expect(unsafe_code, reason = "libc has no call for all of them")]
        // SAFETY: the pointer is to a constant that is at least as long as the struct of any architecture; SIG_DFL
        // installs no code of ours; KILL and STOP are refused with an error.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null::<u64>(),
                MASK_LEN,
            );
        }
    }
}

/// A child that has ended and is reaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reaped {
    pub pid: u32,
    pub raw: i32,
    pub user: Duration,
    pub system: Duration,
    pub max_rss_bytes: u64,
}

/// Reaps one child that has ended, if there is one. waitid(2) would not tell what it used.
pub(super) fn reap_one() -> Option<Reaped> {
    let mut raw = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(
        unsafe_code,
        reason = "no safe wrapper offers wait4, the only call that tells one child's usage"
    )]
    // SAFETY: both pointers are to memory of ours that outlives the call; all zeroes is a valid rusage.
    let (pid, usage) = unsafe {
        let pid = libc::wait4(-1, &mut raw, libc::WNOHANG, usage.as_mut_ptr());
        (pid, usage.assume_init())
    };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let duration = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1_000);
    Some(Reaped {
        pid,
        raw,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss_bytes: usage.ru_maxrss as u64 * 1024,
    })
}

/// Does `work` in a child, and gives its pid and the pipe on which it writes. The child can be left behind when it hangs.
/// Only for a process with one thread, as the shim is: a fork of one with more could not even allocate.
pub(super) fn apart(work: impl FnOnce(&mut dyn Write)) -> io::Result<(u32, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    #[expect(unsafe_code, reason = "fork")]
    // SAFETY: the shim has one thread, so the child owns a whole and consistent copy of the process.
    let forked = unsafe { nix::unistd::fork() }?;
    match forked {
        nix::unistd::ForkResult::Parent { child } => Ok((child.as_raw().unsigned_abs(), read)),
        nix::unistd::ForkResult::Child => child_of_fork(work, write),
    }
}

/// [`apart`], waiting for the answer, but not for long. The pid instead: the child hangs and was left behind.
pub(super) fn apart_within(
    limit: Duration,
    work: impl FnOnce(&mut dyn Write),
) -> io::Result<Result<String, u32>> {
    let (pid, pipe) = apart(work)?;
    let deadline = clock::now() + limit;
    let (mut answer, mut bytes) = (Vec::new(), [0; 1024]);
    loop {
        let left = deadline.since(clock::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(Err(pid)),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        match rustix::io::read(&pipe, &mut bytes)? {
            0 => return Ok(Ok(String::from_utf8_lossy(&answer).into_owned())),
            len => answer.extend_from_slice(&bytes[..len]),
        }
    }
}

/// Must not return: the shim's loop would go on twice.
fn child_of_fork(work: impl FnOnce(&mut dyn Write), answer: OwnedFd) -> ! {
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
        // As standard output the pipe survives the closing of all else: a child that hangs must not keep the shim's
        // socket, lifeline or log pipes open.
        if nix::unistd::dup2_stdout(&answer).is_ok() {
            close_all_but_standard();
            let mut out = io::stdout().lock();
            work(&mut out);
            let _ = out.flush();
        }
    }));
    #[expect(unsafe_code, reason = "exit(3) would run what the shim registered, a second time")]
    // SAFETY: ends the process at once; nothing of it is used after.
    unsafe {
        libc::_exit(i32::from(worked.is_err()))
    }
}

/// Where the call is not to be had the work is done all the same; only a hanging child would then be noticed later.
fn close_all_but_standard() {
    #[expect(unsafe_code, reason = "no safe wrapper offers close_range")]
    // SAFETY: the child of a fork that ends in _exit; no owner of a closed descriptor is ever used or dropped.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32);
    }
}
