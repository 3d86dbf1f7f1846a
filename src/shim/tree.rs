//! The processes of a run, by descent. The shim (like the agent) is a subreaper, so whatever the engine starts stays
//! below it, through double forks and new sessions. Reads /proc/PID/stat only: unlike cmdline, environ and maps it takes
//! no lock of the process looked at, and cannot hang on one that hangs in a driver.
use crate::shortage;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::{self, Read};

/// What /proc/PID/stat tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: u32,
    pub comm: String,
    pub parent: u32,
    pub session: u32,
    /// In clock ticks since boot. With the pid it names a process beyond doubt.
    pub started: u64,
    /// The kernel's letter for what it does.
    pub state: char,
    /// It is not a mere entry that waits to be reaped.
    pub alive: bool,
}

impl Process {
    /// `None` when there is no such process (any more). An error when it could not be looked at, for want of descriptors or
    /// memory.
    pub fn find(pid: u32) -> io::Result<Option<Self>> {
        let mut bytes = [0; 1024];
        let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut stat| stat.read(&mut bytes));
        Ok(shortage::seen(read)?.and_then(|len| Self::parse(pid, &bytes[..len])))
    }

    fn parse(pid: u32, stat: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(stat);
        // The name is in parentheses and may hold any character, parentheses and spaces too.
        let (head, tail) = text.rsplit_once(')')?;
        let comm = head.split_once('(')?.1.to_owned();
        let field: Vec<&str> = tail.split_ascii_whitespace().collect();
        let number = |place: usize| field.get(place).and_then(|f| f.parse::<u64>().ok());
        // A main thread that left before the others looks like a zombie too; the process still lives.
        let state = field.first()?.chars().next()?;
        let dead = matches!(state, 'Z' | 'X' | 'x') && number(17)? <= 1;
        Some(Self {
            pid,
            comm,
            parent: number(1)? as u32,
            session: number(3)? as u32,
            started: number(19)?,
            state,
            alive: !dead,
        })
    }

    /// This very process lives, and not just one that got its pid since.
    pub fn is_still_there(&self) -> io::Result<bool> {
        Ok(Self::find(self.pid)?.is_some_and(|now| now.alive && now.started == self.started))
    }

    /// Sends KILL to this very process, and to none that got its pid since. An error when it was sent none, for want of a
    /// descriptor.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let Some(pidfd) = shortage::seen(pidfd)? else { return Ok(()) };
        if Self::find(self.pid)?.is_some_and(|now| now.started == self.started) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        Ok(())
    }
}

/// Every pid in /proc, without order. All or an error.
pub(super) fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Everything alive below `root`, `root` itself left out, in order of pid. `except` and what is below it is left out.
pub(super) fn descendants(root: u32, except: &[u32]) -> io::Result<Vec<Process>> {
    // Pairs of numbers first, whole entries only for what is ours: a host may have ten thousand processes.
    let mut pairs = Vec::new();
    for pid in pids()? {
        pairs.extend(Process::find(pid)?.map(|process| (pid, process.parent)));
    }
    let mut found = Vec::new();
    for pid in below(root, except, &pairs) {
        found.extend(Process::find(pid)?.filter(|process| process.alive));
    }
    Ok(found)
}

fn below(root: u32, except: &[u32], pairs: &[(u32, u32)]) -> Vec<u32> {
    let mut family = vec![root];
    let mut looked_at = 0;
    while let Some(parent) = family.get(looked_at).copied() {
        looked_at += 1;
        for (pid, of) in pairs {
            if *of == parent && !except.contains(pid) && !family.contains(pid) {
                family.push(*pid);
            }
        }
    }
    family.remove(0);
    family.sort_unstable();
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_fake_the_fields_behind_it() {
        let stat = b"7 (a) S 1 (b)) R 5 7 3 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2";
        let process = Process::parse(7, stat).unwrap();
        let expected = Process {
            pid: 7,
            comm: "a) S 1 (b)".to_owned(),
            parent: 5,
            session: 3,
            started: 777,
            state: 'R',
            alive: true,
        };
        assert_eq!(process, expected);
        for broken in [&b""[..], b"7", b"7 (x", b"7 (x) S", b"7 (x) S 1 2 x"] {
            assert_eq!(Process::parse(7, broken), None);
        }
    }

    #[test]
    fn a_zombie_is_not_alive_unless_other_threads_are() {
        let stat = |threads: u32| format!("7 (x) Z 5 7 3 0 -1 4 1 2 3 4 5 6 7 8 20 0 {threads} 0 777 1 2");
        assert!(!Process::parse(7, stat(1).as_bytes()).unwrap().alive);
        assert!(Process::parse(7, stat(2).as_bytes()).unwrap().alive);
    }

    #[test]
    fn descent_goes_through_every_generation_and_around_exceptions() {
        let pairs = [(9, 1), (5, 4), (4, 2), (3, 2), (2, 1), (8, 7), (7, 2), (6, 9)];
        let cases: &[(u32, &[u32], &[u32])] =
            &[(2, &[], &[3, 4, 5, 7, 8]), (2, &[7], &[3, 4, 5]), (1, &[2], &[6, 9]), (8, &[], &[])];
        for (root, except, expected) in cases {
            assert_eq!(below(*root, except, &pairs), *expected);
        }
    }

    #[test]
    fn this_process_is_read_as_it_is() {
        let me = Process::find(std::process::id()).unwrap().unwrap();
        assert!(me.alive && me.started > 0);
        assert_eq!(Some(me.parent as i32), rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()));
    }
}
