//! `mainstay shim`: internal, started by the agent only.
use super::exit::Exit;
use super::screen::complain;
use crate::shim;
use std::ffi::OsString;
use std::process::ExitCode;

/// Keeps one run. `arguments` are those after the word `shim`: the tier's name, which is there for `ps`.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [tier] => shim::run(&tier.to_string_lossy()),
        _ => {
            complain("`mainstay shim` is internal: `mainstay run` starts it");
            Exit::Usage.into()
        }
    }
}
