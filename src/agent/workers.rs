//! What an engine's processes use, read from /proc.
//!
//! The CPU time of workers is the proof of life of an engine that publishes no counters (Ollama): a hung or stopped
//! worker uses none, a working one cannot help using it. The figures of the whole tree show whether a start still moves.
use crate::policy::{Figures, Measure};
use crate::shortage::{self, Shortage};
use std::collections::BTreeMap;

/// How long a clock tick of /proc/PID/stat is: USER_HZ is 100 wherever we run.
const TICK_MS: u64 = 10;

/// One process, as /proc/PID/stat has it.
struct Process {
    parent: u32,
    name: String,
    /// User and system time, in clock ticks.
    ticks: u64,
}

/// The ticks that the descendants of `main` with one of these names (`comm`) have used; `None` when there is none.
pub fn cpu_ticks(main: u32, names: &[&str]) -> Result<Option<u64>, Shortage> {
    let all = processes()?;
    let workers =
        all.iter().filter(|(pid, p)| names.contains(&p.name.as_str()) && descends(&all, **pid, main));
    let ticks: Vec<u64> = workers.map(|(_, p)| p.ticks).collect();
    Ok((!ticks.is_empty()).then(|| ticks.iter().sum()))
}

/// What `main` and everything below it use: the one place where a start's figures come from. A figure that cannot be
/// read of one of them (/proc/PID/io is for the same user only) is left out; `vram` says what these processes hold on the
/// GPUs. The share of a child that has ended is no longer in it, so it may fall. Blocks while the kernel takes its time.
pub fn tree_figures(main: u32, vram: impl FnOnce(&[u32]) -> Option<u64>) -> Result<Figures, Shortage> {
    let all = processes()?;
    if !all.contains_key(&main) {
        return Ok(Figures::new());
    }
    let tree: Vec<u32> =
        all.keys().copied().filter(|pid| *pid == main || descends(&all, *pid, main)).collect();
    let ticks: u64 = tree.iter().filter_map(|pid| Some(all.get(pid)?.ticks)).sum();
    let mut figures = Figures::from([(Measure::Cpu, ticks * TICK_MS)]);
    let sum = |of: fn(u32) -> Option<u64>| tree.iter().map(|pid| of(*pid)).sum::<Option<u64>>();
    figures.extend(sum(resident_bytes).map(|bytes| (Measure::Memory, bytes)));
    figures.extend(sum(storage_bytes).map(|bytes| (Measure::Disk, bytes)));
    figures.extend(vram(&tree).map(|bytes| (Measure::Vram, bytes)));
    Ok(figures)
}

fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // A zombie has no memory and no such line.
    let kib = field(&status, "VmRSS:").map_or(Some(0), |text| text.trim_end_matches(" kB").parse().ok());
    kib.map(|kib: u64| kib * 1024)
}

/// What it fetched from storage or sent there; what the page cache had does not count.
fn storage_bytes(pid: u32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let bytes = |name| field(&io, name)?.parse::<u64>().ok();
    Some(bytes("read_bytes:")? + bytes("write_bytes:")?)
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()))
}

/// The ticks that this process has used; `None` when it is gone.
pub fn own_cpu_ticks(pid: u32) -> Result<Option<u64>, Shortage> {
    Ok(stat(pid)?.map(|process| process.ticks))
}

/// Is `pid` somewhere below `main`? Bounded, because /proc is not read at one instant and could show a circle.
fn descends(all: &BTreeMap<u32, Process>, pid: u32, main: u32) -> bool {
    let mut at = pid;
    for _ in 0..64 {
        match all.get(&at) {
            Some(process) if process.parent == main => return true,
            Some(process) => at = process.parent,
            None => return false,
        }
    }
    false
}

fn processes() -> Result<BTreeMap<u32, Process>, Shortage> {
    let entries = match std::fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(why) => return shortage::of(&why).map_or_else(|| Ok(BTreeMap::new()), Err),
    };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| stat(pid).map(|process| Some((pid, process?))).transpose()).collect()
}

/// `None` when there is no such process (any more).
fn stat(pid: u32) -> Result<Option<Process>, Shortage> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse(&stat)),
        Err(why) => shortage::of(&why).map_or(Ok(None), Err),
    }
}

/// The name may hold blanks and parentheses, so the fields are counted from its last parenthesis (proc(5)).
fn parse(stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Process { parent: u32::try_from(field(1)?).ok()?, name, ticks: field(11)? + field(12)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_one_name() {
        let stat = "42 (VLLM::Engine (x) y) S 7 42 42 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 100 0 0";
        let process = parse(stat).expect("a process");
        assert_eq!((process.parent, process.name.as_str(), process.ticks), (7, "VLLM::Engine (x) y", 42));
    }

    #[test]
    fn the_figures_of_a_tree_are_those_of_its_processes() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("it starts");
        let before = tree_figures(child.id(), |_| None).expect("there is no shortage");
        let measures: Vec<Measure> = before.keys().copied().collect();
        assert_eq!(measures, [Measure::Cpu, Measure::Memory, Measure::Disk], "all can be read of our own");
        // Children of tests beside this one come and go, and while one ends its memory cannot be read.
        let figures = || tree_figures(std::process::id(), |_| None).ok()?.get(&Measure::Memory).copied();
        let own =
            std::iter::repeat_with(figures).take(10_000).flatten().next().expect("it can be read of our own");
        assert!(own > before[&Measure::Memory] && before[&Measure::Memory] > 0);
        child.kill().and_then(|()| child.wait()).expect("it is our child");
        assert_eq!(
            tree_figures(child.id(), |_| None),
            Ok(Figures::new()),
            "nothing is known of what is gone"
        );
    }

    #[test]
    fn a_worker_is_found_below_its_engine_and_nobody_elses() {
        let own =
            parse(&std::fs::read_to_string("/proc/self/stat").expect("our own stat")).expect("a process");
        let names = [own.name.as_str()];
        assert!(
            cpu_ticks(own.parent, &names).is_ok_and(|ticks| ticks.is_some()),
            "this process is a child of its parent"
        );
        assert_eq!(cpu_ticks(own.parent, &["no-such-worker"]), Ok(None));
        // Not this process: a test beside this one may have started a copy of it.
        let mut childless = std::process::Command::new("sleep").arg("60").spawn().expect("it starts");
        assert_eq!(cpu_ticks(childless.id(), &names), Ok(None), "nobody descends from it");
        childless.kill().and_then(|()| childless.wait()).expect("it is our child");
    }
}
