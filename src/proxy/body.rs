//! Bodies of the answers to our clients.
use super::caller::OpenRequest;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An answer's body, with its place among the open requests.
#[derive(Debug)]
pub(super) struct ReplyBody {
    source: Source,
    breaks: Breaks,
    gone: Option<Gone>,
    _open: Option<OpenRequest>,
}

/// Resolves when the client has hung up.
struct Gone(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl fmt::Debug for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gone")
    }
}

#[derive(Debug)]
enum Source {
    Whole(Option<Bytes>),
    Relayed(Box<dyn Relay>),
}

/// An answer that is relayed as it comes. Dropped by hyper when its client is gone, and with it the upstream connection.
pub(super) trait Relay: fmt::Debug + Send {
    /// The next bytes. Not called while the client does not read: then nothing is read from the upstream either.
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Next;

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl ReplyBody {
    pub fn whole(bytes: Bytes) -> Self {
        Self::of(Source::Whole(Some(bytes).filter(|b| !b.is_empty())))
    }

    pub fn relayed(answer: Box<dyn Relay>) -> Self {
        Self::of(Source::Relayed(answer))
    }

    fn of(source: Source) -> Self {
        Self { source, breaks: Breaks::default(), gone: None, _open: None }
    }

    /// Keeps the request open until this body is gone.
    pub fn holding(self, open: OpenRequest) -> Self {
        let waits = !matches!(self.source, Source::Whole(_));
        let gone = waits.then(|| Gone(Box::pin(open.gone())));
        Self { gone, _open: Some(open), ..self }
    }
}

/// An answer that breaks does so behind all that there was of it: hyper writes when it has to wait for more, and drops what it
/// has not written, even the head, when the body fails.
#[derive(Debug, Default)]
struct Breaks {
    written: bool,
    error: Option<io::Error>,
}

pub(super) type Next = Poll<Option<io::Result<Bytes>>>;

impl Breaks {
    fn poll(&mut self, cx: &mut Context<'_>, source: impl FnOnce(&mut Context<'_>) -> Next) -> Next {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let next = source(cx);
        if let Poll::Ready(Some(Err(error))) = next {
            if self.written {
                return Poll::Ready(Some(Err(error)));
            }
            self.error = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.written = next.is_pending();
        next
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.gone.as_mut().is_some_and(|gone| gone.0.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
        }
        let Self { source, breaks, .. } = &mut *self;
        let data = breaks.poll(cx, |cx| match source {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Source::Relayed(answer) => answer.poll_relay(cx),
        });
        data.map(|next| next.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Relayed(answer) => answer.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_breaks_after_what_came_before_was_written() {
        let (mut breaks, mut cx) = (Breaks::default(), Context::from_waker(std::task::Waker::noop()));
        let data = || Poll::Ready(Some(Ok(Bytes::from_static(b"a"))));
        let broken = || Poll::Ready(Some(Err(io::ErrorKind::Other.into())));
        let is_error = |next: Next| matches!(next, Poll::Ready(Some(Err(_))));
        // The head is not written yet.
        assert!(breaks.poll(&mut cx, |_| broken()).is_pending());
        assert!(is_error(breaks.poll(&mut cx, |_| unreachable!("it has broken"))));
        let mut breaks = Breaks::default();
        assert!(breaks.poll(&mut cx, |_| Poll::Pending).is_pending());
        assert!(breaks.poll(&mut cx, |_| data()).is_ready());
        assert!(breaks.poll(&mut cx, |_| broken()).is_pending());
        assert!(is_error(breaks.poll(&mut cx, |_| unreachable!("it has broken"))));
        // Here it is.
        let mut breaks = Breaks::default();
        assert!(breaks.poll(&mut cx, |_| data()).is_ready());
        assert!(breaks.poll(&mut cx, |_| Poll::Pending).is_pending());
        assert!(is_error(breaks.poll(&mut cx, |_| broken())));
    }
}
