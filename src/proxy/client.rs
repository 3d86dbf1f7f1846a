//! The socket of a client: it gives up on one that does not read, closes so that the last answer arrives, and says in our
//! words what the HTTP library refuses by itself.
use super::caller::Caller;
use super::reply;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// After our last byte a client is still listened to: until it is silent for so long, or has sent so much, or has had
/// so much time. A socket that is closed over unread bytes is reset, and the reset can overtake the answer (a 413 to a
/// client that is still sending).
const LINGER_SILENCE: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct ClientSocket<S> {
    stream: S,
    caller: Arc<Caller>,
    /// The rest of our words for a request that the library refuses.
    refusal: Option<Bytes>,
    /// Longest time in which the client takes no byte.
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    silence: Pin<Box<Sleep>>,
    end: Instant,
    bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientSocket<S> {
    pub fn new(stream: S, caller: Arc<Caller>, stall: Duration) -> Self {
        Self { stream, caller, refusal: None, stall, stalled: None, lingering: None }
    }

    /// Writes a refusal of ours in place of `data`. A request that cannot be parsed never reaches us: the library answers
    /// it with a bare status line, and writes it at one time.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<()>> {
        let refusal = self.refusal.get_or_insert_with(|| reply::in_our_words(data, &self.caller.shared));
        while refusal.has_remaining() {
            let written = Pin::new(&mut self.stream).poll_write(cx, refusal);
            let written = ready!(written)?;
            refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// What a write came to, unless it has waited for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let linger = self.lingering.get_or_insert_with(|| Linger {
            silence: Box::pin(sleep(LINGER_SILENCE)),
            end: Instant::now() + LINGER,
            bytes: LINGER_BYTES,
        });
        let mut scratch = [0u8; 8192];
        loop {
            if linger.silence.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut into = ReadBuf::new(&mut scratch);
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into)).is_err() {
                return Poll::Ready(Ok(()));
            }
            let read = into.filled().len();
            match linger.bytes.checked_sub(read) {
                Some(rest) if read > 0 => linger.bytes = rest,
                _ => return Poll::Ready(Ok(())),
            }
            linger.silence.as_mut().reset(linger.end.min(Instant::now() + LINGER_SILENCE));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.caller.is_answering() {
            let written = self.poll_refuse(cx, data).map_ok(|()| data.len());
            return self.watched(cx, written);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.caller.is_answering() {
            let data = data.iter().flat_map(|part| part.iter()).copied().collect::<Vec<u8>>();
            let written = self.poll_refuse(cx, &data).map_ok(|()| data.len());
            return self.watched(cx, written);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library flushes once it has written all that it had.
        self.caller.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx)
    }
}
