//! A process that survives SIGKILL, as one does that is stuck in the driver. No user can make such a process, but a tracer
//! can: a traced one stops on its way out, and stays there until it is let go.
use nix::libc;

/// Holds a process back from ending. For the thread that made it only.
pub struct Hold(libc::pid_t);

impl Hold {
    pub fn on(pid: u32) -> Self {
        let pid = libc::pid_t::try_from(pid).expect("a pid");
        let none = std::ptr::null_mut::<libc::c_void>();
        #[expect(unsafe_code, reason = "ptrace")]
        // SAFETY: the request takes a pid and flags; no memory is touched.
        let held = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, libc::PTRACE_O_TRACEEXIT as usize) };
        assert_eq!(held, 0, "cannot trace {pid}: {}", std::io::Error::last_os_error());
        Self(pid)
    }

    /// It stands on the threshold: it was killed, and is not gone. Now it goes.
    pub fn let_go(self) {
        let mut status = 0;
        #[expect(unsafe_code, reason = "ptrace")]
        // SAFETY: the pointer is to memory of ours that outlives the call.
        let stopped = unsafe { libc::waitpid(self.0, &mut status, libc::__WALL) };
        assert_eq!(stopped, self.0);
    }
}

/// Also in a test that fails: what is held back would hold up everybody who waits for its end.
impl Drop for Hold {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        #[expect(unsafe_code, reason = "ptrace")]
        // SAFETY: the call takes numbers only.
        unsafe {
            libc::ptrace(libc::PTRACE_DETACH, self.0, none, none);
        }
    }
}
