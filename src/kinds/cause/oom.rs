//! What the kernel says about memory that ran out, and when that explains an end.
use super::entry::{Entry, Weight};
use crate::policy::{Cause, Exit};

/// The record of the kernel log that says this run lost a process to the OOM killer: one that names its main process,
/// or its cgroup.
///
/// `records` are messages without their header; `cgroup` is the last part of the path of the run's own cgroup, if it
/// has one.
pub fn killed_by_kernel<'a>(records: &[&'a str], pid: u32, cgroup: Option<&str>) -> Option<&'a str> {
    let of_ours = |record: &&&str| {
        let victim = number_after(record, "Killed process ").or_else(|| number_after(record, ",pid="));
        let in_ours = cgroup.is_some_and(|name| {
            value(record, "task_memcg=").is_some_and(|path| path.split('/').any(|part| part == name))
        });
        speaks_of_a_kill(record) && (victim == Some(pid) || in_ours)
    };
    // A kill is told in several records; the one for people says how much memory the victim had.
    let about = |record: &&&str| record.contains("Killed process ");
    let victim = records.iter().find(of_ours)?;
    let pid = number_after(victim, "Killed process ").or_else(|| number_after(victim, ",pid="));
    let told = records.iter().filter(about).find(|record| number_after(record, "Killed process ") == pid);
    Some(told.unwrap_or(victim))
}

/// What a rise of a cgroup's counter says; `None` when it did not rise.
pub fn kills_rose(before: u64, after: u64) -> Option<String> {
    (after > before).then(|| format!("memory.events: oom_kill {before} → {after}"))
}

/// Does the kernel's word explain this end? A process that was killed says nothing more, so whatever names another
/// cause must be stronger than a notice of the death.
pub(super) fn explains(exit: Option<Exit>, found: Option<&Entry>) -> bool {
    let killed = matches!(exit, Some(Exit::Signal(9) | Exit::Code(137)));
    match found {
        Some(entry) if entry.weight == Weight::Decisive => entry.cause == Cause::HostOom,
        Some(entry) => killed || entry.weight >= Weight::Consequence,
        None => killed,
    }
}

fn speaks_of_a_kill(record: &str) -> bool {
    record.contains("Killed process ") || record.starts_with("oom-kill:")
}

fn value<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.split_once(key)?.1.split([',', ' ']).next()
}

fn number_after(record: &str, key: &str) -> Option<u32> {
    let digits = record.split_once(key)?.1;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: &str = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
        oom_memcg=/system.slice/mainstay.service,task_memcg=/system.slice/mainstay.service/run-cpu-3,\
        task=llama-server,pid=4711,uid=998";
    const KILLED: &str =
        "Memory cgroup out of memory: Killed process 4711 (llama-server) total-vm:1kB, UID:998";

    #[test]
    fn a_kill_is_ours_by_process_or_by_cgroup() {
        let records = ["usb 1-1: new device", NOTICE, KILLED];
        assert_eq!(killed_by_kernel(&records, 4711, None), Some(KILLED));
        assert_eq!(killed_by_kernel(&records, 1, Some("run-cpu-3")), Some(KILLED));
        assert_eq!(killed_by_kernel(&records[..2], 1, Some("run-cpu-3")), Some(NOTICE));
        assert_eq!(killed_by_kernel(&records, 471, None), None);
        assert_eq!(killed_by_kernel(&records, 1, Some("run-cpu-33")), None);
        assert_eq!(killed_by_kernel(&records, 1, Some("mainstay")), None);
        assert_eq!(killed_by_kernel(&["pid 4711 is fine"], 4711, None), None);
        assert_eq!(killed_by_kernel(&[], 4711, None), None);
    }

    #[test]
    fn only_a_rise_counts() {
        assert_eq!(kills_rose(3, 4).as_deref(), Some("memory.events: oom_kill 3 → 4"));
        assert_eq!(kills_rose(4, 4), None);
        assert_eq!(kills_rose(4, 3), None);
    }
}
