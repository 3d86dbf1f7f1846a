//! What a run leaves in /dev/shm. Nothing there tells whose it is, and other runs, other agents and other programs of
//! the same user make files of the same names; so only that is removed which came after the run began, has a name that
//! engines' libraries give, was *seen in the hands of a process of this run*, and is in nobody's hands any more.
//!
//! Looking into hands means reading /proc/PID/maps, which may hang with the process looked at: it is done in a child.
use crate::shortage;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SHM: &str = "/dev/shm";
/// What the engines and their libraries make there: Python's shared memory and semaphores, NCCL, torch, CUDA IPC.
const NAMES: [&str; 6] = ["psm_", "sem.mp-", "sem.loky-", "nccl-", "torch_", "cuda.shm."];
/// With more files than this there the shim would need too much memory to tell old from new: nothing is removed then.
const FILES_MAX: usize = 10_000;

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// What is known of /dev/shm during one run.
#[derive(Clone, Debug)]
pub(super) struct Shm {
    /// Inodes of what was there before the run began, in order; `None`: too many.
    before: Option<Vec<u64>>,
    /// Seen in the hands of the run, and there when this was last looked at.
    ours: BTreeSet<FileId>,
    /// Is that more than was written down?
    is_news: bool,
    /// What [`Shm::is_worth_a_look`] last found.
    strange: BTreeSet<FileId>,
}

impl Shm {
    /// As it is before the engine starts.
    pub fn before_the_run() -> Self {
        let entries = fs::read_dir(SHM).into_iter().flatten();
        let mut inodes: Vec<u64> = entries
            .filter_map(|entry| entry.ok()?.metadata().ok().map(|meta| meta.ino()))
            .take(FILES_MAX + 1)
            .collect();
        inodes.sort_unstable();
        let before = (inodes.len() <= FILES_MAX).then_some(inodes);
        Self { before, ours: BTreeSet::new(), is_news: false, strange: BTreeSet::new() }
    }

    /// There are files that may be the run's and were not there when this was last asked. Forgets those that are gone: an
    /// engine may make and remove some with every request.
    pub fn is_worth_a_look(&mut self) -> bool {
        // What cannot be looked at now is not gone.
        let Ok(candidates) = self.candidates() else { return false };
        let mut strange: BTreeSet<FileId> = candidates.into_iter().map(|(_, file)| file).collect();
        self.ours.retain(|file| strange.contains(file));
        strange.retain(|file| !self.ours.contains(file));
        let news = !strange.is_subset(&self.strange);
        self.strange = strange;
        news
    }

    /// There are files that may be the run's and were not seen in its hands yet.
    pub fn is_worth_a_last_look(&self) -> bool {
        let candidates = self.candidates().unwrap_or_default();
        candidates.iter().any(|(_, file)| !self.ours.contains(file))
    }

    /// In a child: writes down which of the candidates these processes have in their hands.
    pub fn look(&self, pids: &[u32], answer: &mut dyn Write) -> io::Result<()> {
        let candidates: BTreeSet<FileId> = self.candidates()?.into_iter().map(|(_, file)| file).collect();
        let mut held = BTreeSet::new();
        for pid in pids {
            held.extend(in_hand(*pid)?.into_iter().filter(|file| candidates.contains(file)));
        }
        for (device, inode) in held {
            writeln!(answer, "{device} {inode}")?;
        }
        Ok(())
    }

    /// Remembers what [`Shm::look`] wrote, and writes down in `file` all that is known, for whoever has to clear up should
    /// the shim be killed. What was there stays there until the new list is whole.
    pub fn learn(&mut self, answer: &str, file: &Path) -> io::Result<()> {
        for seen in read_files(answer) {
            self.is_news |= self.ours.insert(seen);
        }
        if self.is_news {
            let lines: String =
                self.ours.iter().map(|(device, inode)| format!("{device} {inode}\n")).collect();
            let new = file.with_extension("new");
            fs::write(&new, lines).and_then(|()| fs::rename(&new, file))?;
            self.is_news = false;
        }
        Ok(())
    }

    /// In a child: removes what the run left, given every process that lives now; says the names. An error when it could
    /// not be looked at, for want of descriptors or memory: then nothing is removed.
    pub fn remove_left(&self, pids: &[u32]) -> io::Result<Vec<String>> {
        let mut files = self.candidates()?;
        files.retain(|(_, file)| self.ours.contains(file));
        remove_unused(files, pids)
    }

    /// Files of ours with a known name that came since.
    fn candidates(&self) -> io::Result<Vec<(String, FileId)>> {
        let Some(before) = &self.before else { return Ok(vec![]) };
        let mut files = named_files()?;
        files.retain(|(_, (_, inode))| before.binary_search(inode).is_err());
        Ok(files)
    }
}

/// For an agent whose shim was killed: removes those of the files that the shim had written down ([`Shm::learn`]) which
/// nobody has in hand; says the names. An error as for [`Shm::remove_left`].
pub(super) fn remove_known(known: &str, pids: &[u32]) -> io::Result<Vec<String>> {
    let known: BTreeSet<FileId> = read_files(known).collect();
    let mut files = named_files()?;
    files.retain(|(_, file)| known.contains(file));
    remove_unused(files, pids)
}

fn read_files(lines: &str) -> impl Iterator<Item = FileId> {
    lines.lines().filter_map(|line| {
        let (device, inode) = line.split_once(' ')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    })
}

