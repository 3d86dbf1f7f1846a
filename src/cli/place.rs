//! Where a client looks for the agent.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the unit's agent lives.
const SYSTEM: &str = "/run/mainstay";

/// The runtime directory to ask in: `--run-dir`, else `$MAINSTAY_RUN_DIR`, else where the agent would have made its own.
/// Nothing is said about whether an agent is there.
pub fn run_dir(
    flag: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
    is_dir: impl Fn(&Path) -> bool,
) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(named) = flag {
        return named.to_owned();
    }
    if let Some(named) = set("MAINSTAY_RUN_DIR") {
        return named.into();
    }
    if let Some(given) = set("RUNTIME_DIRECTORY") {
        // systemd lists several directories with colons in between; the unit has one.
        let text = given.to_string_lossy();
        return text.split(':').next().unwrap_or(SYSTEM).into();
    }
    if is_dir(Path::new(SYSTEM)) {
        return SYSTEM.into();
    }
    match set("XDG_RUNTIME_DIR") {
        Some(of_user) => Path::new(&of_user).join("mainstay"),
        None => SYSTEM.into(),
    }
}

/// [`run_dir`] of this process.
pub fn here(flag: Option<&Path>) -> PathBuf {
    run_dir(flag, |name| std::env::var_os(name), Path::is_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_was_named_wins() {
        let check = |flag: Option<&str>, variables: &[(&str, &str)], system: bool, expected: &str| {
            let variable = |name: &str| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            let found = run_dir(flag.map(Path::new), variable, |_| system);
            assert_eq!(found, Path::new(expected), "{flag:?} {variables:?} {system}");
        };
        let all = [("MAINSTAY_RUN_DIR", "/m"), ("RUNTIME_DIRECTORY", "/r:/s"), ("XDG_RUNTIME_DIR", "/x")];
        check(Some("/f"), &all, true, "/f");
        check(None, &all, true, "/m");
        check(None, &all[1..], true, "/r");
        check(None, &all[2..], true, "/run/mainstay");
        check(None, &all[2..], false, "/x/mainstay");
        check(None, &[], false, "/run/mainstay");
        check(None, &[("MAINSTAY_RUN_DIR", ""), ("RUNTIME_DIRECTORY", "")], false, "/run/mainstay");
    }
}
