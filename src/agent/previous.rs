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
/// How many looks, [`LOOK_AGAIN`] apart, it takes before it ends without knowing.
const LAST_LOOKS: u32 = 10;
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

    /// That of the run in this directory. `None`: there is none, or none that can be understood, so nothing was started.
    ///
    /// # Errors
    /// When it could not be read: then nobody knows.
    fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(dir.join(INTENT)) {
            Ok(written) => Ok(serde_json::from_slice(&written).ok()),
            Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(why) => Err(why),
        }
    }

    /// The same, of a run of this boot.
    fn of_this_boot(dir: &Path) -> io::Result<Option<Self>> {
        let now = clock::boot_id()?;
        Ok(Self::read(dir)?.filter(|intent| intent.boot_id == now))
    }
}

/// A run of which something is left when it should not be.
struct Left {
    /// `<tier>-<number>`
    run: String,
    pids: Vec<u32>,
}

/// Waits until the runs of `tier` before `number` have ended that an earlier agent started. Their shims end them by
/// themselves, within the grace that they were given; what outlived its shim is killed, and so is a shim that does not
/// answer. Gives what withstood even that: while there is any, the engine must not be started again.
///
/// # Errors
/// When it cannot be told which runs there are: the engine must not be started then either.
pub async fn ended(run_dir: &Path, tier: &str, number: u64) -> io::Result<Vec<u32>> {
    let mut left = Vec::new();
    for old in numbers(run_dir, tier)?.into_iter().filter(|n| *n < number) {
        left.extend(end(&run_path(run_dir, tier, old)).await?);
    }
    Ok(left)
}

/// Ends the runs of earlier agents for which nothing else looks, because their tiers are not started now or are not
/// configured any more. Only the directories of the latter are removed. To be called before this agent starts a run; nobody
/// waits for it, and what it ends may have what a tier needs: then that one's start is tried again.
///
/// # Errors
/// When it cannot be told which runs there are.
pub fn end_unwanted(
    run_dir: &Path,
    is_configured: impl Fn(&str) -> bool,
    is_started: impl Fn(&str) -> bool,
) -> io::Result<()> {
    for (tier, number) in all_runs(run_dir)?.into_iter().filter(|(tier, _)| !is_started(tier)) {
        let is_known = is_configured(&tier);
        tokio::task::spawn_local(end_unwanted_run(run_path(run_dir, &tier, number), is_known));
    }
    Ok(())
}

async fn end_unwanted_run(dir: PathBuf, is_known: bool) {
    let run = name(&dir);
    loop {
        match end(&dir).await {
            Ok(left) if left.is_empty() => break,
            Ok(left) => {
                tracing::error!(run, ?left, "what is left of an earlier agent's run withstands SIGKILL");
            }
            Err(why) => tracing::warn!(run, %why, "an earlier agent's run cannot be looked at"),
        }
        tokio::time::sleep(KILL_AGAIN).await;
    }
    if !is_known {
        tracing::info!(run, "removing what is left of a tier that is not configured any more");
        let _ = tokio::task::spawn_blocking(move || fs::remove_dir_all(dir)).await;
    }
}

