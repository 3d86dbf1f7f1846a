//! Reading request bodies, within what one of them and all of them may take.
use super::budget::{Arrival, Budget, Lease, NoMemory, TooMany};
use super::limits::{Limits, PARSED_HERE_BYTES};
use super::numerals::Numerals;
use super::weight::weight;
use crate::clock;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Why a body was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge,
    /// It holds more values than there is memory for.
    TooMany,
    /// Compressed, which nobody here or behind us undoes.
    Encoded,
    NoMemory,
    /// It came too slowly to keep its memory while others had none.
    Evicted,
    /// Nothing of it came for so long.
    Stalled(Duration),
    /// It is not what its head said, or its client is gone.
    Broken,
    NotJson(String),
}

impl From<NoMemory> for Unread {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl From<TooMany> for Unread {
    fn from(_: TooMany) -> Self {
        Self::TooMany
    }
}

/// Why a body will not be read, by its head: it is longer than `max` by its own account, or it is compressed.
pub(super) fn unfit(headers: &HeaderMap, max: usize) -> Option<Unread> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let is_plain = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Some(Unread::Encoded);
    }
    announced.is_some_and(|length| length > max as u64).then_some(Unread::TooLarge)
}

/// A body on its way into memory. It costs what has come of it, whatever was announced.
#[derive(Debug)]
pub(super) struct Receiving {
    body: Incoming,
    max: usize,
    stall: Duration,
    arrival: Arrival,
    text: Vec<u8>,
}

impl Receiving {
    pub fn new(body: Incoming, limits: &Limits, budget: &Arc<Budget>) -> Self {
        let arrival = Arrival::new(budget, clock::now());
        Self { body, max: limits.max_body, stall: limits.body_stall, arrival, text: Vec::new() }
    }

    /// Takes the next piece; `false` when there is none.
    pub async fn next(&mut self) -> Result<bool, Unread> {
        let frame = tokio::select! {
            biased;
            () = self.arrival.evicted() => return Err(Unread::Evicted),
            frame = tokio::time::timeout(self.stall, self.body.frame()) => frame,
        };
        let Some(frame) = frame.map_err(|_| Unread::Stalled(self.stall))? else { return Ok(false) };
        // Trailers say nothing to anybody here.
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { return Ok(true) };
        let length = self.text.len() + data.len();
        if length > self.max {
            return Err(Unread::TooLarge);
        }
        let room = self.room_for(length);
        self.arrival.received(clock::now(), data.len(), room)?;
        self.text.reserve_exact(room - self.text.len());
        self.text.extend_from_slice(&data);
        Ok(true)
    }

    /// Doubles what there is, but not beyond what the body says that it will be.
    fn room_for(&self, length: usize) -> usize {
        let doubled = length.max(2 * self.text.capacity());
        let left = self.body.size_hint().upper().and_then(|left| usize::try_from(left).ok());
        let room = left.map_or(doubled, |left| doubled.min(length + left));
        if length <= self.text.capacity() { self.text.capacity() } else { room }
    }

    pub fn length(&self) -> usize {
        self.text.len()
    }

    /// All of the body.
    pub fn whole(self) -> Result<(Vec<u8>, Lease), Unread> {
        Ok((self.text, self.arrival.whole()?))
    }

    /// What was read of the body, and the rest of it.
    pub fn begun(self) -> Result<(Bytes, Lease, Incoming), Unread> {
        Ok((Bytes::from(self.text), self.arrival.whole()?, self.body))
    }
}

/// A JSON value, and what printing it would change.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub value: Arc<Value>,
    pub numerals: Arc<Numerals>,
}

/// Reads a JSON object.
pub(super) async fn read_object(
    body: Incoming,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<(Reading, Lease), Unread> {
    let mut receiving = Receiving::new(body, limits, budget);
    while receiving.next().await? {}
    let (text, lease) = receiving.whole()?;
    match parsed(text, lease, budget).await? {
        (Ok(object), lease) if object.value.is_object() => Ok((object, lease)),
        (Ok(_), _) => Err(Unread::NotJson("it is not an object".into())),
        (Err(e), _) => Err(Unread::NotJson(e.to_string())),
    }
}

type Parsed = (serde_json::Result<Reading>, Lease);

/// Parses `text`, if there is memory for what it becomes; elsewhere, if that may take long.
pub(super) async fn parsed(
    text: impl AsRef<[u8]> + Send + 'static,
    mut lease: Lease,
    budget: &Budget,
) -> Result<Parsed, Unread> {
    let is_large = text.as_ref().len() > PARSED_HERE_BYTES;
    let work = move || -> Result<Parsed, Unread> {
        let text = text;
        lease.grow_to_parsed(clock::now(), weight(text.as_ref()))??;
        let reading = read(text.as_ref());
        if let Ok(Reading { value, .. }) = &reading {
            lease.hold(value);
        }
        Ok((reading, lease))
    };
    if is_large { budget.heavy().run(work).await.unwrap_or(Err(Unread::Broken)) } else { work() }
}

fn read(text: &[u8]) -> serde_json::Result<Reading> {
    let value: Value = serde_json::from_slice(text)?;
    // JSON is UTF-8, or it would not have been read.
    let object = std::str::from_utf8(text).unwrap_or_default();
    let numerals = if value.is_object() { Numerals::of(object) } else { Numerals::default() };
    Ok(Reading { value: Arc::new(value), numerals: Arc::new(numerals) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::heavy::Heavy;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    #[tokio::test]
    async fn a_large_body_is_not_parsed_where_others_are_served() {
        let heavy = Heavy::start().unwrap();
        let budget = Budget::new(64 << 20, 1 << 20, heavy.clone());
        let lease = || Arrival::new(&budget, clock::now()).whole().unwrap();
        // Nothing is done on the other threads until the gates are open.
        let gates: Vec<_> = (0..2)
            .map(|_| {
                let (open, gate) = mpsc::channel::<()>();
                heavy.later(move || assert!(gate.recv().is_err(), "a gate opens by its end"));
                open
            })
            .collect();
        let text = format!("{{\"input\":[{}1]}}", "{\"a\":1},".repeat(PARSED_HERE_BYTES / 8));
        let mut large = pin!(parsed(text, lease(), &budget));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(large.as_mut().poll(&mut cx).is_pending());
        let mut small = pin!(parsed("{\"input\":[1]}", lease(), &budget));
        assert!(matches!(small.as_mut().poll(&mut cx), Poll::Ready(Ok((Ok(_), _)))));
        assert!(large.as_mut().poll(&mut cx).is_pending());
        drop(gates);
        let (object, lease) = large.await.unwrap();
        assert!(object.unwrap().value.is_object() && lease.keeps() && lease.is_heavy());
    }
}
