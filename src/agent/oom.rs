//! What the kernel says when it killed a process of ours for memory: the counter of the unit's cgroup, and the kernel log
//! where it may be read. What it means for a run is decided in `kinds`.
use crate::clock;
use crate::kinds;
use crate::policy::Moment;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KERNEL_LOG: &str = "/dev/kmsg";
/// The longest record that the kernel hands out.
const RECORD_MAX: usize = 8192;
/// A process that was killed longer ago than this has nothing to do with an end of now: a run may outlive its workers.
const RECENT: Duration = Duration::from_secs(60);
/// How many records of one run's time are read: more than the kernel's buffer usually holds.
const RECORDS_MAX: usize = 20_000;

/// The unit's counter of kills. One for all runs, so that a kill which explained one end explains no other.
#[derive(Debug, Default)]
pub struct Kills {
    events: Option<PathBuf>,
    /// As far as the counter has been used to explain ends.
    used: Cell<u64>,
}

/// Where kernel log and counter stood when a run began.
#[derive(Debug)]
pub struct Since {
    kills: Option<u64>,
    log: Option<File>,
}

impl Kills {
    /// Of the cgroup that this process lives in, and its engines with it (cgroup v2).
    pub fn of_own_cgroup() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = own.lines().find_map(|line| line.strip_prefix("0::"));
        let dir = path.map(|path| Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')));
        dir.map_or_else(Self::default, |dir| Self::of(&dir))
    }

    /// Of the cgroup at `dir`.
    pub fn of(dir: &Path) -> Self {
        Self { events: Some(dir.join("memory.events")), used: Cell::new(0) }
    }

    /// Remembers how things stand before a run.
    pub fn begin(&self) -> Since {
        Since { kills: self.count(), log: end_of_log(Path::new(KERNEL_LOG)) }
    }

    /// What the counter says about an end between `since` and now; no later end is explained by the same kills.
    pub fn rise(&self, since: &Since) -> Option<String> {
        let now = self.count()?;
        let rose = kinds::kills_rose(since.kills?.max(self.used.get()), now);
        self.used.set(now);
        rose
    }

    fn count(&self) -> Option<u64> {
        let text = fs::read_to_string(self.events.as_ref()?).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }
}

impl Since {
    /// The kernel log's own word about the end of this process, or of one in this cgroup. Never waits, but reads as many
    /// records as there are: not for the loop's thread.
    pub fn kernels_word(self, pid: u32, cgroup: Option<&str>) -> Option<String> {
        let mut log = self.log?;
        let records = kills_of_processes(|buffer| log.read(buffer), clock::awake().back(RECENT));
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        kinds::killed_by_kernel(&records, pid, cgroup).map(str::to_owned)
    }
}

/// The log from here on. `None` where there is none or it may not be read (no CAP_SYSLOG).
fn end_of_log(path: &Path) -> Option<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let mut log = File::options().read(true).custom_flags(nonblocking).open(path).ok()?;
    log.seek(SeekFrom::End(0)).ok()?;
    Some(log)
}

/// The messages of those records that speak of the OOM killer. Each read gives one record.
fn kills_of_processes(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>, since: Moment) -> Vec<String> {
    let mut found = Vec::new();
    let mut buffer = vec![0_u8; RECORD_MAX];
    for _ in 0..RECORDS_MAX {
        match read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => found.extend(message(&buffer[..length], since).filter(|said| is_of_interest(said))),
            // Records were overwritten before they were read; or the call was interrupted. The next one goes on.
            Err(why) if matches!(why.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    found
}

fn is_of_interest(message: &str) -> bool {
    message.contains("oom-kill:") || message.contains("Killed process ")
}

/// `6,1234,5678901,-;message` and further lines about the device; the third figure is its time, in microseconds since boot.
/// `None` where it is older than `since`.
fn message(record: &[u8], since: Moment) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let (head, message) = text.split_once(';')?;
    // What has no time may be of now.
    let at = head.split(',').nth(2).and_then(|us| us.parse::<u64>().ok());
    if at.is_some_and(|us| Moment::from_nanos(us.saturating_mul(1_000)) < since) {
        return None;
    }
    Some(message.lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(dir: &Path, kills: u64) {
        let text = format!("low 0\nhigh 0\nmax 7\noom 1\noom_kill {kills}\noom_group_kill 0\n");
        fs::write(dir.join("memory.events"), text).unwrap();
    }

    #[test]
    fn a_rise_explains_one_end_only() {
        let dir = tempfile::tempdir().unwrap();
        counter(dir.path(), 3);
        let kills = Kills::of(dir.path());
        let (first, second) = (kills.begin(), kills.begin());
        assert_eq!(kills.rise(&first), None);
        counter(dir.path(), 4);
        assert_eq!(kills.rise(&first).as_deref(), Some("memory.events: oom_kill 3 → 4"));
        assert_eq!(kills.rise(&second), None, "that kill was the other's");
        counter(dir.path(), 5);
        assert_eq!(kills.rise(&second).as_deref(), Some("memory.events: oom_kill 4 → 5"));
    }

    #[test]
    fn without_a_counter_nothing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let kills = Kills::of(dir.path());
        let since = kills.begin();
        counter(dir.path(), 9);
        assert_eq!(kills.rise(&since), None, "how it stood before is not known");
        let nowhere = Kills::default();
        assert_eq!(nowhere.rise(&nowhere.begin()), None);
    }

    #[test]
    fn records_are_read_until_there_are_none() {
        let mut said = vec![
            Err(ErrorKind::WouldBlock),
            Ok("4,13,99,-;Memory cgroup out of memory: Killed process 4711 (llama-server) total-vm:1kB\n"),
            Err(ErrorKind::BrokenPipe),
            Ok("6,12,98,-;usb 1-1: new device\n SUBSYSTEM=usb\n"),
            Ok(
                "4,11,49,-;Memory cgroup out of memory: Killed process 4710 (of a run that lived on) total-vm:1kB\n",
            ),
            Ok("garbage"),
        ];
        let read = |buffer: &mut [u8]| match said.pop() {
            Some(Ok(text)) => {
                buffer[..text.len()].copy_from_slice(text.as_bytes());
                Ok(text.len())
            }
            Some(Err(kind)) => Err(kind.into()),
            None => panic!("read on although nothing is there"),
        };
        let found = kills_of_processes(read, Moment::from_nanos(50_000));
        assert_eq!(found, ["Memory cgroup out of memory: Killed process 4711 (llama-server) total-vm:1kB"]);
    }
}
