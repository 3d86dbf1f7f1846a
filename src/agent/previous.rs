//! What an earlier agent left behind in the runtime directory.
//!
//! When an agent dies its lifeline closes and its shims stop their engines by themselves. They cannot be called back:
//! the next agent waits until they have ended, and only then starts a new run of the same engine.
use crate::clock;
use crate::lookout;
use crate::policy::Moment;
use crate::shim::leftovers::{self, Main, Orphans};
use crate::shim::{ExitRecord, Link, SOCKET, TMP};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file of an [`Intent`] in its run's directory.
const INTENT: &str = "run.json";
/// How often a shim that is ending its run is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A shim that listens takes a connection at once.
const SHIM_ANSWERS: Duration = Duration::from_secs(2);
/// How long what outlived its shim may withstand KILL before it is told as wedged.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// How long a look for what an ended run left in /dev/shm may take.
const CLEAR_UP_LIMIT: Duration = Duration::from_secs(10);
/// Directories of ended runs that are kept for `mainstay logs` and for a look afterwards.
const KEPT: usize = 2;

/// What makes a run recognisable to a later agent: written before the run is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// A run of another boot is over, whatever its directory says.
    pub boot_id: String,
    /// Every process of the run carries it.
    pub nonce: String,
    /// The engine's main process, once it exists. It leads the session of the run, by which processes are known that have
    /// painted over their environment.
    #[serde(default)]
    pub main: Option<Main>,
    /// When this was first written, in nanoseconds since boot: nothing of the run is older.
    #[serde(default)]
    pub began: u64,
}

impl Intent {
    /// Makes the run's directory `dir`, for the owner alone, and writes itself into it, whole or not at all.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let new = dir.join("run.json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, dir.join(INTENT))
    }

    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(INTENT)).ok()?).ok()
    }
}

/// Waits until the runs of `tier` before `number` have ended that an earlier agent started. Their shims end them by
/// themselves, within the grace that they were given; what outlived its shim is killed. Gives what withstood even that:
/// while there is any, the engine must not be started again.
pub async fn ended(run_dir: &Path, tier: &str, number: u64) -> Vec<u32> {
    let mut left = Vec::new();
    for old in numbers(run_dir, tier).into_iter().filter(|n| *n < number) {
        let dir = run_path(run_dir, tier, old);
        // Also where nothing was written down of it: a shim that listens is one that lives.
        while dir.join(SOCKET).exists() && Link::connect(&dir, SHIM_ANSWERS).await.is_ok() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let Some(intent) = Intent::read(&dir) else { continue };
        if intent.boot_id != clock::boot_id() || has_ended(&dir, &intent) {
            continue;
        }
        let orphans = orphans(intent).end(KILL_LIMIT).await;
        if orphans.is_empty() {
            clear_up(dir, None).await;
        }
        left.extend(orphans);
    }
    left
}

/// Its shim has proven that nothing is left of it, and said so. Else every start would look for it again, and looking may
/// hang with somebody else's process.
fn has_ended(dir: &Path, intent: &Intent) -> bool {
    ExitRecord::read(dir).is_ok_and(|record| record.nonce == intent.nonce && record.ended_ms.is_some())
}

/// Of a run whose shim is gone.
fn orphans(Intent { nonce, main, began, .. }: Intent) -> Orphans {
    let began = Moment::from_nanos(began);
    // What an earlier agent started began before this one.
    let own = Main::of(std::process::id()).map(Main::began);
    Orphans { nonce, main, since: began, until: own.filter(|own| began < *own) }
}

/// What a shim that was killed could not remove itself: the run's cgroup, if there is one, and what it left in /dev/shm,
/// which are hundreds of MiB of vLLM's.
pub async fn clear_up(dir: PathBuf, cgroup: Option<PathBuf>) {
    let lookout = lookout::on(&format!("what is left of {}", dir.display()));
    let clearing = lookout.look(move || {
        cgroup.into_iter().for_each(|cgroup| drop(fs::remove_dir(cgroup)));
        leftovers::remove_shm(&dir)
    });
    if let Ok(Some(removed)) = tokio::time::timeout(CLEAR_UP_LIMIT, clearing).await
        && !removed.is_empty()
    {
        tracing::info!(files = removed.join(" "), "removed from /dev/shm what a run had left");
    }
}

/// The directory that holds one directory per run.
pub fn runs_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("runs")
}

/// The directory of one run: `runs/<tier>-<number>`.
pub fn run_path(run_dir: &Path, tier: &str, number: u64) -> PathBuf {
    runs_dir(run_dir).join(format!("{tier}-{number}"))
}

/// The numbers of the runs of `tier` that have a directory, in rising order.
pub fn numbers(run_dir: &Path, tier: &str) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(runs_dir(run_dir)) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix(tier)?.strip_prefix('-')?.parse().ok();
    let mut found: Vec<u64> = entries.filter_map(|e| number(e.ok()?.file_name().to_str()?)).collect();
    found.sort_unstable();
    found
}

/// Removes the directories of all but the newest ended runs, so that a crash loop cannot fill a tmpfs. Of those that are
/// kept, what a killed shim could not remove itself: its socket, and the run's temporary files.
pub fn tidy(run_dir: &Path, tier: &str, live: u64) {
    let old: Vec<u64> = numbers(run_dir, tier).into_iter().filter(|n| *n < live).collect();
    for (age, number) in old.iter().rev().enumerate() {
        let dir = run_path(run_dir, tier, *number);
        if age >= KEPT {
            let _ = fs::remove_dir_all(dir);
        } else {
            let _ = fs::remove_file(dir.join(SOCKET));
            let _ = fs::remove_dir_all(dir.join(TMP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_ended_runs_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        for number in [1, 2, 9, 10, 11] {
            fs::create_dir_all(run_path(dir.path(), "cpu", number)).expect("a run");
        }
        fs::create_dir_all(run_path(dir.path(), "cpu-2", 1)).expect("a run of another tier");
        for number in [10, 11] {
            let run = run_path(dir.path(), "cpu", number);
            fs::create_dir_all(run.join(TMP).join("of-torch")).expect("temporary files");
            fs::write(run.join(SOCKET), "").expect("a socket");
            fs::write(run.join("log"), "").expect("a log");
        }
        tidy(dir.path(), "cpu", 11);
        assert_eq!(numbers(dir.path(), "cpu"), [9, 10, 11]);
        let left = |number: u64| {
            [SOCKET, TMP, "log"].map(|name| run_path(dir.path(), "cpu", number).join(name).exists())
        };
        assert_eq!((left(10), left(11)), ([false, false, true], [true, true, true]));
        assert_eq!(numbers(dir.path(), "cpu-2"), [1]);
    }

    #[test]
    fn an_intent_is_for_its_owner_alone_and_comes_back_whole() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let run = run_path(dir.path(), "cpu", 1);
        let intent = Intent {
            boot_id: "b".into(),
            nonce: "n".into(),
            main: Some(Main { pid: 7, started: 70 }),
            began: 9,
        };
        intent.save(&run).expect("it can be written");
        assert_eq!(Intent::read(&run), Some(intent));
        let mode = fs::metadata(&run).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
