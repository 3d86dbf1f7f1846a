//! The command line; so far the shim alone, which the agent starts.
use std::process::ExitCode;

pub fn main() -> ExitCode {
    match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, verb, tier] if verb == "shim" => crate::shim::run(tier),
        _ => ExitCode::from(2),
    }
}
