//! The engine's lines for journald, in its own datagram protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL): one message
//! a line, under the tier's name. journald's stream protocol would make whoever writes wait for it.
//!
//! Nothing here waits. What the journal does not take at once, or what is more than it would take before it begins to
//! drop for the whole unit, is dropped here and counted; the ring has it. A journald that is restarted is found again,
//! because each message goes to the socket's name.
use super::ring::Stream;
use crate::policy::Moment;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// journald keeps 10,000 lines in 30 s of one unit and drops the rest, the agent's own lines too. So a run gets this many
/// at once …
const BURST: u32 = 4_000;
/// … and one more for each time that has passed: 7,000 in 30 s at most.
const EVERY: Duration = Duration::from_millis(10);
/// Between two tries to tell what was dropped.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// In so many first bytes of a line its level is looked for.
const LEVEL_WITHIN: usize = 64;

/// Of syslog(3).
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;
const DEBUG: u8 = 7;

#[derive(Debug)]
pub(super) struct Journal {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// The fields that every message has.
    head: Vec<u8>,
    message: Vec<u8>,
    /// Messages that may go out now, and since when they are counted.
    allowed: u32,
    counted: Moment,
    /// Lines that nobody has been told of, and when to try to.
    dropped: u64,
    say_at: Option<Moment>,
}

impl Journal {
    /// The socket at `path` need not be there yet.
    pub fn new(path: &Path, tier: &str, run: u64) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // A tier's name has no character that would need another spelling.
        let head = format!("SYSLOG_IDENTIFIER=mainstay-{tier}\nMAINSTAY_TIER={tier}\nMAINSTAY_RUN={run}\n");
        Ok(Self {
            socket,
            address: SocketAddrUnix::new(path)?,
            head: head.into_bytes(),
            message: Vec::new(),
            allowed: BURST,
            counted: Moment::default(),
            dropped: 0,
            say_at: None,
        })
    }

    /// Passes a line on, or counts it.
    pub fn line(&mut self, now: Moment, stream: Stream, line: &[u8]) {
        if self.dropped > 0 && self.say_at.is_some_and(|at| now >= at) {
            self.say_dropped(now);
        }
        // As long as something is dropped everything is, or it could not be said where.
        if self.dropped > 0 || !self.is_allowed(now) || !self.send(priority(stream, line), line) {
            self.dropped += 1;
            self.say_at.get_or_insert(now + SAY_AGAIN);
        }
    }

    /// Tells the journal what it has missed, once it is due.
    pub fn tick(&mut self, now: Moment) {
        if self.say_at.is_some_and(|at| now >= at) {
            self.say_dropped(now);
        }
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.say_at
    }

    fn say_dropped(&mut self, now: Moment) {
        let text = format!("mainstay: {} lines are not in the journal, see `mainstay logs`", self.dropped);
        if self.is_allowed(now) && self.send(WARNING, text.as_bytes()) {
            self.dropped = 0;
            self.say_at = None;
        } else {
            self.say_at = Some(now + SAY_AGAIN);
        }
    }

    fn is_allowed(&mut self, now: Moment) -> bool {
        let earned = now.since(self.counted).as_nanos() / EVERY.as_nanos();
        if earned > 0 {
            self.allowed = self.allowed.saturating_add(u32::try_from(earned).unwrap_or(BURST)).min(BURST);
            self.counted = now;
        }
        let allowed = self.allowed > 0;
        self.allowed = self.allowed.saturating_sub(1);
        allowed
    }

    /// True when the journal has taken it.
    fn send(&mut self, priority: u8, text: &[u8]) -> bool {
        self.message.clear();
        self.message.extend_from_slice(&self.head);
        self.message.extend_from_slice(&[
            b'P',
            b'R',
            b'I',
            b'O',
            b'R',
            b'I',
            b'T',
            b'Y',
            b'=',
            b'0' + priority,
        ]);
        // The spelling for values with any byte in them.
        self.message.extend_from_slice(b"\nMESSAGE\n");
        self.message.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.message.extend_from_slice(text);
        self.message.push(b'\n');
        sendto(&self.socket, &self.message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &self.address).is_ok()
    }
}

