//! What the client of a pass-through sends: handed on as it comes, but for JSON of a moderate size. That is read whole,
//! because an engine knows one model by one name, and the client may have asked by any name of the chain.
use super::budget::{Budget, Lease};
use super::fingerprint::Fingerprint;
use super::heavy::Heavy;
use super::intake::{self, Reading, Receiving, Unread};
use super::limits::{Limits, NAMED_BODY_BYTES};
use super::origin::media_type;
use super::outgoing::{ClientFault, Outgoing};
use super::route::RouteTable;
use bytes::Bytes;
use http::header::HeaderMap;
use hyper::body::{Body, Incoming};
use serde_json::Value;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

/// A client's body of which nothing went to a tier so far.
#[derive(Debug)]
pub(super) enum Upload {
    /// All of it. `object`: what it says, when the model that it names is to be put into the tier's words.
    Whole { bytes: Bytes, object: Option<Reading>, lease: Lease },
    /// `begun`: what was read of it.
    Stream { begun: Bytes, rest: Incoming, lease: Option<Lease> },
}

/// Reads the body if it is JSON of a moderate size; otherwise leaves it, or the rest of it, to be handed on.
pub(super) async fn read(
    fields: &HeaderMap,
    body: Incoming,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<Upload, Unread> {
    let announced = body.size_hint().lower();
    if body.is_end_stream()
        || !media_type(fields).eq_ignore_ascii_case(b"application/json")
        || announced > NAMED_BODY_BYTES as u64
    {
        return Ok(Upload::Stream { begun: Bytes::new(), rest: body, lease: None });
    }
    let mut receiving = Receiving::new(body, limits, budget);
    while receiving.length() <= NAMED_BODY_BYTES {
        if !receiving.next().await? {
            let (text, lease) = receiving.whole()?;
            return Ok(Upload::Whole { bytes: Bytes::from(text), object: None, lease });
        }
    }
    let (begun, lease, rest) = receiving.begun()?;
    Ok(Upload::Stream { begun, rest, lease: Some(lease) })
}

impl Upload {
    /// Tells the request from others, if all of it is there.
    pub fn fingerprint(&self, keys: &impl BuildHasher, path: &str) -> Option<Fingerprint> {
        match self {
            Self::Whole { bytes, .. } => Some(Fingerprint::of_bytes(keys, path, bytes)),
            Self::Stream { .. } => None,
        }
    }

    /// Reads the object that it is, if the model named in it leads into the chain: by one of the chain's names, or by any
    /// (`any_model`). Everything else is the engine's to judge, and goes out byte by byte as it came.
    pub async fn named(self, table: &RouteTable, any_model: bool, budget: &Budget) -> Result<Self, Unread> {
        let Self::Whole { bytes, lease, .. } = self else { return Ok(self) };
        let (reading, lease) = intake::parsed(bytes.clone(), lease, budget).await?;
        let object = reading.ok().filter(|object| {
            let name = object.value.get("model").and_then(Value::as_str);
            name.is_some_and(|name| any_model || table.names().contains(&name))
        });
        Ok(Self::Whole { bytes, object, lease })
    }

    /// As a tier whose engine knows its model as `model` gets it, and its memory.
    pub async fn outgoing(
        self,
        model: &str,
        max: usize,
        stall: Duration,
        fault: ClientFault,
        heavy: &Heavy,
    ) -> (Outgoing, Option<Lease>) {
        match self {
            Self::Whole { object: Some(object), mut lease, .. } if object.value["model"] != model => {
                lease.take();
                let model = Value::from(model);
                let print = move || {
                    let Reading { value, numerals } = object;
                    let mut object = Arc::unwrap_or_clone(value);
                    object["model"] = model;
                    Bytes::from(numerals.print(&object))
                };
                let printed = if lease.is_heavy() { heavy.run(print).await } else { Some(print()) };
                (Outgoing::Whole(printed), Some(lease))
            }
            Self::Whole { bytes, lease, .. } => (Outgoing::Whole(Some(bytes)), Some(lease)),
            Self::Stream { begun, rest, lease } => {
                let left = max.saturating_sub(begun.len());
                (Outgoing::stream(begun, rest, left, stall, fault), lease)
            }
        }
    }
}
