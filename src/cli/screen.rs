//! What is written on is a terminal, or it is not: width, colours, and output that may end early.
use super::exit::Exit;
use crate::printable;
use crate::redact::Redactor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

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

/// JSON for programs, which may be looked at on a terminal all the same: it means the same, and commands none.
pub fn show_json(text: &str) -> Result<(), Exit> {
    show(printable::json(text).as_ref())
}

/// Waits this long, or until nobody reads the standard output any more: true. A write would find that out as well, but
/// there may be nothing to write for hours.
pub fn wait_for_reader_to_go(pause: Duration) -> bool {
    let out = io::stdout();
    // Nothing is asked for: a pipe without a reader, or a terminal that was hung up, says so by itself.
    let mut watched = [PollFd::new(&out, PollFlags::empty())];
    let limit = Timespec::try_from(pause).ok();
    match poll(&mut watched, limit.as_ref()) {
        Ok(_) => watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
        Err(_) => {
            std::thread::sleep(pause);
            false
        }
    }
}

/// Lines on the standard error, as they are but for what looks like a secret or commands a terminal: a message about a
/// wrong value may quote it. When that cannot be written there is nobody to tell.
pub fn report(lines: impl std::fmt::Display) {
    let lines = lines.to_string();
    let _ = writeln!(io::stderr(), "{}", printable::lines(&Redactor::of_forms().text(&lines)));
}

/// One line on the standard error, under the program's name.
pub fn complain(sentence: impl std::fmt::Display) {
    report(format_args!("mainstay: {sentence}"));
}