/// The line's own level where it begins with one; else standard error counts for a little more.
fn priority(stream: Stream, line: &[u8]) -> u8 {
    const WORDS: [(&[u8], u8); 8] = [
        (b"ERROR", ERROR),
        (b"CRITICAL", ERROR),
        (b"FATAL", ERROR),
        (b"Traceback", ERROR),
        (b"WARN", WARNING),
        (b"INFO", INFO),
        (b"DEBUG", DEBUG),
        (b"level=error", ERROR),
    ];
    let start = &line[..line.len().min(LEVEL_WITHIN)];
    let said = (0..start.len())
        .filter(|at| start[*at].is_ascii_alphabetic())
        .find_map(|at| WORDS.iter().find(|(word, _)| start[at..].starts_with(word)));
    match (said, stream) {
        (Some((_, priority)), _) => *priority,
        (None, Stream::Out) => INFO,
        (None, Stream::Err | Stream::Note) => NOTICE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    struct Rig {
        dir: tempfile::TempDir,
        journal: Journal,
        now: Moment,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let journal = Journal::new(&dir.path().join("socket"), "cpu", 7).unwrap();
            Self { dir, journal, now: Moment::from_nanos(1_000_000_000) }
        }

        fn journald(&self) -> UnixDatagram {
            let path = self.dir.path().join("socket");
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(path).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }

        fn line(&mut self, text: &str) {
            self.journal.line(self.now, Stream::Out, text.as_bytes());
        }

        fn later(&mut self) {
            self.now = self.now + SAY_AGAIN;
            self.journal.tick(self.now);
        }
    }

    fn received(journald: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 4096];
        let len = journald.recv(&mut bytes).ok()?;
        let (head, text) = bytes[..len].split_at(bytes.windows(9).position(|w| w == b"\nMESSAGE\n")? + 9);
        assert!(
            head.starts_with(b"SYSLOG_IDENTIFIER=mainstay-cpu\nMAINSTAY_TIER=cpu\nMAINSTAY_RUN=7\nPRIORITY=")
        );
        let (said, text) = text.split_at(8);
        assert_eq!(u64::from_le_bytes(said.try_into().unwrap()) as usize, text.len() - 1);
        Some(String::from_utf8_lossy(&text[..text.len() - 1]).into_owned())
    }

    fn all(journald: &UnixDatagram) -> Vec<String> {
        std::iter::from_fn(|| received(journald)).collect()
    }

    #[test]
    fn a_journal_that_goes_and_comes_back_is_found_again_and_told_what_it_missed() {
        let mut rig = Rig::new();
        let first = rig.journald();
        rig.line("one");
        assert_eq!(all(&first), ["one"]);
        drop(first);
        rig.line("two");
        rig.line("three");
        assert!(rig.journal.deadline().is_some());
        rig.later();
        let second = rig.journald();
        rig.later();
        rig.line("four");
        let missed = "mainstay: 2 lines are not in the journal, see `mainstay logs`";
        assert_eq!(all(&second), [missed, "four"]);
        assert_eq!(rig.journal.deadline(), None);
    }

    /// Seen to fail (it hangs) with a socket that waits.
    #[test]
    fn a_journal_that_takes_nothing_delays_nobody_and_every_line_is_accounted_for() {
        let mut rig = Rig::new();
        let journald = rig.journald();
        const LINES: usize = 3_000;
        (0..LINES).for_each(|n| rig.line(&n.to_string()));
        let kept = all(&journald);
        assert!(!kept.is_empty() && kept.len() < LINES, "{} of {LINES}", kept.len());
        rig.later();
        let note =
            format!("mainstay: {} lines are not in the journal, see `mainstay logs`", LINES - kept.len());
        assert_eq!(all(&journald), [note]);
    }

    /// Else journald would drop what the agent itself has to say. Seen to fail without the bound.
    #[test]
    fn a_flood_stays_below_what_journald_takes_from_one_unit() {
        let mut rig = Rig::new();
        let journald = rig.journald();
        let mut taken = 0;
        for n in 0..60_000_u64 {
            rig.now = Moment::from_nanos(1_000_000_000 + n * 500_000);
            rig.line("x");
            taken += all(&journald).len();
        }
        assert!((BURST as usize..=7_100).contains(&taken), "{taken} in 30 s");
    }

    #[test]
    fn the_lines_own_level_decides_and_else_its_stream() {
        for (stream, line, expected) in [
            (Stream::Out, "plain", INFO),
            (Stream::Err, "plain", NOTICE),
            (Stream::Err, "INFO 11-23 03:43:49 [core.py:58] no ERROR here", INFO),
            (Stream::Out, "(EngineCore pid=7) ERROR 11-23 x", ERROR),
            (Stream::Err, "time=2026-11-23 level=WARN msg=x", WARNING),
            (Stream::Err, "Traceback (most recent call last):", ERROR),
            (Stream::Note, "the agent is gone: stopping", NOTICE),
        ] {
            assert_eq!(priority(stream, line.as_bytes()), expected, "{line}");
        }
    }
}
