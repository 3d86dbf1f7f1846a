//! The end of a log of any size, read in bounded memory, its lines numbered from the beginning.
use std::collections::VecDeque;
use std::io::{self, BufRead};

/// How much is kept: more than any diagnosis looks back.
const LINES_MAX: usize = 20_000;
const BYTES_MAX: usize = 16 << 20;
/// Longest line; the rest of a longer one is left out.
const LINE_MAX: usize = 16 << 10;

/// One line; or, where a line was overwritten with carriage returns, one of its states.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1, counted by line feeds.
    pub number: u64,
    pub text: String,
}

#[derive(Debug, Default)]
pub struct Tail {
    /// Lines without text are not among them.
    pub lines: VecDeque<Line>,
    /// How many lines the whole log has.
    pub total: u64,
    /// Lines that are not kept.
    pub dropped: u64,
    bytes: usize,
    /// The line that is being read, up to `LINE_MAX`.
    open: Vec<u8>,
}

/// Reads to the end. Bytes that are not UTF-8 are replaced.
pub fn read(mut log: impl BufRead) -> io::Result<Tail> {
    let mut tail = Tail::default();
    let mut ends_open = false;
    loop {
        let chunk = match log.fill_buf() {
            Ok(chunk) => chunk,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(why),
        };
        let (Some(last), length) = (chunk.last().copied(), chunk.len()) else { break };
        for piece in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            tail.take(piece);
        }
        ends_open = last != b'\n';
        log.consume(length);
    }
    tail.close();
    tail.total += u64::from(ends_open);
    Ok(tail)
}

impl Tail {
    fn take(&mut self, piece: &[u8]) {
        let text = piece.strip_suffix(b"\n").or_else(|| piece.strip_suffix(b"\r")).unwrap_or(piece);
        let room = LINE_MAX - self.open.len();
        self.open.extend_from_slice(&text[..text.len().min(room)]);
        if text.len() < piece.len() {
            self.close();
        }
        self.total += u64::from(piece.ends_with(b"\n"));
    }

    /// Keeps the open line, unless there is nothing in it or it is the passing state of a progress bar.
    fn close(&mut self) {
        let text = String::from_utf8_lossy(&self.open).into_owned();
        self.open.clear();
        if text.trim().is_empty() || text.contains("%|") {
            return;
        }
        self.bytes += text.len();
        self.lines.push_back(Line { number: self.total + 1, text });
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len();
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(log: &[u8]) -> Vec<(u64, String)> {
        let tail = read(io::BufReader::with_capacity(7, log)).unwrap();
        tail.lines.into_iter().map(|line| (line.number, line.text)).collect()
    }

    #[test]
    fn lines_are_counted_by_line_feeds() {
        let log = b"one\r\n\nthree\nLoading: 10%|#  |\rLoading: 100%|###|\rfour\rfour again\n\xff five";
        let expected = [(1, "one"), (3, "three"), (4, "four"), (4, "four again"), (5, "\u{fffd} five")];
        assert_eq!(numbered(log), expected.map(|(number, text)| (number, text.to_owned())));
        assert_eq!(read(&log[..]).unwrap().total, 5);
        assert_eq!(read(&b"one\n"[..]).unwrap().total, 1);
        assert_eq!(read(&b""[..]).unwrap().total, 0);
    }

    #[test]
    fn of_a_huge_log_the_end_is_kept_with_its_numbers() {
        let log: String = (1..=LINES_MAX + 50).map(|n| format!("line {n}\n")).collect();
        let tail = read(log.as_bytes()).unwrap();
        assert_eq!((tail.lines.len(), tail.dropped, tail.total), (LINES_MAX, 50, LINES_MAX as u64 + 50));
        assert_eq!(tail.lines[0], Line { number: 51, text: "line 51".to_owned() });
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let wide = vec![b'x'; 10 * BYTES_MAX];
        let tail = read(&wide[..]).unwrap();
        assert_eq!((tail.lines.len(), tail.lines[0].text.len(), tail.total), (1, LINE_MAX, 1));
        let many: Vec<u8> = [vec![b'y'; LINE_MAX], vec![b'\n']].concat().repeat(2 * BYTES_MAX / LINE_MAX);
        assert!(read(&many[..]).unwrap().bytes <= BYTES_MAX);
    }
}
