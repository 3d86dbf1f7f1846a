//! What the configuration takes from its surroundings, injected so that tests can say what those are.
use std::path::{Path, PathBuf};

/// The environment variables that decide where things are, and whether a directory may be written.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `$RUNTIME_DIRECTORY`, set by systemd; the first when there are several.
    pub runtime_directory: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, set by systemd; the first when there are several.
    pub state_directory: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, set by systemd.
    pub credentials_directory: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `$XDG_STATE_HOME`
    pub xdg_state_home: Option<PathBuf>,
    /// `$HOME`
    pub home: Option<PathBuf>,
    /// Could this directory be written, or be made if it does not exist?
    pub writable: fn(&Path) -> bool,
}

impl Environment {
    /// Nothing is set and nothing is writable.
    pub const fn empty() -> Self {
        Self {
            runtime_directory: None,
            state_directory: None,
            credentials_directory: None,
            xdg_runtime_dir: None,
            xdg_state_home: None,
            home: None,
            writable: |_| false,
        }
    }

    /// Of this process.
    pub fn of_process() -> Self {
        Self {
            runtime_directory: variable("RUNTIME_DIRECTORY").map(first_of_list),
            state_directory: variable("STATE_DIRECTORY").map(first_of_list),
            credentials_directory: variable("CREDENTIALS_DIRECTORY").or_else(of_the_unit),
            xdg_runtime_dir: variable("XDG_RUNTIME_DIR"),
            xdg_state_home: variable("XDG_STATE_HOME"),
            home: variable("HOME"),
            writable: is_writable,
        }
    }

    /// The runtime directory when the configuration names none: of the agent, and of clients that look for it.
    pub fn run_dir(&self) -> Option<PathBuf> {
        self.runtime_directory
            .clone()
            .or_else(|| self.if_writable("/run/mainstay"))
            .or_else(|| self.xdg_runtime_dir.as_ref().map(|dir| dir.join("mainstay")))
    }

    /// The state directory when the configuration names none. One that cannot be written is no reason not to start.
    pub fn state_dir(&self) -> PathBuf {
        self.state_directory
            .clone()
            .or_else(|| self.if_writable("/var/lib/mainstay"))
            .or_else(|| self.xdg_state_home.as_ref().map(|dir| dir.join("mainstay")))
            .or_else(|| self.home.as_ref().map(|dir| dir.join(".local/state/mainstay")))
            .unwrap_or_else(|| PathBuf::from("/var/lib/mainstay"))
    }

    fn if_writable(&self, directory: &str) -> Option<PathBuf> {
        let directory = PathBuf::from(directory);
        (self.writable)(&directory).then_some(directory)
    }
}

/// An absolute path; a relative or empty one means nothing to a service, and the specification of XDG ignores it too.
/// Where systemd keeps the unit's credentials while it runs: so `check` and `alert test` find them in root's shell.
fn of_the_unit() -> Option<PathBuf> {
    let dir = PathBuf::from("/run/credentials/mainstay.service");
    dir.is_dir().then_some(dir)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn first_of_list(paths: PathBuf) -> PathBuf {
    match paths.to_str().and_then(|paths| paths.split_once(':')) {
        Some((first, _)) => PathBuf::from(first),
        None => paths,
    }
}

fn is_writable(directory: &Path) -> bool {
    use rustix::fs::{Access, access};
    let rights = Access::WRITE_OK | Access::EXEC_OK;
    if directory.exists() {
        return directory.is_dir() && access(directory, rights).is_ok();
    }
    directory.parent().is_some_and(|parent| access(parent, rights).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere() -> Environment {
        Environment { writable: |_| true, ..Environment::empty() }
    }

    #[test]
    fn directories_are_looked_for_in_the_contracts_order() {
        let dir = |path: &str| Some(PathBuf::from(path));
        let xdg =
            Environment { xdg_runtime_dir: dir("/run/user/7"), home: dir("/home/a"), ..Environment::empty() };
        let units =
            Environment { runtime_directory: dir("/run/ours"), state_directory: dir("/s"), ..anywhere() };
        let state_home = Environment { xdg_state_home: dir("/home/a/.state"), ..xdg.clone() };
        for (environment, run_dir, state_dir) in [
            (units, dir("/run/ours"), "/s"),
            (anywhere(), dir("/run/mainstay"), "/var/lib/mainstay"),
            (Environment { writable: |_| true, ..xdg.clone() }, dir("/run/mainstay"), "/var/lib/mainstay"),
            (xdg, dir("/run/user/7/mainstay"), "/home/a/.local/state/mainstay"),
            (state_home, dir("/run/user/7/mainstay"), "/home/a/.state/mainstay"),
            (Environment::empty(), None, "/var/lib/mainstay"),
        ] {
            assert_eq!(
                (environment.run_dir(), environment.state_dir()),
                (run_dir, PathBuf::from(state_dir)),
                "{environment:?}"
            );
        }
    }

    #[test]
    fn a_directory_is_writable_when_it_or_the_place_for_it_is() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("file");
        std::fs::write(&file, "").expect("a file");
        assert!(is_writable(place.path()));
        assert!(is_writable(&place.path().join("new")));
        assert!(!is_writable(&place.path().join("no/such")));
        assert!(!is_writable(&file));
    }

    #[test]
    fn of_several_directories_the_first_is_ours() {
        assert_eq!(first_of_list(PathBuf::from("/run/a:/run/b")), PathBuf::from("/run/a"));
        assert_eq!(first_of_list(PathBuf::from("/run/a")), PathBuf::from("/run/a"));
    }
}
