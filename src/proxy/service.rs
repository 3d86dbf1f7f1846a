//! From a client's request to the part that answers it.
use super::body::ReplyBody;
use super::caller::{Caller, Gone, OpenRequest};
use super::driver::{self, Arrived};
use super::fingerprint::Fingerprint;
use super::intake::{self, Reading};
use super::metrics::Metrics;
use super::origin::{self, Doors};
use super::places::Full;
use super::plan::Ask;
use super::refusals::Code;
use super::reply::{self, Detail, OwnError};
use super::shared::{Shared, request_id};
use super::{cors, headers, passthrough};
use crate::clock;
use crate::kinds::{Endpoint, paths};
use crate::policy::{Moment, Path};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// nginx keeps an answer back unless it is told not to.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Answers one request. Dropped when its client hangs up.
pub(super) async fn answer(
    caller: Arc<Caller>,
    mut request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Gone> {
    let at = clock::now();
    let (open, shared) = (OpenRequest::new(&caller), &caller.shared);
    let id = request_id(request.headers().get(headers::REQUEST_ID), shared);
    let from_peer = request.headers().contains_key(headers::VIA);
    respell(&mut request);
    let doors = Doors { origins: &shared.limits.cors_origins, hosts: &shared.limits.hosts };
    let (page, mut response) = match origin::admit(&request, &doors) {
        Ok(page) => {
            let preflight = page.as_ref().and_then(|_| cors::preflight(request.method(), request.headers()));
            // A load balancer or monitor that asks how we are is nobody who was refused.
            let counts = !matches!(request.uri().path(), "/health" | "/metrics");
            let mut response = match preflight {
                Some(response) => response,
                None => routed(&caller, request, &id, at).await?,
            };
            if !counts {
                response.extensions_mut().remove::<Code>();
                response.extensions_mut().remove::<Detail>();
            }
            (page, response)
        }
        Err(objection) => (None, OwnError::objection(&objection).into_response()),
    };
    note_refusal(shared, &response, &id);
    response.headers_mut().insert(headers::REQUEST_ID, id);
    let_flow(response.headers_mut());
    if from_peer {
        let instance = shared.instance.to_string();
        response.headers_mut().insert(headers::INSTANCE, headers::value_of(&instance));
    }
    if let Some(page) = page {
        cors::allow(response.headers_mut(), page);
    }
    Ok(response.map(|body| body.holding(open)))
}

/// Gives the path the spelling that it has here; what is handed on has it as well.
fn respell(request: &mut Request<Incoming>) {
    let Cow::Owned(path) = paths::canonical(request.uri().path()) else { return };
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let mut uri = request.uri().clone().into_parts();
    uri.path_and_query = format!("{path}{query}").parse().ok();
    // It is made of pieces of a URI, and is one.
    if let Ok(uri) = http::Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
}

/// Counts an error of our own, and tells the log what the client is not told, under the request's id.
fn note_refusal(shared: &Shared, response: &Response<ReplyBody>, id: &HeaderValue) {
    response.extensions().get().inspect(|code: &&Code| shared.refusals.count(**code));
    let Some(Detail(detail)) = response.extensions().get() else { return };
    match shared.refused.turn(clock::now()) {
        Some(left_out) => tracing::warn!(request = ?id, left_out, "no tier answered a request: {detail}"),
        None => tracing::debug!(request = ?id, "no tier answered a request: {detail}"),
    }
}

/// What there is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Inference(Endpoint),
    Health,
    Metrics,
    Models,
    Model,
    Passthrough,
}

impl Page {
    fn at(path: &str, shared: &Shared) -> Option<Self> {
        // The configuration refuses paths that change an engine; were one listed all the same, it still cannot be reached.
        let passed = || shared.limits.passthrough.iter().any(|it| it == path) && !paths::changes_engine(path);
        match path {
            "/health" => Some(Self::Health),
            "/metrics" => Some(Self::Metrics),
            "/v1/models" => Some(Self::Models),
            _ if path.starts_with(paths::MODEL_PATH) => Some(Self::Model),
            _ => {
                Endpoint::of_path(path).map(Self::Inference).or_else(|| passed().then_some(Self::Passthrough))
            }
        }
    }

    /// The methods that it takes, as they stand in `Allow`.
    fn methods(self) -> &'static str {
        match self {
            Self::Inference(_) => "POST",
            Self::Health | Self::Metrics | Self::Models | Self::Model => "GET, HEAD",
            Self::Passthrough => "GET, HEAD, POST",
        }
    }
}

async fn routed(
    caller: &Caller,
    request: Request<Incoming>,
    id: &HeaderValue,
    at: Moment,
) -> Result<Response<ReplyBody>, Gone> {
    let shared = &caller.shared;
    let via = match arrived(shared, request.headers()) {
        Ok(via) => via,
        Err(error) => return Ok(error.into_response()),
    };
    let (path, method) = (request.uri().path(), request.method());
    let Some(page) = Page::at(path, shared) else { return Ok(OwnError::not_found(path).into_response()) };
    if !page.methods().split(", ").any(|taken| taken == method.as_str()) {
        return Ok(OwnError::wrong_method(method, path).allowing(page.methods()));
    }
    Ok(match page {
        Page::Health => reply::health(&shared.routes.load(), shared, &via.before),
        Page::Metrics => figures(&shared.metrics).await,
        Page::Models => reply::models(&shared.routes.load()),
        Page::Model => reply::model(&shared.routes.load(), &path[paths::MODEL_PATH.len()..]),
        Page::Inference(endpoint) => inference(caller, endpoint, request, id, at, via.onward).await?,
        Page::Passthrough => match intake::unfit(request.headers(), shared.limits.max_body) {
            Some(unread) => OwnError::unread(unread, shared.limits.max_body).into_response(),
            None => caller.waits_for(passthrough::answer(shared, request, id, at, &via.onward)).await?,
        },
    })
}

