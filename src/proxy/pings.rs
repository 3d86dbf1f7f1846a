//! PURE. Telling an engine's work from its pings, whatever the boundaries of the reads that they come in.

/// Where a body stands. Comments of a stream (`: ping`) and blanks come from an engine's HTTP half, as heads do (vLLM
/// sends the head of a stream at once): neither shows that the half that computes does anything. Nor does an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pings {
    #[default]
    LineBegins,
    Comment,
    Line,
    /// The whole body is that of an error.
    Refusal,
}

impl Pings {
    /// Is there anything in `data`, which comes next, but comments and blanks?
    pub fn hold_work(&mut self, data: &[u8]) -> bool {
        for (at, &byte) in data.iter().enumerate() {
            self.step(byte);
            if *self == Self::Line && !byte.is_ascii_whitespace() {
                // Of the rest only the line counts that is open at its end.
                if let Some(end) = data[at..].iter().rposition(|byte| is_line_end(*byte)) {
                    *self = Self::LineBegins;
                    data.get(at + end + 1).into_iter().for_each(|&first| self.step(first));
                }
                return true;
            }
        }
        false
    }

    /// Within a line its bytes change nothing.
    fn step(&mut self, byte: u8) {
        *self = match (*self, byte) {
            (Self::Refusal, _) => Self::Refusal,
            (_, byte) if is_line_end(byte) => Self::LineBegins,
            (Self::LineBegins, b':') | (Self::Comment, _) => Self::Comment,
            (Self::LineBegins | Self::Line, _) => Self::Line,
        };
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether any of the reads, each of `size` bytes, was taken for work.
    fn work(body: &[u8], size: usize) -> bool {
        let mut pings = Pings::default();
        body.chunks(size).map(|data| pings.hold_work(data)).fold(false, |any, is| any | is)
    }

    #[test]
    fn where_a_read_ends_is_known_to_the_next() {
        for (read, ends) in [
            (&b"data: {}\n\n"[..], Pings::LineBegins),
            (b"data: {}\n: p", Pings::Comment),
            (b"data: {}\n:", Pings::Comment),
            (b"a\n:b\nc", Pings::Line),
            (b"data: {", Pings::Line),
        ] {
            let mut pings = Pings::default();
            assert!(pings.hold_work(read));
            assert_eq!(pings, ends, "{read:?}");
        }
        let mut refusal = Pings::Refusal;
        assert!(!refusal.hold_work(b"{\"error\":\n\"no\"}"));
    }

    #[test]
    fn comments_and_blanks_are_no_sign_of_work_whatever_the_reads() {
        for ping in [
            &b": keep-alive\n\n"[..],
            b":\r\n\r\n",
            b"\n",
            b"",
            b"  \n \r\n",
            b": a: b\n:c\n",
            b": x\r: y\r\r",
        ] {
            for size in 1..=ping.len().max(1) {
                assert!(!work(ping, size), "{ping:?} by {size}");
            }
        }
        for body in [&b"data: {}\n\n"[..], b": ping\n\ndata: {}\n\n", b"{\"a\":1}", b" \n{}", b": x\n]"] {
            for size in 1..=body.len() {
                assert!(work(body, size), "{body:?} by {size}");
            }
        }
    }
}
