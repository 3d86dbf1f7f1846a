//! Bodies of the answers to our clients.
use super::driver::Driver;
use super::passthrough::Passage;
use super::shared::OpenRequest;
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
    /// A stream that is relayed as it comes. Dropped by hyper when its client is gone, and with it the upstream
    /// connection.
    Relay(Box<Driver>),
    Passage(Box<Passage>),
}

impl ReplyBody {
    pub fn whole(bytes: Bytes) -> Self {
        Self { source: Source::Whole(Some(bytes).filter(|b| !b.is_empty())), gone: None, _open: None }
    }

    pub fn relay(driver: Box<Driver>) -> Self {
        Self { source: Source::Relay(driver), gone: None, _open: None }
    }

    pub fn passage(passage: Passage) -> Self {
        Self { source: Source::Passage(Box::new(passage)), gone: None, _open: None }
    }

    /// Keeps the request open until this body is gone.
    pub fn holding(self, open: OpenRequest) -> Self {
        let waits = !matches!(self.source, Source::Whole(_));
        let gone = waits.then(|| Gone(Box::pin(open.gone())));
        Self { gone, _open: Some(open), ..self }
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
        let data = match &mut self.source {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Source::Relay(driver) => driver.poll_relay(cx),
            Source::Passage(passage) => passage.poll_relay(cx),
        };
        data.map(|next| next.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Relay(_) => SizeHint::default(),
            Source::Passage(passage) => passage.size_hint(),
        }
    }
}
