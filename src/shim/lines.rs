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
    /// Its end has not come for a while, or will never come.
    Open,
    /// What followed was dropped.
    Cut,
}

/// Splits one stream. Memory is bounded by [`LINE_MAX`] whatever comes in.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
    /// When the first byte of `partial` came.
    since: Moment,
    /// A `\r` came last: the next byte decides between the end of a line and a repaint.
    after_return: bool,
    last_repaint: Option<Moment>,
    /// Drop everything up to the next line end: this line was shown as cut or has been counted.
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
                self.end(line);
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
            self.take(now, head, line);
            match (returned, rest.first()) {
                (false, _) => self.end(line),
                (true, None) => self.after_return = true,
                (true, Some(b'\n')) => {
                    rest = &rest[1..];
                    self.end(line);
                }
                (true, Some(_)) => self.repaint(now, line),
            }
        }
        self.take(now, rest, line);
    }

    /// Takes bytes in that are not kept. Gives the number of lines that are lost with them: those that begin in them, all
    /// of them or not. A line that had begun before is given to `line` as it is, and the rest of it is dropped.
    pub fn skip(&mut self, bytes: &[u8], line: &mut impl FnMut(&[u8], End)) -> u64 {
        let Some(last) = bytes.last() else { return 0 };
        let begun = self.resuming || !self.partial.is_empty();
        self.after_return = false;
        self.show_partial(End::Cut, line);
        self.resuming = *last != b'\n';
        let ends = bytes.iter().filter(|b| **b == b'\n').count();
        (ends + usize::from(self.resuming) - usize::from(begun)) as u64
    }

    /// What is there that no line end has completed.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// When it began.
    pub fn partial_since(&self) -> Option<Moment> {
        (!self.partial.is_empty()).then_some(self.since)
    }

    /// Gives out what is there as a line of its own: nothing more will come, or its end has not come for a while.
    pub fn flush(&mut self, line: &mut impl FnMut(&[u8], End)) {
        self.after_return = false;
        self.show_partial(End::Open, line);
    }

    fn show_partial(&mut self, end: End, line: &mut impl FnMut(&[u8], End)) {
        if !self.partial.is_empty() {
            line(&self.partial, end);
            self.partial.clear();
        }
    }

    /// Bytes of one line. Once it is too long it is given out, and nothing of it is kept any more.
    fn take(&mut self, now: Moment, bytes: &[u8], line: &mut impl FnMut(&[u8], End)) {
        if self.resuming || bytes.is_empty() {
            return;
        }
        if self.partial.is_empty() {
            self.since = now;
        }
        let room = LINE_MAX - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            self.show_partial(End::Cut, line);
            self.resuming = true;
        }
    }

    fn end(&mut self, line: &mut impl FnMut(&[u8], End)) {
        if !std::mem::take(&mut self.resuming) {
            line(&self.partial, End::Whole);
            self.partial.clear();
        }
    }

    fn repaint(&mut self, now: Moment, line: &mut impl FnMut(&[u8], End)) {
        let due = self.last_repaint.is_none_or(|last| now.since(last) >= REPAINT_EVERY);
        if due && !self.partial.is_empty() {
            self.last_repaint = Some(now);
            self.end(line);
        } else {
            self.partial.clear();
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

    /// What was fed and skipped in turn, with the lines that came out and the number of those that did not.
    fn after(steps: &[(bool, &[u8])]) -> (Vec<(String, End)>, u64) {
        let (mut splitter, mut got, mut dropped) = (Splitter::default(), Vec::new(), 0);
        let mut line = |line: &[u8], end| got.push((String::from_utf8_lossy(line).into_owned(), end));
        for (skip, bytes) in steps {
            if *skip {
                dropped += splitter.skip(bytes, &mut line);
            } else {
                splitter.feed(Moment::from_nanos(0), bytes, &mut line);
            }
        }
        splitter.flush(&mut line);
        (got, dropped)
    }

    /// Seen to fail when the line that the skipping stopped in was not counted, and when the line after it was lost too.
    #[test]
    fn a_line_that_is_skipped_in_part_is_shown_as_cut_or_counted() {
        const SKIP: bool = true;
        const FEED: bool = false;
        let check = |steps: &[(bool, &[u8])], lines: &[(&str, End)], dropped: u64| {
            let lines = lines.iter().map(|(line, end)| ((*line).to_owned(), *end)).collect();
            assert_eq!(after(steps), (lines, dropped), "{steps:?}");
        };
        let (half, kept) = (("half", End::Cut), ("kept", End::Whole));
        check(&[(FEED, b"half"), (SKIP, b" gone\ngone\ngo"), (FEED, b"ne\nkept\n")], &[half, kept], 2);
        check(&[(FEED, b"half"), (SKIP, b" gone"), (SKIP, b" gone"), (FEED, b"\nkept\n")], &[half, kept], 0);
        check(&[(FEED, b"half"), (SKIP, b" gone\n"), (FEED, b"kept\n")], &[half, kept], 0);
        check(&[(FEED, b"kept\n"), (SKIP, b"go"), (SKIP, b"ne"), (FEED, b" gone\nkept\n")], &[kept, kept], 1);
        check(&[(SKIP, b"gone\ngone\n"), (FEED, b"kept\n")], &[kept], 2);
        check(&[(SKIP, b"gone\ngo"), (FEED, b"ne")], &[], 2);
        check(&[(SKIP, b""), (FEED, b"kept\n")], &[kept], 0);
    }

    /// Seen to fail when a line that is too long was kept until its end came.
    #[test]
    fn a_line_that_grows_too_long_is_shown_at_once() {
        let (mut splitter, mut got) = (Splitter::default(), Vec::new());
        for dots in [LINE_MAX, 1, LINE_MAX] {
            let dots = vec![b'.'; dots];
            splitter.feed(Moment::from_nanos(0), &dots, &mut |line, end| got.push((line.len(), end)));
        }
        assert_eq!(got, [(LINE_MAX, End::Cut)]);
    }
}
