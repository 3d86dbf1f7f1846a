//! `GET /v1/events`: what is kept, and with `follow=1` what comes, as lines of JSON.
use super::feed::Feed;
use super::served::{Served, problem};
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Pieces of an answer that may wait for a slow reader; after that it is waited for, and what leaves the feed meanwhile
/// is not sent: a follower sees the gap in the numbers.
const PIECES: usize = 4;

/// Set for a conversation that lasts as long as its client likes.
#[derive(Clone, Debug, Default)]
pub(super) struct Endless(Arc<AtomicBool>);

impl Endless {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

#[derive(serde::Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    since: u64,
    #[serde(default)]
    follow: u8,
}

pub(super) async fn events(
    State(served): State<Served>,
    Extension(endless): Extension<Endless>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let Ok(Query(Asked { since, follow })) = asked else {
        let sentence = "since must be an event's number, and follow 0 or 1";
        return problem(StatusCode::BAD_REQUEST, "invalid_query", sentence);
    };
    let head = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let (lines, last) = served.events.since(since);
    if follow == 0 {
        return (head, joined(&lines)).into_response();
    }
    endless.0.store(true, Relaxed);
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::spawn(pass_on(served.events, joined(&lines), last, sender));
    (head, Body::new(Pieces(pieces))).into_response()
}

/// A body that ends when its sender does.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Sends lines until nobody reads them.
async fn pass_on(feed: Arc<Feed>, first: Bytes, mut last: u64, sender: mpsc::Sender<Bytes>) {
    let mut newest = feed.watch();
    let mut piece = first;
    loop {
        if !piece.is_empty() && sender.send(piece).await.is_err() {
            return;
        }
        tokio::select! {
            changed = newest.wait_for(|newest| *newest > last) => if changed.is_err() { return },
            // The conversation is over, and there may be no event for days.
            () = sender.closed() => return,
        }
        let (lines, now_last) = feed.since(last);
        (piece, last) = (joined(&lines), now_last);
    }
}

fn joined(lines: &[Arc<str>]) -> Bytes {
    let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text.into()
}
