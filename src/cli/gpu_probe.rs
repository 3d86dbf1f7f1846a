//! `mainstay gpu-probe`: internal, started by the agent only.
use super::exit::Exit;
use super::screen::complain;
use crate::gpu;
use std::process::ExitCode;

/// Asks the GPU driver, when the agent asks for it.
pub fn main() -> ExitCode {
    gpu::run().unwrap_or_else(|| {
        complain("`mainstay gpu-probe` is internal: `mainstay run` starts it, and `mainstay gpus` shows what it found");
        Exit::Usage.into()
    })
}
