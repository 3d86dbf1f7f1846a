//! PURE. Bytes of one pipe → lines: cut at a length, progress bars thinned out, invalid UTF-8 left as it is.
use crate::policy::Moment;
use std::time::Duration;

/// Longest line that is kept, in bytes; what follows is dropped up to the line's end.
pub(super) const LINE_MAX: usize = 16 * 1024;

/// A line that ends in `\r` is about to be painted over. One of them a second tells as much as all of them.
const REPAINT_EVERY: Duration = Duration::from_secs(1);

/// How a line came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a line end: it is all there.
    Whole,
    /// Nothing more came for a while, or will ever come.
    Open,
    /// What followed was dropped.
    Cut,
}

/// Splits one stream. Memory is bounded by [`LINE_MAX`] whatever comes in.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
    /// The line in `partial` has passed the limit: the rest of it is being dropped.
    cut: bool,
    /// A `\r` came last: the next byte decides between the end of a line and a repaint.
    after_return: bool,
    last_repaint: Option<Moment>,
    /// Drop everything up to the next line end: the beginning of this line was skipped.
    resuming: bool,
}

impl Splitter {
    /// Takes bytes in, and gives each line that is complete to `line`, without its line end, and how it ended.
    pub fn feed(&mut self, now: Moment, bytes: &[u8], line: &mut impl FnMut(&[u8], End)) {
        let mut rest = bytes;
        if self.after_return && !rest.is_empty() {
            self.after_return = false;
            if rest[0] == b'\n' {
                rest = &rest[1..];
                self.end(End::Whole, line);
            } else {
                self.repaint(now, line);
            }
        }
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (head, tail) = (&rest[..at], &rest[at + 1..]);
            let returned = rest[at] == b'\r';
            rest = tail;
            if !returned && self.partial.is_empty() && !self.resuming && head.len() <= LINE_MAX {
                line(head, End::Whole);
                continue;
            }
            self.take(head);
            match (returned, rest.first()) {
                (false, _) => self.end(End::Whole, line),
                (true, None) => self.after_return = true,
                (true, Some(b'\n')) => {
                    rest = &rest[1..];
                    self.end(End::Whole, line);
                }
                (true, Some(_)) => self.repaint(now, line),
            }
        }
        self.take(rest);
    }

    /// Counts the line ends of bytes that are not kept. The line that was being read, and the one that the skipping
    /// will stop in, are given up.
    pub fn skip(&mut self, bytes: &[u8], line: &mut impl FnMut(&[u8], End)) -> u64 {
        if !self.resuming {
            self.cut = !self.partial.is_empty();
            self.flush(line);
            self.resuming = true;
        }
        bytes.iter().filter(|b| **b == b'\n').count() as u64
    }

    /// What is there that no line end has completed.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Gives out what is there as a line of its own: nothing more will come, or nothing has come for a while.
    pub fn flush(&mut self, line: &mut impl FnMut(&[u8], End)) {
        self.after_return = false;
        if !self.partial.is_empty() {
            self.end(End::Open, line);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.resuming || self.cut {
            return;
        }
        let room = LINE_MAX - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut = bytes.len() > room;
    }

    fn end(&mut self, end: End, line: &mut impl FnMut(&[u8], End)) {
        if std::mem::take(&mut self.resuming) {
            return;
        }
        line(&self.partial, if std::mem::take(&mut self.cut) { End::Cut } else { end });
        self.partial.clear();
    }

    fn repaint(&mut self, now: Moment, line: &mut impl FnMut(&[u8], End)) {
        let due = self.last_repaint.is_none_or(|last| now.since(last) >= REPAINT_EVERY);
        if due && !self.partial.is_empty() {
            self.last_repaint = Some(now);
            self.end(End::Whole, line);
        } else {
            self.partial.clear();
            self.cut = false;
            self.resuming = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds chunks `step` apart, flushes, and compares the lines that came out.
    fn check(step: Duration, chunks: &[&[u8]], expected: &[&[u8]]) {
        let expected: Vec<(&[u8], End)> = expected.iter().map(|line| (*line, End::Whole)).collect();
        check_ends(step, chunks, &expected);
    }

    /// The same, with how each ended.
    fn check_ends(step: Duration, chunks: &[&[u8]], expected: &[(&[u8], End)]) {
        let (mut splitter, mut got) = (Splitter::default(), Vec::new());
        let mut now = Moment::from_nanos(0);
        let show = |line: &[u8], end| (String::from_utf8_lossy(line).into_owned(), end);
        for chunk in chunks {
            splitter.feed(now, chunk, &mut |line, end| got.push(show(line, end)));
            now = now + step;
        }
        splitter.flush(&mut |line, end| got.push(show(line, end)));
        assert_eq!(got, expected.iter().map(|(line, end)| show(line, *end)).collect::<Vec<_>>());
    }

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn lines_are_whole_wherever_the_chunks_are_cut() {
        check(AT_ONCE, &[b"one\ntwo\n"], &[b"one", b"two"]);
        check(AT_ONCE, &[b"on", b"e\ntw", b"o", b"\n"], &[b"one", b"two"]);
        check_ends(AT_ONCE, &[b"no end"], &[(b"no end", End::Open)]);
        check(AT_ONCE, &[b"\n\na\n"], &[b"", b"", b"a"]);
        check(AT_ONCE, &[b"dos\r\nline\r", b"\nend\n"], &[b"dos", b"line", b"end"]);
        check(AT_ONCE, &[b"bad \xff\xfe utf\n"], &[b"bad \xff\xfe utf"]);
    }

    #[test]
    fn repaints_are_thinned_out_to_one_a_second() {
        let bar: &[&[u8]] = &[b"\r 1%", b"\r 2%", b"\r 3%", b"\r 4%", b"\r100%\n"];
        check(AT_ONCE, bar, &[b" 1%", b"100%"]);
        check(Duration::from_millis(500), bar, &[b" 1%", b" 3%", b"100%"]);
        check(REPAINT_EVERY, bar, &[b" 1%", b" 2%", b" 3%", b" 4%", b"100%"]);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; LINE_MAX + 1];
        let expected: [(&[u8], End); 2] = [(&long[..LINE_MAX], End::Cut), (b"next", End::Whole)];
        check_ends(AT_ONCE, &[&long, b"yyy\nnext\n"], &expected);
        check(AT_ONCE, &[&long[..LINE_MAX], b"\nnext\n"], &[&long[..LINE_MAX], b"next"]);
        let mut input = long.clone();
        input.extend_from_slice(b"\nnext\n");
        check_ends(AT_ONCE, &[&input], &expected);
    }

    #[test]
    fn skipping_counts_lines_and_resumes_at_a_line_start() {
        let (mut splitter, mut got) = (Splitter::default(), Vec::new());
        let mut line = |l: &[u8], end| got.push((l.to_vec(), end));
        let now = Moment::from_nanos(0);
        splitter.feed(now, b"kept\nhalf", &mut line);
        assert_eq!(splitter.skip(b" gone\ngone\ngo", &mut line), 2);
        splitter.feed(now, b"ne\nkept too\n", &mut line);
        let expected = [("kept", End::Whole), ("half", End::Cut), ("kept too", End::Whole)];
        assert_eq!(got, expected.map(|(line, end)| (line.as_bytes().to_vec(), end)));
    }
}
