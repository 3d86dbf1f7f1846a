//! Every exit status of the program (contract "Command line"). Scripts and the unit file depend on these numbers:
//! `RestartPreventExitStatus=78` in `units/mainstay.service` is [`Exit::Misconfigured`].
use crate::control::client::Failure;
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. `status`: the chain's best tier serves.
    Done = 0,
    /// It failed. `status`: a lower tier serves. `run`: something of a run is left that withstands SIGKILL, too.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// `status` only: the agent runs, and no tier can answer.
    NoneCanAnswer = 3,
    /// The configuration file, or the log to explain, is not there or cannot be read.
    Unreadable = 66,
    /// No agent answers at the socket.
    NoAgent = 69,
    /// `run` only: another agent holds the runtime directory.
    Taken = 75,
    /// The files' rights do not allow it.
    NotPermitted = 77,
    /// The configuration is wrong; every problem was printed.
    Misconfigured = 78,
}

impl Exit {
    /// By number.
    pub const ALL: &[Self] = &[
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NoneCanAnswer,
        Self::Unreadable,
        Self::NoAgent,
        Self::Taken,
        Self::NotPermitted,
        Self::Misconfigured,
    ];

    /// For the manual: when a program ends with it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; status: the best tier serves",
            Self::Failed => {
                "it failed; status: a lower tier serves; run: processes of an engine are left that withstand SIGKILL"
            }
            Self::Usage => "the command line is wrong",
            Self::NoneCanAnswer => "status only: the agent runs, and no tier can answer",
            Self::Unreadable => {
                "the configuration file, or the log to explain, is not there or cannot be read"
            }
            Self::NoAgent => "no agent answers at the socket",
            Self::Taken => "run only: another agent holds the runtime directory",
            Self::NotPermitted => "not permitted",
            Self::Misconfigured => {
                "the configuration is wrong; every problem was printed. systemd does not start the agent again after \
                 this one"
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&Failure> for Exit {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::NoAgent { .. } | Failure::Hung { .. } => Self::NoAgent,
            Failure::NotPermitted { .. } => Self::NotPermitted,
            Failure::Refused { .. } | Failure::Garbled { .. } => Self::Failed,
        }
    }
}

impl From<Result<(), Exit>> for Exit {
    fn from(done: Result<(), Exit>) -> Self {
        done.map_or_else(|exit| exit, |()| Self::Done)
    }
}
