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
/// systemd would take one that outlives the agent for something to be killed. `left_behind` is not waited for: nothing
/// ends it.
pub async fn alone(limit: Duration, left_behind: Option<u32>) {
    let last_child = async {
        loop {
            reap();
            if waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT).is_err() {
                return;
            }
            if left_behind.is_some_and(|pid| !has_children_but(pid)) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let _ = tokio::time::timeout(limit, last_child).await;
}

/// Does the agent have another child than this one? The kernel has no such question, so all processes are looked at; it
/// is asked only when something cannot be ended.
fn has_children_but(left_behind: u32) -> bool {
    let own = std::process::id().to_string();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    others.filter(|pid| *pid != left_behind).any(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "pid (name) state ppid …", where the name may hold anything.
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(own.as_str())
    })
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
