//! What the client of a pass-through sends: handed on as it comes, but for JSON of a moderate size. That is read whole,
//! because an engine knows one model by one name, and the client may have asked by any name of the chain.
use super::intake::{Lease, Unread};
use super::limits::NAMED_BODY_BYTES;
use super::origin::media_type;
use super::outgoing::{ClientFault, Outgoing};
use super::route::RouteTable;
use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde_json::Value;

/// A client's body of which nothing went to a tier so far.
#[derive(Debug)]
pub(super) enum Upload {
    /// All of it.
    Whole(Bytes),
    /// `begun`: what was read of it.
    Stream { begun: Bytes, rest: Incoming },
}

/// Reads the body if it is JSON of a moderate size; otherwise leaves it, or the rest of it, to be handed on.
pub(super) async fn read(
    fields: &HeaderMap,
    mut rest: Incoming,
    max: usize,
    lease: &mut Lease,
) -> Result<Upload, Unread> {
    let announced = rest.size_hint().lower();
    if rest.is_end_stream()
        || !media_type(fields).eq_ignore_ascii_case(b"application/json")
        || announced > NAMED_BODY_BYTES as u64
    {
        return Ok(Upload::Stream { begun: Bytes::new(), rest });
    }
    let mut begun = BytesMut::new();
    while begun.len() <= NAMED_BODY_BYTES {
        let Some(frame) = rest.frame().await else { return Ok(Upload::Whole(begun.freeze())) };
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        let length = begun.len() + data.len();
        if length > max {
            return Err(Unread::TooLarge);
        }
        lease.grow_to(length)?;
        begun.extend_from_slice(&data);
    }
    Ok(Upload::Stream { begun: begun.freeze(), rest })
}

impl Upload {
    /// The object that it is, if the model named in it leads into the chain: by one of the chain's names, or by any
    /// (`any_model`). Everything else is the engine's to judge, and goes out byte by byte as it came.
    pub fn named(
        &self,
        table: &RouteTable,
        any_model: bool,
        max: usize,
        lease: &mut Lease,
    ) -> Result<Option<Value>, Unread> {
        let Self::Whole(bytes) = self else { return Ok(None) };
        lease.grow_to_parsed(bytes, max)?;
        let object = serde_json::from_slice(bytes).ok().filter(Value::is_object);
        Ok(object.filter(|object: &Value| {
            let name = object.get("model").and_then(Value::as_str);
            name.is_some_and(|name| any_model || table.names().contains(&name))
        }))
    }

    /// As a tier whose engine knows its model as `model` gets it.
    pub fn outgoing(self, object: Option<Value>, model: &str, max: usize, fault: ClientFault) -> Outgoing {
        match (self, object) {
            (Self::Whole(_), Some(mut object)) if object["model"] != model => {
                object["model"] = model.into();
                Outgoing::Whole(Some(Bytes::from(object.to_string())))
            }
            (Self::Whole(bytes), _) => Outgoing::Whole(Some(bytes)),
            (Self::Stream { begun, rest }, _) => {
                let left = max.saturating_sub(begun.len());
                Outgoing::Stream { begun, body: rest, left, fault }
            }
        }
    }
}
