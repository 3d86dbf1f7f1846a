//! What descriptors do at an exec, how a task waits for one, and whether there are any left.
use crate::shortage::{self, Shortage};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use tokio::io::unix::AsyncFd;

/// Makes every descriptor from 3 up close at the next exec, whoever opened it. Safe between fork and exec.
pub fn seal_descriptors() -> io::Result<()> {
    const FIRST: u32 = 3;
    #[expect(unsafe_code, reason = "no safe wrapper offers close_range")]
    // SAFETY: takes numbers only, and changes nothing but a flag of each descriptor.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 {
        return Ok(());
    }
    // Kernels before 5.11, and containers whose seccomp profile is older than the call.
    for fd in FIRST as i32..65_536 {
        set_close_on_exec(fd, true);
    }
    Ok(())
}

/// Takes over a descriptor that was inherited under this number; `None` when there is none.
pub fn inherited(fd: RawFd) -> Option<OwnedFd> {
    if fd < 3 || !set_close_on_exec(fd, true) {
        return None;
    }
    #[expect(unsafe_code, reason = "a number becomes an owned descriptor")]
    // SAFETY: it is open, and as whoever started us meant it for this one use, nobody else here owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets one descriptor through the next exec. Safe between fork and exec.
pub fn let_through(fd: RawFd) -> io::Result<()> {
    if set_close_on_exec(fd, false) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_close_on_exec(fd: RawFd, on: bool) -> bool {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    #[expect(unsafe_code, reason = "the number may name no descriptor, which only the raw call can say")]
    // SAFETY: takes numbers only; a number that names no descriptor is answered with an error.
    unsafe {
        libc::fcntl(fd, libc::F_SETFD, flags) == 0
    }
}

/// Makes a descriptor one that a tokio task can wait for.
pub fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    #[expect(unsafe_code, reason = "tokio has no safe way any more")]
    // SAFETY: the borrow keeps the descriptor open and the same for as long as the AsyncFd lives.
    let watched = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
    Ok(watched?)
}

/// How many this process may have open.
pub fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// The part that one of many purposes may take of them, where `most` would do with any limit.
pub fn share(limit: u64, most: u64) -> u64 {
    const ONE_IN: u64 = 32;
    (limit / ONE_IN).clamp(1, most)
}

/// Why no socket can be had at all just now, where that is so. A resolver that gets none says only that it does not know
/// the name.
pub fn used_up() -> Option<Shortage> {
    shortage::of(&tokio::net::TcpSocket::new_v4().err()?)
}
