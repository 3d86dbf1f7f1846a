//! What an earlier agent left behind in the runtime directory.
//!
//! When an agent dies its lifeline closes and its shims stop their engines by themselves. They cannot be called back:
//! the next agent waits until they have ended, and only then starts a new run of the same engine. A shim that does not
//! answer meanwhile ends nothing: it is killed, and its run with it.
use crate::clock;
use crate::lookout;
use crate::policy::Moment;
use crate::shim::leftovers::{self, Main, Orphans};
use crate::shim::{ExitRecord, Link, SOCKET, TMP, lock};
use crate::shortage;
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
/// A shim answers at once: it waits for nothing. On a host whose processors are all busy that may take seconds.
pub const SHIM_ANSWERS: Duration = Duration::from_secs(5);
/// So often in a row it must have failed to. More than once, because all of this host may have stood still meanwhile.
pub const SHIM_MISSES: u32 = 3;
/// How long what outlived its shim may withstand KILL before it is told as wedged.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// The same for what is left when the agent itself ends: it was killed before.
const LAST_KILL_LIMIT: Duration = Duration::from_secs(2);
/// How often a run that nothing else looks for is killed again while something of it withstands.
const KILL_AGAIN: Duration = Duration::from_secs(60);
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
        let written =
            fs::write(&new, serde_json::to_vec(self)?).and_then(|()| fs::rename(&new, dir.join(INTENT)));
        if written.is_err() {
            let _ = fs::remove_file(&new);
            // Where it holds nothing: an entry that nobody needs may be the last one that there was.
            let _ = fs::remove_dir(dir);
        }
        written
    }

    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(INTENT)).ok()?).ok()
    }
}

/// A run of which something is left when it should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// `<tier>-<number>`
    pub run: String,
    pub pids: Vec<u32>,
}

/// Waits until the runs of `tier` before `number` have ended that an earlier agent started. Their shims end them by
/// themselves, within the grace that they were given; what outlived its shim is killed, and so is a shim that does not
/// answer. Gives what withstood even that: while there is any, the engine must not be started again.
pub async fn ended(run_dir: &Path, tier: &str, number: u64) -> Vec<u32> {
    let mut left = Vec::new();
    for old in numbers(run_dir, tier).into_iter().filter(|n| *n < number) {
        left.extend(end(&run_path(run_dir, tier, old)).await);
    }
    left
}

/// Ends the runs of earlier agents for which nothing else looks, because their tiers are not started now or are not
/// configured any more. Only the directories of the latter are removed. To be called before this agent starts a run; nobody
/// waits for it, and what it ends may have what a tier needs: then that one's start is tried again.
pub fn end_unwanted(run_dir: &Path, is_configured: impl Fn(&str) -> bool, is_started: impl Fn(&str) -> bool) {
    for (tier, number) in all_runs(run_dir).into_iter().filter(|(tier, _)| !is_started(tier)) {
        let is_known = is_configured(&tier);
        tokio::task::spawn_local(end_unwanted_run(run_path(run_dir, &tier, number), is_known));
    }
}

async fn end_unwanted_run(dir: PathBuf, is_known: bool) {
    let run = name(&dir);
    loop {
        let left = end(&dir).await;
        if left.is_empty() {
            break;
        }
        tracing::error!(run, ?left, "what is left of an earlier agent's run withstands SIGKILL");
        tokio::time::sleep(KILL_AGAIN).await;
    }
    if !is_known {
        tracing::info!(run, "removing what is left of a tier that is not configured any more");
        let _ = tokio::task::spawn_blocking(move || fs::remove_dir_all(dir)).await;
    }
}

/// Waits until this run has ended; gives what withstood KILL.
async fn end(dir: &Path) -> Vec<u32> {
    let intent = Intent::read(dir).filter(|intent| intent.boot_id == clock::boot_id());
    let is_over = |intent: &Intent| has_ended(dir, intent);
    // Its shim may still be there, waiting to be released.
    if intent.as_ref().is_some_and(is_over) {
        return Vec::new();
    }
    let silent = shim_ends(dir).await;
    // Without an intent nothing was started; with one, its shim may have brought it to an end meanwhile.
    let Some(intent) = intent.filter(|intent| !silent.is_empty() || !is_over(intent)) else {
        return Vec::new();
    };
    if let Some(shim) = silent.first() {
        let hindrance = shim.hindrance();
        tracing::warn!(
            run = name(dir),
            shim = shim.pid,
            hindrance,
            "a shim does not answer; killing its run"
        );
    }
    let left = orphans(intent, silent).end(KILL_LIMIT).await;
    if left.is_empty() {
        clear_up(dir.to_owned(), None).await;
    }
    left
}

