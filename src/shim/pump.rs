//! Engine output → lines. The pipes are drained whatever happens: an engine whose pipe is full stops, one whose reader is
//! gone dies. When lines come faster than they can be kept, the older ones are read over and counted, so that the ring
//! holds the newest; and no turn takes more than its share, so that commands are heard in a flood.
use super::lines::Splitter;
use super::protocol::FromShim;
use super::ring::Stream;
use super::sink::Sink;
use crate::clock;
use crate::policy::Moment;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

const READ_LEN: usize = 64 * 1024;
/// Reads of one pipe in one turn.
const READS_PER_TURN: usize = 8;
/// Asked for; the kernel may give less to a user who has many pipes.
const PIPE_LEN: usize = 1024 * 1024;
/// A burst may be this long before any of it is read over: no longer one fits into the ring anyway.
const BURST_KEPT: usize = 1024 * 1024;
/// A line that has no end yet is shown as it is so long after its beginning, whether more of it comes or not.
const PARTIAL_AFTER: Duration = Duration::from_secs(1);
const ACTIVITY_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Pipe {
    /// `None` once every writer is gone.
    fd: Option<OwnedFd>,
    stream: Stream,
    splitter: Splitter,
    /// What the kernel gave.
    len: usize,
    /// The line that has no end yet may end in half a secret: it is shown with the rest of it only.
    held: bool,
    /// Bytes read since it was last seen empty.
    burst: usize,
}

impl Pipe {
    /// When to show the line that has no end yet.
    fn partial_due(&self) -> Option<Moment> {
        let since = self.splitter.partial_since().filter(|_| !self.held);
        since.map(|since| since + PARTIAL_AFTER)
    }
}

#[derive(Debug)]
pub(super) struct Pump {
    pipes: [Pipe; 2],
    buffer: Vec<u8>,
    lines: u64,
    bytes: u64,
    /// Bytes when activity was last told, and when that was.
    told: Option<(u64, Moment)>,
    /// Lines read over that no note tells of yet, and since when.
    unsaid: u64,
    unsaid_since: Option<Moment>,
}

