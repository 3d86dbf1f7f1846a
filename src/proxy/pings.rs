//! PURE. Telling an engine's work from its pings, whatever the boundaries of the reads that they come in.

/// Where a body stands. Comments of a stream (`: ping`) and blanks come from an engine's HTTP half, as heads do (vLLM
/// sends the head of a stream at once): neither shows that the half that computes does anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pings {
    #[default]
    LineBegins,
    Comment,
    Line,
}

impl Pings {
    /// Is there anything in `data`, which comes next, but comments and blanks?
    pub fn hold_work(&mut self, data: &[u8]) -> bool {
        let mut work = false;
        for byte in data {
            *self = match (*self, byte) {
                (_, b'\n' | b'\r') => Self::LineBegins,
                (Self::LineBegins, b':') | (Self::Comment, _) => Self::Comment,
                (Self::LineBegins | Self::Line, byte) => {
                    work |= !byte.is_ascii_whitespace();
                    Self::Line
                }
            };
        }
        work
    }
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