/// The mainstays that a request went through, without this one and with it.
struct Via {
    before: Path,
    onward: Path,
}

/// A request that was here before is refused, whatever it asks for.
fn arrived(shared: &Shared, fields: &HeaderMap) -> Result<Via, OwnError> {
    let before = headers::via(fields).map_err(OwnError::misled)?;
    let onward = before.clone().onward(shared.instance).map_err(OwnError::misled)?;
    Ok(Via { before, onward })
}

async fn inference(
    caller: &Caller,
    endpoint: Endpoint,
    request: Request<Incoming>,
    id: &HeaderValue,
    at: Moment,
    via: Path,
) -> Result<Response<ReplyBody>, Gone> {
    let shared = &caller.shared;
    let max = shared.limits.max_body;
    let (head, body) = request.into_parts();
    if let Some(unread) = intake::unfit(&head.headers, max) {
        return Ok(OwnError::unread(unread, max).into_response());
    }
    let time_left = (at + shared.limits.client_time()).since(clock::now());
    let read =
        tokio::time::timeout(time_left, intake::read_object(body, &shared.limits, &shared.budget)).await;
    let (body, lease) = match read {
        Err(_) => return Ok(OwnError::slow_body().into_response()),
        Ok(Err(unread)) => return Ok(OwnError::unread(unread, max).into_response()),
        Ok(Ok(read)) => read,
    };
    let fingerprint = Fingerprint::of(&shared.keys, endpoint, &body.value);
    let ask = match ask(endpoint, &head.headers, body, fingerprint, via) {
        Ok(ask) => ask,
        Err(error) => return Ok(error.into_response()),
    };
    let arrived = Arrived { ask, fields: head.headers, request_id: id.clone(), lease, at };
    caller.waits_for(driver::answer(shared.clone(), arrived)).await
}

/// Proxies and caches in between are told to hand a stream on as it comes.
fn let_flow(fields: &mut HeaderMap) {
    let kind = origin::media_type(fields);
    if kind.eq_ignore_ascii_case(b"text/event-stream") {
        fields.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        fields.insert(BUFFERING, HeaderValue::from_static("no"));
    }
}

/// What the request asks for.
fn ask(
    endpoint: Endpoint,
    fields: &HeaderMap,
    body: Reading,
    fingerprint: Fingerprint,
    via: Path,
) -> Result<Ask, OwnError> {
    let Reading { value: body, numerals } = body;
    let model = match body.get("model") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()).filter(|name| !name.is_empty()),
        Some(_) => return Err(OwnError::invalid("model", "model is not a string")),
    };
    let streaming = match body.get("stream") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(streaming)) => *streaming,
        Some(_) => return Err(OwnError::invalid("stream", "stream is neither true nor false")),
    };
    let refuses_weakened = headers::refuses_weakened(fields).ok_or_else(OwnError::bad_degrade)?;
    Ok(Ask { endpoint, streaming, model, refuses_weakened, via, body, numerals, fingerprint })
}

async fn figures(metrics: &Metrics) -> Response<ReplyBody> {
    let Some(text) = (metrics.source)().await else {
        return OwnError::overloaded("The figures cannot be had now: too many ask, or the agent is ending")
            .into_response();
    };
    let mut response = Response::new(ReplyBody::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics.content_type));
    response
}

/// What is said to a client for whom there is no place.
pub(super) fn turned_away(full: Full) -> Response<ReplyBody> {
    OwnError::overloaded(match full {
        Full::All => "Too many connections (server.max_connections, LimitNOFILE of the unit)",
        Full::Client => {
            "Too many connections from this address (server.max_connections_per_client; all clients behind one proxy \
             have one address)"
        }
    })
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(body: Value, refuse: Option<&'static str>, expected: Result<(Option<&str>, bool, bool), ()>) {
        let mut fields = HeaderMap::new();
        if let Some(value) = refuse {
            fields.insert(headers::DEGRADE, HeaderValue::from_static(value));
        }
        let reading = Reading { value: body.clone().into(), numerals: Arc::default() };
        let asked = ask(Endpoint::Chat, &fields, reading, Fingerprint(0), Path::default());
        let asked =
            asked.as_ref().map(|a| (a.model.as_deref(), a.streaming, a.refuses_weakened)).map_err(|_| ());
        assert_eq!(asked, expected, "{body} {refuse:?}");
    }

    #[test]
    fn what_is_asked_for() {
        check(json!({}), None, Ok((None, false, false)));
        check(json!({"model": null, "stream": null}), None, Ok((None, false, false)));
        check(json!({"model": "", "stream": true}), Some("refuse"), Ok((None, true, true)));
        check(json!({"model": "m", "stream": false}), Some("Allow"), Ok((Some("m"), false, false)));
        check(json!({"model": 7}), None, Err(()));
        check(json!({"stream": "yes"}), None, Err(()));
        check(json!({}), Some("refused"), Err(()));
    }
}