impl Pump {
    pub fn new(out: OwnedFd, err: OwnedFd) -> Self {
        let pipe = |fd: OwnedFd, stream| {
            // Of this end only: the engine's end goes on blocking, as it expects.
            let _ = rustix::io::ioctl_fionbio(&fd, true);
            let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_LEN);
            let len = rustix::pipe::fcntl_getpipe_size(&fd).unwrap_or(READ_LEN);
            Pipe { fd: Some(fd), stream, splitter: Splitter::default(), len, held: false, burst: 0 }
        };
        Self {
            pipes: [pipe(out, Stream::Out), pipe(err, Stream::Err)],
            buffer: vec![0; READ_LEN],
            lines: 0,
            bytes: 0,
            told: None,
            unsaid: 0,
            unsaid_since: None,
        }
    }

    /// What to poll for reading, with the number to give to [`Pump::turn`].
    pub fn open(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let pipes = self.pipes.iter().enumerate();
        pipes.filter_map(|(which, pipe)| Some((which, pipe.fd.as_ref()?.as_fd())))
    }

    /// One turn's share of one pipe.
    pub fn turn(&mut self, now: Moment, which: usize, sink: &mut Sink) {
        let half = self.pipes[which].len / 2;
        let mut over = self.waiting(which).saturating_sub(half);
        for _ in 0..READS_PER_TURN {
            // Still half full after so much: we are behind. Read over what is older than the last half pipe.
            let skip = over > 0 && self.pipes[which].burst > BURST_KEPT;
            match self.read(now, which, READ_LEN, skip, sink) {
                Some(len) => over = over.saturating_sub(len),
                None => break,
            }
        }
        // Reads that took just what was there have not seen that nothing is left.
        if self.waiting(which) == 0 {
            self.pipes[which].burst = 0;
        }
        sink.flush();
    }

    /// Takes what the engine had written before it ended, all of it, and nothing that others add meanwhile.
    pub fn drain(&mut self, now: Moment, sink: &mut Sink) {
        for which in 0..self.pipes.len() {
            let mut waiting = self.waiting(which);
            while waiting > 0 {
                let Some(len) = self.read(now, which, waiting.min(READ_LEN), false, sink) else { break };
                waiting -= len;
            }
            self.flush_partial(which, sink);
        }
        self.say_dropped(sink);
        sink.flush();
    }

    /// Lets go of the pipes: the run has ended, and whoever still holds the other ends is none of ours.
    pub fn close(&mut self) {
        self.pipes.iter_mut().for_each(|pipe| pipe.fd = None);
        self.buffer = Vec::new();
    }

    /// Does what is due by now: shows lines without an end, notes dropped lines, and gives the message on activity.
    pub fn tick(&mut self, now: Moment, sink: &mut Sink) -> Option<FromShim> {
        for which in 0..self.pipes.len() {
            let pipe = &mut self.pipes[which];
            if pipe.partial_due().is_some_and(|due| now >= due) {
                pipe.held = sink.may_go_on(pipe.splitter.partial());
                if !pipe.held {
                    self.flush_partial(which, sink);
                }
            }
        }
        if self.unsaid_since.is_some_and(|since| now.since(since) >= ACTIVITY_EVERY) {
            self.say_dropped(sink);
        }
        sink.flush();
        let due = match self.told {
            None => self.bytes > 0,
            Some((bytes, at)) => self.bytes > bytes && now.since(at) >= ACTIVITY_EVERY,
        };
        due.then(|| {
            self.told = Some((self.bytes, now));
            self.activity()
        })
    }

    /// Output so far.
    pub fn activity(&self) -> FromShim {
        FromShim::Activity { lines: self.lines, bytes: self.bytes }
    }

    /// When [`Pump::tick`] has something to do, without any more output.
    pub fn deadline(&self) -> Option<Moment> {
        let partial = self.pipes.iter().filter_map(Pipe::partial_due).min();
        let note = self.unsaid_since.map(|since| since + ACTIVITY_EVERY);
        let told = self.told.filter(|(bytes, _)| self.bytes > *bytes).map(|(_, at)| at + ACTIVITY_EVERY);
        [partial, note, told].into_iter().flatten().min()
    }

    fn waiting(&self, which: usize) -> usize {
        let fd = self.pipes[which].fd.as_ref();
        fd.and_then(|fd| rustix::io::ioctl_fionread(fd).ok()).unwrap_or_default() as usize
    }

    /// One read. `None`: nothing more is there now, or ever.
    fn read(&mut self, now: Moment, which: usize, max: usize, skip: bool, sink: &mut Sink) -> Option<usize> {
        let pipe = &mut self.pipes[which];
        let answer = rustix::io::read(pipe.fd.as_ref()?, &mut self.buffer[..max]);
        let len = match answer {
            Ok(len) if len > 0 => len,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                pipe.burst = 0;
                return None;
            }
            Ok(_) | Err(_) => {
                pipe.fd = None;
                self.flush_partial(which, sink);
                return None;
            }
        };
        pipe.held = false;
        pipe.burst = pipe.burst.saturating_add(len);
        self.bytes += len as u64;
        let (at_ms, stream, lines) = (clock::wall_ms(), pipe.stream, &mut self.lines);
        let bytes = &self.buffer[..len];
        let mut line = |line: &[u8], end| {
            *lines += 1;
            sink.line(at_ms, stream, line, end);
        };
        if skip {
            let dropped = pipe.splitter.skip(bytes, &mut line);
            self.lines += dropped;
            self.unsaid += dropped;
            if self.unsaid > 0 {
                self.unsaid_since.get_or_insert(now);
            }
            sink.count_dropped(dropped);
        } else {
            pipe.splitter.feed(now, bytes, &mut line);
        }
        Some(len)
    }

    fn flush_partial(&mut self, which: usize, sink: &mut Sink) {
        let (pipe, lines) = (&mut self.pipes[which], &mut self.lines);
        let (at_ms, stream) = (clock::wall_ms(), pipe.stream);
        pipe.splitter.flush(&mut |line, end| {
            *lines += 1;
            sink.line(at_ms, stream, line, end);
        });
    }

    fn say_dropped(&mut self, sink: &mut Sink) {
        let (lines, since) = (std::mem::take(&mut self.unsaid), self.unsaid_since.take());
        if since.is_some() {
            sink.note(&format!("{lines} lines dropped: they came faster than they could be kept"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::ring::{Reader, Writer};
    use std::io::Write;

    const NOW: Moment = Moment::from_nanos(1);

    struct Rig {
        _dir: tempfile::TempDir,
        pump: Pump,
        sink: Sink,
        reader: Reader,
        engine: std::fs::File,
        _err: OwnedFd,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let sink = Sink::of(Writer::create(&path).unwrap());
        let (out, engine) = rustix::pipe::pipe().unwrap();
        let (err, err_write) = rustix::pipe::pipe().unwrap();
        let pump = Pump::new(out, err);
        // The engine's end blocks; a test must not.
        rustix::io::ioctl_fionbio(&engine, true).unwrap();
        let reader = Reader::open(&path).unwrap();
        Rig { _dir: dir, pump, sink, reader, engine: engine.into(), _err: err_write }
    }

    impl Rig {
        /// Writes numbered lines until the pipe is full; gives the number of the next.
        fn fill(&mut self, mut line: u64) -> u64 {
            // Whole pages only: then no line is written in part.
            while self.engine.write(format!("{line:>4095}\n").as_bytes()).is_ok() {
                line += 1;
            }
            line
        }

        fn waiting(&self) -> usize {
            self.pump.waiting(0)
        }
    }

    /// Seen to fail with a loop until the pipe is empty: a flood would then keep every command waiting.
    #[test]
    fn a_turn_takes_no_more_than_its_share() {
        let mut rig = rig();
        rig.fill(0);
        let before = rig.waiting();
        assert!(before > READ_LEN * READS_PER_TURN, "the pipe is too small for this test: {before}");
        rig.pump.turn(NOW, 0, &mut rig.sink);
        assert_eq!(rig.waiting(), before - READ_LEN * READS_PER_TURN);
    }

    /// Seen to fail without reading over. Nothing of a first burst is dropped; of a lasting one the newest lines stay.
    #[test]
    fn in_a_lasting_flood_old_lines_are_counted_and_the_newest_are_kept() {
        let mut rig = rig();
        let mut lines = rig.fill(0);
        rig.pump.drain(NOW, &mut rig.sink);
        assert_eq!(rig.reader.totals().unwrap().dropped, 0, "a whole pipe at once is kept");
        for _ in 0..20 {
            lines = rig.fill(lines);
            rig.pump.turn(NOW, 0, &mut rig.sink);
        }
        rig.pump.drain(NOW, &mut rig.sink);
        let totals = rig.reader.totals().unwrap();
        assert!(totals.dropped > lines / 4, "{totals:?} of {lines}");
        let kept = rig.reader.last(usize::MAX).unwrap();
        let newest = kept.iter().rev().find(|line| line.stream == Stream::Out).unwrap();
        assert_eq!(String::from_utf8_lossy(&newest.bytes).trim(), (lines - 1).to_string());
        let note = kept.iter().find(|line| line.stream == Stream::Note).expect("a note tells of it");
        assert!(String::from_utf8_lossy(&note.bytes).contains("lines dropped"));
        let FromShim::Activity { lines: counted, .. } = rig.pump.activity() else { panic!() };
        assert_eq!(counted, lines, "each is kept or dropped, and counted once");
    }

    /// Seen to fail when only a read that finds nothing ends a burst: reads that take just what is there never see that.
    #[test]
    fn long_lines_that_are_read_in_time_are_all_kept() {
        const LINES: u64 = 6;
        let mut rig = rig();
        let mut line = vec![b'x'; 1 << 20];
        line[(1 << 20) - 1] = b'\n';
        for _ in 0..LINES {
            let mut rest = &line[..];
            while !rest.is_empty() {
                rest = &rest[rig.engine.write(rest).unwrap()..];
                while rig.waiting() > 0 {
                    rig.pump.turn(NOW, 0, &mut rig.sink);
                }
            }
        }
        let totals = rig.reader.totals().unwrap();
        assert_eq!((totals.lines, totals.dropped), (LINES, 0));
    }

    #[test]
    fn in_a_flood_of_long_lines_each_is_kept_or_counted() {
        // No whole number of reads: what is read over begins and ends in the midst of lines.
        const LEN: usize = 300_000;
        let mut rig = rig();
        let mut line = vec![b'x'; LEN];
        line[LEN - 1] = b'\n';
        let mut written = 0;
        for _ in 0..60 {
            while let Ok(len) = rig.engine.write(&line[written % LEN..]) {
                written += len;
            }
            rig.pump.turn(NOW, 0, &mut rig.sink);
        }
        rig.pump.drain(NOW, &mut rig.sink);
        let lines = written.div_ceil(LEN) as u64;
        let totals = rig.reader.totals().unwrap();
        // One of those in the ring is the note.
        assert_eq!(totals.lines - 1 + totals.dropped, lines, "{totals:?}");
        assert!(totals.dropped > 0, "{totals:?}");
        let kept = rig.reader.last(usize::MAX).unwrap();
        let note = kept.iter().find(|line| line.stream == Stream::Note).expect("a note tells of it");
        assert!(note.bytes.starts_with(format!("{} lines dropped", totals.dropped).as_bytes()));
    }

    /// Seen to fail when the time counts from the last read: a steady row of dots was never shown.
    #[test]
    fn output_without_a_line_end_is_shown_while_it_flows() {
        let mut rig = rig();
        let mut now = NOW;
        for _ in 0..5 {
            assert_eq!(rig.reader.totals().unwrap().lines, 0);
            rig.engine.write_all(b"...").unwrap();
            rig.pump.turn(now, 0, &mut rig.sink);
            rig.pump.tick(now, &mut rig.sink);
            now = now + PARTIAL_AFTER / 4;
        }
        let shown = rig.reader.last(1).unwrap();
        assert_eq!(shown.first().map(|line| line.bytes.as_slice()), Some(b"...............".as_slice()));
        assert!(rig.pump.deadline().is_none_or(|deadline| deadline > now), "it does not spin");
    }
}
