//! Each run's TMPDIR. It lies under the state directory: vLLM alone puts 146 MiB there, and the runtime directory is a small
//! tmpfs that holds intents, sockets and rings. Where that cannot be, a run has it in its own directory after all.
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Of all runs, in the state directory.
const PARENT: &str = "tmp";
/// The kernel's room for a socket's path, and what vLLM appends to its TMPDIR for one: a slash and a UUID.
const SOCKET_PATH_MAX: usize = 107;
const SOCKET_NAME: usize = 37;

/// Where a run has it, of which these are the directory's name (`<tier>-<number>`) and the nonce: run numbers begin anew with
/// each boot, and what is left on the disk does not. `None`: sockets would have no room.
pub fn place(state_dir: &Path, run: &str, nonce: &str) -> Option<PathBuf> {
    let start = |length: usize| nonce.get(..length).unwrap_or(nonce);
    let names = [format!("{run}-{}", start(6)), start(8).to_owned()];
    let places = names.into_iter().map(|name| state_dir.join(PARENT).join(name));
    places.into_iter().find(|place| place.as_os_str().len() + SOCKET_NAME <= SOCKET_PATH_MAX)
}

/// Makes it, for the owner alone, in a state directory that is there; and only where something can be written into it.
pub fn make(place: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    match place.parent().map(|parent| builder.create(parent)) {
        Some(Err(why)) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => builder.create(place)?,
    }
    // A full disk may still take a name.
    let proof = place.join("proof");
    let proven = fs::write(&proof, [0; 4096]).and_then(|()| fs::remove_file(&proof));
    if proven.is_err() {
        let _ = fs::remove_dir_all(place);
    }
    proven
}

/// Removes what earlier runs left: everything but those of living runs, which `living` gives as [`place`] takes them. It is
/// asked when it is known what is there: a run whose TMPDIR is among that had begun before, and one that begins now is safe.
///
/// # Errors
/// When it cannot be told what is there, or what lives. Then nothing is removed.
pub fn tidy(state_dir: &Path, living: impl FnOnce() -> io::Result<Vec<(String, String)>>) -> io::Result<()> {
    let entries = match fs::read_dir(state_dir.join(PARENT)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let there: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let living: BTreeSet<PathBuf> =
        living()?.iter().filter_map(|(run, nonce)| place(state_dir, run, nonce)).collect();
    for left in there.into_iter().filter(|path| !living.contains(path)) {
        let _ = fs::remove_dir_all(left);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn sockets_have_room_or_it_lies_elsewhere() {
        let at = |state_dir: &str, run: &str| place(Path::new(state_dir), run, NONCE);
        let usual = PathBuf::from("/var/lib/mainstay/tmp/primary-3-012345");
        assert_eq!(at("/var/lib/mainstay", "primary-3"), Some(usual));
        let long = "a-tier-with-quite-a-long-name-for-a-tier-9999999";
        assert_eq!(at("/var/lib/mainstay", long), Some(PathBuf::from("/var/lib/mainstay/tmp/01234567")));
        for length in 1..200 {
            let state_dir = format!("/{}", "s".repeat(length));
            let found = at(&state_dir, "primary-3");
            assert_eq!(found.is_some(), length <= 56, "{length}");
            assert!(found.is_none_or(|place| place.as_os_str().len() <= 70));
        }
    }

    #[test]
    fn it_is_the_owners_alone_and_goes_when_its_run_has() {
        let state = tempfile::tempdir().expect("a directory");
        let of = |run: &str| place(state.path(), run, NONCE).expect("there is room");
        for run in ["a-1", "a-2", "b-7"] {
            make(&of(run)).expect("it can be written");
            fs::write(of(run).join("of torch"), "x").expect("it can be written");
        }
        for dir in [of("a-1"), state.path().join(PARENT)] {
            assert_eq!(fs::metadata(dir).expect("it is there").permissions().mode() & 0o777, 0o700);
        }
        let living = [("a-2".to_owned(), NONCE.to_owned()), ("b-7".to_owned(), "another".to_owned())];
        assert!(tidy(state.path(), || Err(io::Error::other("nobody knows"))).is_err());
        assert_eq!(["a-1", "a-2", "b-7"].map(|run| of(run).exists()), [true; 3], "any of them may live");
        tidy(state.path(), || Ok(living.to_vec())).expect("it can be told");
        assert_eq!(["a-1", "a-2", "b-7"].map(|run| of(run).exists()), [false, true, false]);
    }

    /// Not so where it is asked first what lives.
    #[test]
    fn a_run_that_begins_meanwhile_keeps_it() {
        let state = tempfile::tempdir().expect("a directory");
        let of = |run: &str| place(state.path(), run, NONCE).expect("there is room");
        make(&of("old-1")).expect("it can be written");
        let living = || {
            make(&of("new-1"))?;
            Ok(Vec::new())
        };
        tidy(state.path(), living).expect("it can be told");
        assert_eq!(["old-1", "new-1"].map(|run| of(run).exists()), [false, true]);
    }
}
