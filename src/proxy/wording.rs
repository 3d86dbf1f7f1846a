//! The client's request in the words of one tier's engine.
use super::headers;
use super::outgoing::Outgoing;
use super::plan::Ask;
use super::route::TierRoute;
use super::upstream::Upstream;
use crate::kinds::{self, Api, Kind, degrade, ollama};
use crate::policy::Path;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::Request;
use serde_json::Value;

/// The request in the words of `route`'s engine. `None` when its address makes no URL.
pub(super) fn request(
    route: &TierRoute,
    to: &Upstream,
    ask: &Ask,
    mut body: Value,
    fields: HeaderMap,
    request_id: &HeaderValue,
) -> Option<Request<Outgoing>> {
    let api = route.kind.api();
    let path = ask.endpoint.upstream_path(api)?;
    if let Some(table) = &route.degrade {
        degrade::apply(table, ask.endpoint, &mut body);
    }
    kinds::adapt(route.kind, &mut body);
    let body = match api {
        Api::OpenAi => {
            body["model"] = route.model.as_str().into();
            ask.numerals.print(&body)
        }
        Api::Ollama => {
            let native = ollama::request(&body, &route.model, route.kind.is_local());
            ask.numerals.renamed(ollama::option).print_within("options", &native)
        }
    };
    let mut request = Request::new(Outgoing::Whole(Some(Bytes::from(body))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("{}{path}", to.base_path).parse().ok()?;
    let headers = request.headers_mut();
    *headers = fields;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    put_upstream_fields(headers, route.kind, to, request_id, &ask.via)?;
    Some(request)
}

/// The fields that every request of ours to an upstream has. `None` when the address makes no `Host`.
pub(super) fn put_upstream_fields(
    headers: &mut HeaderMap,
    kind: Kind,
    to: &Upstream,
    request_id: &HeaderValue,
    via: &Path,
) -> Option<()> {
    // A local Ollama refuses names that it does not know.
    let host = match kind {
        Kind::Ollama => format!("127.0.0.1:{}", to.port),
        Kind::Vllm | Kind::LlamaServer | Kind::Remote(_) => to.authority(),
    };
    headers.insert(HOST, HeaderValue::try_from(host).ok()?);
    headers.insert(headers::REQUEST_ID, request_id.clone());
    if !kind.is_local() {
        headers.insert(headers::VIA, headers::value_of(&via.to_string()));
    }
    // Answers are read, so they have to come as they are.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(key) = &to.api_key {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).ok()?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Some(())
}
