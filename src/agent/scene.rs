//! How the machine was when something failed, and what the engine said last. Called on the clerk's thread: a look at
//! /proc or at a disk may take its time.
use crate::alert::{Process, Scene};
use crate::clock;
use crate::shim::ring::{Reader, Stream};
use std::path::{Path, PathBuf};
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

/// Lines of the engine that an incident keeps.
const LAST_LINES: usize = 60;
/// One line of them, in characters: a dumped request must not fill the record.
const LINE_MAX: usize = 1_000;
/// Processes that are named, those with the most memory.
const PROCESSES: usize = 5;

/// What to look at.
#[derive(Clone, Debug)]
pub struct View {
    /// The log of the run that the incident is about.
    pub log: Option<PathBuf>,
    pub state_dir: PathBuf,
}

impl View {
    pub fn look(self) -> Scene {
        let (shm_total, shm_free) = space(Path::new("/dev/shm"));
        let mut scene = Scene {
            at: Some(clock::rfc3339(clock::wall_ms())),
            last_lines: self.log.map(|log| last_lines(&log)).unwrap_or_default(),
            load: System::load_average().ok().map(|load| load.one),
            shm_total,
            shm_free,
            disk_free: space(&self.state_dir).1,
            ..Scene::default()
        };
        if let Ok(system) = System::new() {
            look_at_memory(system, &mut scene);
        }
        scene
    }
}

fn look_at_memory(mut system: System, scene: &mut Scene) {
    system.refresh_memory_specifics(MemoryRefreshKind::everything());
    let wanted = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, wanted);
    let known = |bytes: u64| (bytes > 0).then_some(bytes);
    scene.memory_total = known(system.total_memory());
    scene.memory_available = known(system.available_memory());
    scene.swap_used = known(system.total_swap()).map(|_| system.used_swap());
    let named = |(pid, process): (&sysinfo::Pid, &sysinfo::Process)| Process {
        pid: pid.as_u32(),
        name: process.name().to_string_lossy().into_owned(),
        rss: process.memory(),
    };
    scene.processes = system.processes().iter().map(named).collect();
    scene.processes.sort_by_key(|process| std::cmp::Reverse(process.rss));
    scene.processes.truncate(PROCESSES);
}

/// Bytes in all, and free for others than root, of the file system at `path`.
fn space(path: &Path) -> (Option<u64>, Option<u64>) {
    match rustix::fs::statvfs(path) {
        Ok(space) => (Some(space.f_blocks * space.f_frsize), Some(space.f_bavail * space.f_frsize)),
        Err(_) => (None, None),
    }
}

fn last_lines(log: &Path) -> Vec<String> {
    let Ok(reader) = Reader::open(log) else { return Vec::new() };
    let lines = reader.last(LAST_LINES).unwrap_or_default();
    let said = lines.iter().filter(|line| line.stream != Stream::Note);
    said.map(|line| String::from_utf8_lossy(&line.bytes).chars().take(LINE_MAX).collect()).collect()
}