/// Files of our user's whose names are such as engines' libraries give.
fn named_files() -> io::Result<Vec<(String, FileId)>> {
    let uid = rustix::process::geteuid().as_raw();
    let entries = shortage::seen(fs::read_dir(SHM))?.into_iter().flatten().take(FILES_MAX);
    let named = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        if !NAMES.iter().any(|known| name.starts_with(known)) {
            return None;
        }
        let meta = entry.metadata().ok()?;
        (meta.is_file() && meta.uid() == uid).then_some((name, (meta.dev(), meta.ino())))
    });
    Ok(named.collect())
}

/// Nothing that one of these processes has in hand is removed.
fn remove_unused(mut files: Vec<(String, FileId)>, pids: &[u32]) -> io::Result<Vec<String>> {
    for pid in pids {
        if files.is_empty() {
            break;
        }
        let used = in_hand(*pid)?;
        files.retain(|(_, file)| !used.contains(file));
    }
    let removed = files.into_iter().map(|(name, _)| name);
    Ok(removed.filter(|name| fs::remove_file(Path::new(SHM).join(name)).is_ok()).collect())
}

/// Everything in /dev/shm that the process has open, and every file at all that it has mapped.
fn in_hand(pid: u32) -> io::Result<Vec<FileId>> {
    let maps = shortage::seen(fs::read(format!("/proc/{pid}/maps")))?.unwrap_or_default();
    let mapped = maps.split(|b| *b == b'\n').filter_map(|line| mapped(&String::from_utf8_lossy(line)));
    let mut found: Vec<FileId> = mapped.collect();
    for entry in shortage::seen(fs::read_dir(format!("/proc/{pid}/fd")))?.into_iter().flatten() {
        found.extend(shortage::seen(entry.and_then(|entry| open_in_shm(&entry.path())))?.flatten());
    }
    Ok(found)
}

/// The file in /dev/shm that this link of a descriptor leads to.
fn open_in_shm(link: &Path) -> io::Result<Option<FileId>> {
    // Only there is it sure that stat(2) does not wait for a network.
    if !fs::read_link(link)?.starts_with(SHM) {
        return Ok(None);
    }
    fs::metadata(link).map(|meta| Some((meta.dev(), meta.ino())))
}

/// Device and inode of one line of /proc/PID/maps; `None` for memory without a file.
fn mapped(line: &str) -> Option<FileId> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode: u64 = fields.next()?.parse().ok()?;
    (inode != 0).then_some((rustix::fs::makedev(major, minor), inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_mapping_is_known_by_device_and_inode() {
        let line = "7f00-7f01 rw-s 00000000 00:1a 4242                       /dev/shm/psm_1 (deleted)";
        assert_eq!(mapped(line), Some((rustix::fs::makedev(0, 0x1a), 4242)));
        assert_eq!(mapped("7f00-7f01 rw-p 00000000 00:00 0    [heap]"), None);
        assert_eq!(mapped("rubbish"), None);
    }

    #[test]
    fn an_answer_is_learned_line_by_line_and_rubbish_is_not() {
        let mut shm = Shm { before: None, ..Shm::before_the_run() };
        let file = tempfile::NamedTempFile::new().unwrap();
        shm.learn("26 4242\nrubbish\n26 x\n27 1\n26 42", file.path()).unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "26 42\n26 4242\n27 1\n");
        assert_eq!(shm.ours, BTreeSet::from([(26, 42), (26, 4242), (27, 1)]));
        assert!(!shm.is_worth_a_look(), "with too many files there are no candidates");
    }

    /// A file that a test of ours makes, with a name as engines' libraries give.
    struct Made(PathBuf);

    impl Made {
        fn new(name: &str) -> Self {
            let made = Self(Path::new(SHM).join(format!("psm_test-{}-{name}", std::process::id())));
            fs::write(&made.0, "x").expect("/dev/shm can be written");
            made
        }

        fn line(&self) -> String {
            let meta = fs::metadata(&self.0).expect("it is there");
            format!("{} {}\n", meta.dev(), meta.ino())
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_is_gone_is_forgotten_however_many_files_come_and_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("shm");
        let mut shm = Shm::before_the_run();
        let stays = Made::new("stays");
        shm.learn(&stays.line(), &file).expect("it can be written");
        for round in 0..500 {
            let comes = Made::new(&format!("comes-{round}"));
            assert!(shm.is_worth_a_look());
            shm.learn(&comes.line(), &file).expect("it can be written");
            assert_eq!(fs::read_to_string(&file).expect("a list").lines().count(), 2);
        }
        shm.is_worth_a_look();
        assert_eq!(shm.ours, read_files(&stays.line()).collect());
    }

    #[test]
    fn a_list_that_cannot_be_written_leaves_the_one_before_and_is_tried_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("shm");
        let mut shm = Shm::before_the_run();
        shm.learn("26 42", &file).expect("it can be written");
        // A directory is in the way of the new list, as a full tmpfs would be.
        fs::create_dir(dir.path().join("shm.new")).expect("a directory");
        shm.learn("26 43", &file).expect_err("something is in the way");
        assert_eq!(fs::read_to_string(&file).expect("a list"), "26 42\n");
        fs::remove_dir(dir.path().join("shm.new")).expect("it is empty");
        shm.learn("", &file).expect("it can be written");
        assert_eq!(fs::read_to_string(&file).expect("a list"), "26 42\n26 43\n");
    }
}