/// What of any run is left now that the agent ends, killed once more. Shims whose runs have ended have left by now.
pub async fn last_look(run_dir: &Path) -> Vec<Left> {
    let mut found = Vec::new();
    for (tier, number) in all_runs(run_dir) {
        let dir = run_path(run_dir, &tier, number);
        let Some(intent) = Intent::read(&dir).filter(|intent| intent.boot_id == clock::boot_id()) else {
            continue;
        };
        let holders = if lock::is_held(&dir) == Some(true) { holders(&dir).await } else { Vec::new() };
        if holders.is_empty() && has_ended(&dir, &intent) {
            continue;
        }
        let pids = orphans(intent, holders).end(LAST_KILL_LIMIT).await;
        if !pids.is_empty() {
            found.push(Left { run: name(&dir), pids });
        }
    }
    found
}

/// Waits until the shim of this run has left. Not for one that does not answer: gives that one, and what is below it.
async fn shim_ends(dir: &Path) -> Vec<Main> {
    let mut misses = 0;
    loop {
        match tokio::time::timeout(SHIM_ANSWERS, is_answered(dir)).await {
            Ok(true) => misses = 0,
            Ok(false) => return Vec::new(),
            Err(_) => misses += 1,
        }
        if misses == SHIM_MISSES {
            return holders(dir).await;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// True when the shim of this run has said a word, false when there is none. Does not return while there is one and it does
/// not.
async fn is_answered(dir: &Path) -> bool {
    loop {
        let held = lock::is_held(dir);
        if held == Some(false) || held.is_none() && !dir.join(SOCKET).exists() {
            return false;
        }
        match Link::try_connect(dir).await {
            Ok(mut link) => {
                if link.recv().await.is_ok() {
                    return true;
                }
            }
            // What this agent lacks is no silence of the shim.
            Err(why) if shortage::of(&why).is_some() => return true,
            // Of an earlier version, which had no lock: one that is dead does not listen.
            Err(_) if held.is_none() => return false,
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Who holds the lock of this run, each with all that is below it.
async fn holders(dir: &Path) -> Vec<Main> {
    let lookout = lookout::on(&format!("shim of {}", dir.display()));
    let dir = dir.to_owned();
    let look = move || lock::holders(&dir).into_iter().flat_map(leftovers::tree).collect();
    // Another process's descriptors are looked at, which may hang with it.
    let looked = tokio::time::timeout(SHIM_ANSWERS, lookout.look(look)).await;
    looked.ok().flatten().unwrap_or_default()
}

/// Its shim has proven that nothing is left of it, and said so. Else every start would look for it again, and looking may
/// hang with somebody else's process.
fn has_ended(dir: &Path, intent: &Intent) -> bool {
    ExitRecord::read(dir).is_ok_and(|record| record.nonce == intent.nonce && record.ended_ms.is_some())
}

/// Of a run whose shim is gone, or is to go with all that is in `tree`.
fn orphans(Intent { nonce, main, began, .. }: Intent, tree: Vec<Main>) -> Orphans {
    let began = Moment::from_nanos(began);
    // What an earlier agent started began before this one.
    let own = Main::of(std::process::id()).map(Main::began);
    Orphans { nonce, main, since: began, until: own.filter(|own| began < *own), tree }
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

/// The name of the run in this directory.
fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The numbers of the runs of `tier` that have a directory, in rising order.
pub fn numbers(run_dir: &Path, tier: &str) -> Vec<u64> {
    let runs = all_runs(run_dir).into_iter();
    let mut found: Vec<u64> = runs.filter(|(name, _)| name == tier).map(|(_, number)| number).collect();
    found.sort_unstable();
    found
}

/// Every run that has a directory: the tier's name, which may hold any number of dashes, and the run's number.
fn all_runs(run_dir: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(runs_dir(run_dir)).into_iter().flatten().flatten();
    let run = |name: &str| {
        let (tier, number) = name.rsplit_once('-')?;
        Some((tier.to_owned(), number.parse().ok()?))
    };
    entries.filter_map(|entry| run(entry.file_name().to_str()?)).collect()
}

/// Removes what was made for a run that did not begin: where this host lacks space, it is needed for the next one.
pub fn forget(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
}

/// Runs that may live, by the names of their directories and their nonces, those of `tier` before `number` left out: they
/// have ended.
pub fn living(run_dir: &Path, tier: &str, number: u64) -> Vec<(String, String)> {
    let runs = all_runs(run_dir).into_iter().filter(|(of, old)| of != tier || *old >= number);
    let living = runs.filter_map(|(of, number)| {
        let dir = run_path(run_dir, &of, number);
        let intent = Intent::read(&dir)?;
        let lives = intent.boot_id == clock::boot_id() && !has_ended(&dir, &intent);
        lives.then(|| (name(&dir), intent.nonce))
    });
    living.collect()
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
