//! Why an agent could not be started, in words that say what to do about it.
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why an agent could not be started.
#[derive(Debug)]
pub enum StartError {
    /// Another agent holds the runtime or state directory, which this key names.
    Held {
        dir: PathBuf,
        key: &'static str,
        holder: String,
    },
    NotPermitted(String),
    Failed(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { dir, key, holder } => write!(
                f,
                "another agent (pid {holder}) holds {}; stop it, or give this one a directory of its own with {key}",
                dir.display()
            ),
            Self::NotPermitted(what) | Self::Failed(what) => f.write_str(what),
        }
    }
}

/// An error with what was being done, and what to do about it.
pub(super) fn failed(doing: impl fmt::Display) -> impl FnOnce(io::Error) -> StartError {
    move |why| {
        let what = format!("{doing}: {why}; {}", remedy(why.kind()));
        if why.kind() == io::ErrorKind::PermissionDenied {
            StartError::NotPermitted(what)
        } else {
            StartError::Failed(what)
        }
    }
}

fn remedy(why: io::ErrorKind) -> &'static str {
    match why {
        io::ErrorKind::PermissionDenied => {
            "give it to the account that mainstay runs as (User= of the unit), or run as another"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            "name other directories with agent.run_dir and agent.state_dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on that file system",
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
            "raise TasksMax=, LimitNPROC= or the memory of the unit"
        }
        _ => "see `mainstay help troubleshooting`",
    }
}
