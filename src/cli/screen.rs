//! What is written on is a terminal, or it is not: width, colours, and output that may end early.
use super::exit::Exit;
use std::io::{self, IsTerminal, Write};

/// Wide enough that nothing is cut: a file or a pipe gets every word.
const UNLIMITED: usize = 100_000;

/// The standard output as far as layout depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    pub terminal: bool,
    /// In columns.
    pub width: usize,
    pub colour: bool,
}

impl Screen {
    pub fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let width = match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if terminal && size.ws_col > 0 => usize::from(size.ws_col),
            _ if terminal => 80,
            _ => UNLIMITED,
        };
        // https://no-color.org: set to anything but the empty string.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { terminal, width, colour: terminal && !plain }
    }
}

/// Writes to the standard output. When that is not possible, the exit status to end with: a reader that has gone
/// (`mainstay logs x | head`) is no failure.
pub fn show(text: impl AsRef<[u8]>) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Exit::Done,
        _ => Exit::Failed,
    })
}

/// Lines on the standard error, as they are. When that cannot be written there is nobody to tell.
pub fn report(lines: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{lines}");
}

/// One line on the standard error, under the program's name.
pub fn complain(sentence: impl std::fmt::Display) {
    report(format_args!("mainstay: {sentence}"));
}
