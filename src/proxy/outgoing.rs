//! Request bodies on their way to an upstream.
use super::budget::Lease;
use super::intake::Unread;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// What was wrong with a client's body that was handed through, once something was. The upstream's connection ends by
/// it, and that is no failure of the upstream.
pub(super) type ClientFault = Arc<OnceLock<Unread>>;

/// A body that we wrote ourselves, or a client's body handed through.
#[derive(Debug)]
pub(super) enum Outgoing {
    Whole(Option<Bytes>),
    /// `begun`: read before, and not yet sent; `left`: how many more bytes the client may send.
    Stream {
        begun: Bytes,
        body: Incoming,
        left: usize,
        stall: Stall,
        fault: ClientFault,
    },
}

/// Ends a body that stops coming.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Ready when nothing came for too long. `came`: something came now.
    fn poll(&mut self, cx: &mut Context<'_>, came: bool) -> Poll<()> {
        if came {
            self.timer = None;
            return Poll::Pending;
        }
        let limit = self.limit;
        self.timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx)
    }
}

/// Bytes with the memory that they take.
struct Paid {
    bytes: Bytes,
    _lease: Lease,
}

impl AsRef<[u8]> for Paid {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Outgoing {
    /// Has the memory of a whole body given back once the body was written: an engine may read it slowly, or never.
    pub fn take_up(&mut self, lease: Lease) {
        if let Self::Whole(Some(bytes)) = self {
            *bytes = Bytes::from_owner(Paid { bytes: std::mem::take(bytes), _lease: lease });
        }
    }

    pub fn stream(begun: Bytes, body: Incoming, left: usize, stall: Duration, fault: ClientFault) -> Self {
        Self::Stream { begun, body, left, stall: Stall { limit: stall, timer: None }, fault }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream { begun, .. } if !begun.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(begun)))))
            }
            Self::Stream { body, left, stall, fault, .. } => {
                let frame = Pin::new(body).poll_frame(cx);
                if stall.poll(cx, frame.is_ready()).is_ready() {
                    let _ = fault.set(Unread::Stalled(stall.limit));
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                }
                let Some(frame) = ready!(frame) else { return Poll::Ready(None) };
                let frame = frame.map_err(|e| {
                    let _ = fault.set(Unread::Broken);
                    io::Error::other(e)
                })?;
                // Trailers are hop-by-hop unless both sides agreed on them, and no engine reads any.
                let Ok(data) = frame.into_data() else { return Poll::Ready(None) };
                match left.checked_sub(data.len()) {
                    Some(rest) => {
                        *left = rest;
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    None => {
                        let _ = fault.set(Unread::TooLarge);
                        Poll::Ready(Some(Err(io::Error::other("request body is too large"))))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream { begun, body, .. } => begun.is_empty() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream { begun, body, .. } => match body.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(begun.len() as u64 + rest),
                None => SizeHint::default(),
            },
        }
    }
}