/// Waits until this run has ended; gives what withstood KILL.
async fn end(dir: &Path) -> io::Result<Vec<u32>> {
    let intent = Intent::of_this_boot(dir)?;
    let is_over = |intent: &Intent| has_ended(dir, intent);
    // Its shim may still be there, waiting to be released.
    if intent.as_ref().is_some_and(is_over) {
        return Ok(Vec::new());
    }
    let silent = shim_ends(dir).await;
    // Without an intent nothing was started; with one, its shim may have brought it to an end meanwhile.
    let Some(intent) = intent.filter(|intent| !silent.is_empty() || !is_over(intent)) else {
        return Ok(Vec::new());
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
    let left = orphans(intent, silent).await.end(KILL_LIMIT).await;
    if left.is_empty() {
        clear_up(dir.to_owned(), None).await;
    }
    Ok(left)
}

/// Is nothing of any run left, as there should be now that the agent ends? What is left is named, because nobody looks after it
/// any more. False too when that cannot be told, at several looks.
pub async fn last_look(run_dir: &Path) -> bool {
    let mut looked = what_is_left(run_dir).await;
    for _ in 1..LAST_LOOKS {
        if looked.is_ok() {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        looked = what_is_left(run_dir).await;
    }
    let left = match looked {
        Ok(left) => left,
        Err(why) => {
            tracing::error!(%why, "the agent ends, and it cannot be told whether something is left of a run");
            return false;
        }
    };
    for Left { run, pids } in &left {
        let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        tracing::error!(
            run,
            "the agent ends, and this is left of a run although it was sent SIGKILL: pid {pids}"
        );
    }
    if left.is_empty() {
        tracing::info!("every engine has ended");
    }
    left.is_empty()
}

/// What of any run is left, killed once more. Shims whose runs have ended have left by now.
async fn what_is_left(run_dir: &Path) -> io::Result<Vec<Left>> {
    let mut found = Vec::new();
    for (tier, number) in all_runs(run_dir)? {
        let dir = run_path(run_dir, &tier, number);
        let Some(intent) = Intent::of_this_boot(&dir)? else { continue };
        let holders = if lock::is_held(&dir) == Some(true) { holders(&dir).await? } else { Vec::new() };
        if holders.is_empty() && has_ended(&dir, &intent) {
            continue;
        }
        let pids = orphans(intent, holders).await.end(LAST_KILL_LIMIT).await;
        if !pids.is_empty() {
            found.push(Left { run: name(&dir), pids });
        }
    }
    Ok(found)
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
            match holders(dir).await {
                Ok(found) => return found,
                Err(_) => misses = 0,
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// True when the shim of this run has said a word, false when there is none. Does not return while there is one and it does
/// not.
async fn is_answered(dir: &Path) -> bool {
    loop {
        let held = lock::is_held(dir);
        if held == Some(false) || held.is_none() && matches!(dir.join(SOCKET).try_exists(), Ok(false)) {
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

/// Who holds the lock of this run, each with all that is below it; as far as the look comes back.
async fn holders(dir: &Path) -> io::Result<Vec<Main>> {
    let lookout = lookout::on(&format!("shim of {}", dir.display()));
    let dir = dir.to_owned();
    let look = move || {
        let trees: io::Result<Vec<_>> = lock::holders(&dir)?.into_iter().map(leftovers::tree).collect();
        trees.map(|trees| trees.concat())
    };
    // Another process's descriptors are looked at, which may hang with it.
    let looked = tokio::time::timeout(SHIM_ANSWERS, lookout.look(look)).await;
    looked.ok().flatten().unwrap_or_else(|| Ok(Vec::new()))
}

/// Its shim has proven that nothing is left of it, and said so. Else every start would look for it again, and looking may
/// hang with somebody else's process.
fn has_ended(dir: &Path, intent: &Intent) -> bool {
    ExitRecord::read(dir).is_ok_and(|record| record.nonce == intent.nonce && record.ended_ms.is_some())
}

/// Of a run whose shim is gone, or is to go with all that is in `tree`.
async fn orphans(Intent { nonce, main, began, .. }: Intent, tree: Vec<Main>) -> Orphans {
    let began = Moment::from_nanos(began);
    // What an earlier agent started began before this one.
    let own = leftovers::until_seen(|| Main::of(std::process::id())).await.map(Main::began);
    Orphans { nonce, main, since: began, until: own.filter(|own| began < *own), tree }
}

/// What a shim that was killed could not remove itself: the run's cgroup, if there is one, and what it left in /dev/shm,
/// which are hundreds of MiB of vLLM's.
pub async fn clear_up(dir: PathBuf, cgroup: Option<PathBuf>) {
    let lookout = lookout::on(&format!("what is left of {}", dir.display()));
    let clearing = async {
        loop {
            let (dir, cgroup) = (dir.clone(), cgroup.clone());
            let clear = move || {
                cgroup.into_iter().for_each(|cgroup| drop(fs::remove_dir(cgroup)));
                leftovers::remove_shm(&dir)
            };
            match lookout.look(clear).await {
                Some(Err(_)) => tokio::time::sleep(LOOK_AGAIN).await,
                Some(Ok(removed)) => return removed,
                None => return Vec::new(),
            }
        }
    };
    if let Ok(removed) = tokio::time::timeout(CLEAR_UP_LIMIT, clearing).await
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
///
/// # Errors
/// When it cannot be told.
pub fn numbers(run_dir: &Path, tier: &str) -> io::Result<Vec<u64>> {
    let runs = all_runs(run_dir)?.into_iter();
    let mut found: Vec<u64> = runs.filter(|(name, _)| name == tier).map(|(_, number)| number).collect();
    found.sort_unstable();
    Ok(found)
}

/// Every run that has a directory: the tier's name, which may hold any number of dashes, and the run's number.
fn all_runs(run_dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let entries = match fs::read_dir(runs_dir(run_dir)) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(why),
    };
    let run = |name: &str| {
        let (tier, number) = name.rsplit_once('-')?;
        Some((tier.to_owned(), number.parse().ok()?))
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(run));
    }
    Ok(found)
}

/// Removes what was made for a run that did not begin: where this host lacks space, it is needed for the next one.
pub fn forget(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
}

/// Runs that may live, by the names of their directories and their nonces, those of `tier` before `number` left out: they
/// have ended.
///
/// # Errors
/// When it cannot be told of any of them: it may live.
pub fn living(run_dir: &Path, tier: &str, number: u64) -> io::Result<Vec<(String, String)>> {
    let mut living = Vec::new();
    for (of, number) in all_runs(run_dir)?.into_iter().filter(|(of, old)| of != tier || *old >= number) {
        let dir = run_path(run_dir, &of, number);
        let intent = Intent::of_this_boot(&dir)?.filter(|intent| !has_ended(&dir, intent));
        living.extend(intent.map(|intent| (name(&dir), intent.nonce)));
    }
    Ok(living)
}

/// Removes the directories of all but the newest ended runs, so that a crash loop cannot fill a tmpfs. Of those that are
/// kept, what a killed shim could not remove itself: its socket, and the run's temporary files.
pub fn tidy(run_dir: &Path, tier: &str, live: u64) {
    let numbers = numbers(run_dir, tier).unwrap_or_default();
    let old: Vec<u64> = numbers.into_iter().filter(|n| *n < live).collect();
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
        assert_eq!(numbers(dir.path(), "cpu").expect("they can be read"), [9, 10, 11]);
        let left = |number: u64| {
            [SOCKET, TMP, "log"].map(|name| run_path(dir.path(), "cpu", number).join(name).exists())
        };
        assert_eq!((left(10), left(11)), ([false, false, true], [true, true, true]));
        assert_eq!(numbers(dir.path(), "cpu-2").expect("they can be read"), [1]);
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
        assert_eq!(Intent::read(&run).expect("it can be read"), Some(intent));
        let mode = fs::metadata(&run).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    /// Before: the engine was started, and "every engine has ended" was said, as if nothing had been there.
    #[tokio::test]
    async fn what_cannot_be_looked_at_has_not_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(numbers(dir.path(), "cpu").expect("nothing was ever there"), [0_u64; 0]);
        let run = run_path(dir.path(), "cpu", 1);
        fs::create_dir_all(&run).expect("a run");
        assert_eq!(ended(dir.path(), "cpu", 2).await.expect("no intent, no process"), [0_u32; 0]);
        fs::write(run.join(INTENT), "{").expect("an intent");
        assert_eq!(ended(dir.path(), "cpu", 2).await.expect("it cannot be understood"), [0_u32; 0]);
        fs::remove_file(run.join(INTENT)).expect("it is there");
        // Nobody can read a file of it.
        fs::create_dir(run.join(INTENT)).expect("in its place");
        assert!(ended(dir.path(), "cpu", 2).await.is_err());
        assert!(living(dir.path(), "another", 1).is_err(), "its TMPDIR may be in use");
        assert!(what_is_left(dir.path()).await.is_err());
        let sealed = tempfile::tempdir().expect("a directory");
        fs::write(runs_dir(sealed.path()), "").expect("in their place");
        assert!(numbers(sealed.path(), "cpu").is_err());
        assert!(ended(sealed.path(), "cpu", 2).await.is_err());
        assert!(!last_look(sealed.path()).await);
    }
}
