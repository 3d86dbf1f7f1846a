//! Reaps every child: shims, and whatever is re-parented to the agent because it is a subreaper or PID 1 of a container.
//!
//! Nothing else in the agent waits for a process: shims are known by their socket, so no exit status is lost here.
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::time::Duration;

/// Makes orphans of a dead shim come to the agent instead of to PID 1.
pub fn become_subreaper() -> std::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// How often it is looked whether the last child is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until no child is left, for `limit` at most: shims leave on their own right after their runs have ended, and
/// systemd would take one that outlives the agent for something to be killed.
pub async fn alone(limit: Duration) {
    let last_child = async {
        loop {
            reap();
            if waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT).is_err() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let _ = tokio::time::timeout(limit, last_child).await;
}

/// Reaps all children that have ended. To be called on every SIGCHLD; signals merge, hence the loop.
pub fn reap() -> usize {
    let mut reaped = 0;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return reaped,
            Ok(_) => reaped += 1,
        }
    }
}
