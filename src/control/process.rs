//! Figures of process trees and of the host, for a status. Nothing is measured, and next to nothing kept, while nobody
//! asks: the idle agent has to stay small.
use super::wire;
use crate::clock;
use crate::lookout::Lookout;
use crate::policy::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::Mutex;

/// Two questions within this time get the same answer, so that many clients cost no more than one.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look may take; one takes milliseconds. Whoever asks for a status gives up after 5 s.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// What one process and all its descendants use now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident bytes; pages shared between processes of the tree count for each.
    pub rss: u64,
    /// CPU seconds of the processes that live now.
    pub cpu_s: f64,
}

/// One look at the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// By root process. A root that does not live has no entry.
    pub trees: BTreeMap<u32, Usage>,
    /// By root process: itself and all its descendants.
    pub members: BTreeMap<u32, BTreeSet<u32>>,
    pub host: wire::Host,
}

/// The last reading, for as long as it is fresh.
#[derive(Debug, Default)]
pub struct Gauge {
    last: Mutex<Option<Last>>,
    lookout: Lookout,
}

#[derive(Debug)]
struct Last {
    at: Moment,
    roots: BTreeSet<u32>,
    reading: Arc<Reading>,
}

impl Gauge {
    /// Figures of the trees under `roots` and of the host, at most a second old. The files of /proc are read on a
    /// thread of their own, because the kernel may take its time; when it takes too long, nothing is known.
    pub async fn read(&self, roots: BTreeSet<u32>) -> Arc<Reading> {
        let mut last = self.last.lock().await;
        if let Some(known) = &*last
            && clock::now().since(known.at) < FRESH
            && roots.is_subset(&known.roots)
        {
            return Arc::clone(&known.reading);
        }
        let asked = roots.clone();
        let looked = tokio::time::timeout(LOOK_MAX, self.lookout.look(move || look(&asked))).await;
        let reading = Arc::new(looked.ok().flatten().unwrap_or_default());
        *last = Some(Last { at: clock::now(), roots, reading: Arc::clone(&reading) });
        reading
    }
}

/// Reads /proc once. The list of the host's processes lives no longer than this call.
fn look(roots: &BTreeSet<u32>) -> Reading {
    let Ok(mut system) = System::new() else { return Reading::default() };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let known = |figure: u64| (figure > 0).then_some(figure);
    let host = wire::Host {
        memory_total: known(system.total_memory()),
        memory_available: known(system.available_memory()),
        load: System::load_average().ok().map(|load| load.one),
    };
    if roots.is_empty() {
        return Reading { host, ..Reading::default() };
    }
    system.refresh_processes_specifics(
        ProcessesToUpdate::All,
        true,
        ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks(),
    );
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, process) in system.processes() {
        if let Some(parent) = process.parent() {
            children.entry(parent.as_u32()).or_default().push(pid.as_u32());
        }
    }
    let usage = |pid: u32| {
        let process = system.process(Pid::from_u32(pid))?;
        Some(Usage { rss: process.memory(), cpu_s: process.accumulated_cpu_time() as f64 / 1e3 })
    };
    let members: BTreeMap<u32, _> = roots.iter().map(|&root| (root, tree(root, &children))).collect();
    let trees = members.iter().filter_map(|(&root, tree)| Some((root, sum(root, tree, &usage)?))).collect();
    Reading { trees, members, host }
}

/// `root` and everything below it.
fn tree(root: u32, children: &BTreeMap<u32, Vec<u32>>) -> BTreeSet<u32> {
    // The table is made of many small reads while processes come and go, so a reused pid can close a circle in it.
    let mut seen = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child) {
                open.push(child);
            }
        }
    }
    seen
}

/// What the processes of a tree use together; `None` when its root is not there.
fn sum(root: u32, tree: &BTreeSet<u32>, usage: &impl Fn(u32) -> Option<Usage>) -> Option<Usage> {
    usage(root)?;
    let all = tree.iter().filter_map(|&pid| usage(pid));
    Some(all.fold(Usage::default(), |sum, of| Usage {
        rss: sum.rss.saturating_add(of.rss),
        cpu_s: sum.cpu_s + of.cpu_s,
    }))
}

/// What this process itself uses, without its descendants.
pub async fn own() -> Option<Usage> {
    tokio::task::spawn_blocking(look_at_ourselves).await.ok()?
}

fn look_at_ourselves() -> Option<Usage> {
    let mut system = System::new().ok()?;
    let pid = Pid::from_u32(std::process::id());
    let wanted = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, wanted);
    let process = system.process(pid)?;
    Some(Usage { rss: process.memory(), cpu_s: process.accumulated_cpu_time() as f64 / 1e3 })
}

#[cfg(test)]
mod tests;
