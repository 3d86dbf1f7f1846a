//! Answers of our own: errors in OpenAI's form, health, the list of models.
use super::body::ReplyBody;
use super::exchange::{Refusal, Why};
use super::intake::Unread;
use super::limits::{HEAD_BYTES, OVERLOAD_RETRY_AFTER};
use super::origin::Objection;
use super::plan::NoTier;
use super::refusals::Code;
use super::route::{RouteTable, TierRoute};
use super::shared::Shared;
use crate::clock;
use crate::kinds::peer;
use crate::policy::{Misled, Moment, Path, TierId};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Bytes of what a client sent in a message.
const LONGEST_QUOTE: usize = 200;

/// An error of our own.
#[derive(Debug)]
pub(super) struct OwnError {
    status: StatusCode,
    code: Code,
    message: String,
    param: Option<&'static str>,
    retry_after: Option<Duration>,
    /// What only the log is told: hosts, and words of engines.
    detail: Option<Detail>,
}

/// What only the log is told of an error of our own, as an extension of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Detail(pub String);

impl OwnError {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry_after: None, detail: None }
    }

    fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    pub fn bad_degrade() -> Self {
        Self::invalid("x-mainstay-degrade", "x-mainstay-degrade is neither refuse nor allow")
    }

    /// The request went through other mainstays, and not as it should.
    pub fn misled(why: Misled) -> Self {
        let status = StatusCode::LOOP_DETECTED;
        match why {
            Misled::Loop => Self::new(
                status,
                Code::Loop,
                "The request came back to a mainstay that it went through before: it went in a circle, and no \
                 mainstay of that circle has an engine that can answer. If the `url` of a remote tier leads to \
                 this host itself, change it; else start an engine",
            ),
            Misled::TooLong => Self::new(
                status,
                Code::Loop,
                "The request went through too many mainstays: let remote tiers name hosts that have engines",
            ),
            Misled::Garbled => Self::invalid(peer::VIA, "x-mainstay-via is no list of mainstay instances"),
        }
    }

    pub fn not_found(path: &str) -> Self {
        let twice = if path.starts_with("/v1/v1/") {
            ": /v1 is there twice. A client's base_url ends in /v1 once, and for some clients without it"
        } else {
            ""
        };
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, format!("There is nothing at {path}{twice}"))
    }

    /// Refused for where it comes from, or for how.
    pub fn objection(why: &Objection) -> Self {
        match why {
            Objection::Host => Self::new(
                StatusCode::BAD_REQUEST,
                Code::InvalidHost,
                "The request names no host, or more than one (header Host)",
            ),
            Objection::TwoHosts => Self::new(
                StatusCode::BAD_REQUEST,
                Code::InvalidHost,
                "The request names one host in its first line and another in the header Host",
            ),
            Objection::Page { origin } => {
                let message = format!(
                    "Web pages of the origin {} may not use this endpoint. To allow it, write the origin into \
                     server.cors_origins",
                    clipped(origin)
                );
                Self::new(StatusCode::FORBIDDEN, Code::OriginNotAllowed, message)
            }
            Objection::Name { host } => {
                let message = format!(
                    "A web page asks for the host {}, which is not known as a name of this endpoint. If it is one, \
                     write it into server.hosts",
                    clipped(host)
                );
                Self::new(StatusCode::FORBIDDEN, Code::OriginNotAllowed, message)
            }
            Objection::MediaType { file } => {
                let or = if *file { " or multipart/form-data" } else { "" };
                let message = format!("A POST of a web page needs the content type application/json{or}");
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType, message)
            }
        }
    }

    pub fn wrong_method(method: &http::Method, path: &str) -> Self {
        let message = format!("{path} does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, message)
    }

    pub fn too_large(max: usize) -> Self {
        let message = format!("The request body is larger than {max} bytes (server.max_body)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BodyTooLarge, message)
    }

    pub fn overloaded(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, message)
            .retry_after(OVERLOAD_RETRY_AFTER)
    }

    pub fn slow_body() -> Self {
        let message = "The request body did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, message)
    }

    /// A pass-through is not sent twice, so this one is over.
    pub fn lost_on_the_way(tier: &str, why: impl Into<Why>) -> Self {
        let why = why.into();
        let message = format!("Tier {tier}: {}", why.told());
        let error = Self::new(StatusCode::BAD_GATEWAY, Code::UpstreamFailed, message);
        Self { detail: Some(Detail(format!("{tier}: {why}"))), ..error }
    }

    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, Code::InvalidValue, message);
        Self { param: Some(param), ..error }
    }

    pub fn unread(unread: Unread, max: usize) -> Self {
        match unread {
            Unread::TooLarge => Self::too_large(max),
            Unread::TooMany => {
                let message =
                    "The request body has more values than there is memory for (server.replay_memory)";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BodyTooLarge, message)
            }
            Unread::Encoded => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::UnsupportedMediaType,
                "The request body is compressed (header Content-Encoding): send it as it is",
            ),
            Unread::NoMemory => {
                Self::overloaded("Too many large requests at one time (server.replay_memory)")
            }
            Unread::Evicted => Self::overloaded(
                "There are too many large requests at one time (server.replay_memory), and the body of this one came slowest",
            ),
            Unread::Stalled(limit) => {
                let message = format!("Nothing of the request body came for {} s", limit.as_secs_f64());
                Self::new(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, message)
            }
            Unread::Broken => Self::new(
                StatusCode::BAD_REQUEST,
                Code::InvalidBody,
                "The request body ended early or is damaged",
            ),
            Unread::NotJson(why) => {
                let message = format!("The request body is not a JSON object: {why}");
                Self::new(StatusCode::BAD_REQUEST, Code::InvalidJson, message)
            }
        }
    }

    /// Nobody could be asked.
    pub fn no_tier(why: NoTier, table: &RouteTable, shared: &Shared) -> Self {
        match why {
            NoTier::UnknownModel(name) => Self::unknown_model(&name, table),
            NoTier::NobodyCarries(reasons) => {
                let message = format!("No tier can carry this request: {}", listed(table, &reasons));
                Self::new(StatusCode::BAD_REQUEST, Code::NotSupported, message)
            }
            NoTier::OnlyWeakened => {
                let message = "Only weakened answers can be given now, and the request refuses them";
                let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::OnlyDegradedTiers, message);
                error.retry_after(shared.retry_after(table))
            }
            NoTier::Wrong { field, what } => {
                Self::invalid(field, format!("The request is wrong whichever tier gets it: {what}"))
            }
            NoTier::AllDown { skipped } => Self::all_down(&[], &skipped, table, shared),
        }
    }

    fn unknown_model(name: &str, table: &RouteTable) -> Self {
        let names = table.names().join(", ");
        let message = format!("The model `{}` does not exist. Known names: {names}", clipped(name));
        let error = Self::new(StatusCode::NOT_FOUND, Code::ModelNotFound, message);
        Self { param: Some("model"), ..error }
    }

    /// Some were asked, and none answered. `skipped`: those that were not asked because they could not carry it.
    pub fn refusal(why: Refusal, skipped: &[(TierId, String)], table: &RouteTable, shared: &Shared) -> Self {
        match why {
            Refusal::Failed(losses) => Self::all_down(&losses, skipped, table, shared),
            Refusal::Full => Self::overloaded("Every tier is at its limit of concurrent requests"),
            Refusal::Shortage => Self::overloaded(
                "No file descriptor or port is left on this host to reach a tier (LimitNOFILE of the unit)",
            ),
            Refusal::Poison(until) => Self::poison(until),
            Refusal::TimedOut => {
                let within = shared.limits.request_timeout.map(|limit| limit.as_secs_f64());
                let within = within.map_or("in time".to_owned(), |limit| format!("within {limit} s"));
                let message = format!("No answer {within} (server.request_timeout)");
                Self::new(StatusCode::GATEWAY_TIMEOUT, Code::RequestTimeout, message)
            }
        }
    }

    /// It may have killed two engines.
    pub fn poison(until: Moment) -> Self {
        let left = i64::try_from(until.since(clock::now()).as_millis()).unwrap_or(i64::MAX);
        let until = clock::rfc3339(clock::wall_ms().saturating_add(left));
        let message = format!(
            "Two engines died while they were at this request. It may be the reason, so it is refused until {until}, \
             before a third one dies. Other requests are not"
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::PoisonRequest, message)
    }

    /// Every tier with what became of the request there, or why it was not asked.
    /// The client is told the kinds only, the log the words too.
    fn all_down(
        losses: &[(TierId, Why)],
        skipped: &[(TierId, String)],
        table: &RouteTable,
        shared: &Shared,
    ) -> Self {
        let told = |lost: &dyn Fn(&Why) -> String, unasked: &dyn Fn(&TierRoute) -> String| {
            let reason = |route: &TierRoute| {
                let lost = losses.iter().find(|(tier, _)| *tier == route.tier).map(|(_, why)| lost(why));
                let skipped = || skipped.iter().find(|(tier, _)| *tier == route.tier);
                let reason = lost
                    .or_else(|| skipped().map(|(_, reason)| format!("skipped ({reason})")))
                    .unwrap_or_else(|| unasked(route));
                (route.tier, if reason.is_empty() { "not asked".to_owned() } else { reason })
            };
            listed(table, &table.tiers.iter().map(reason).collect::<Vec<_>>())
        };
        let message = match told(&Why::told, &|route| route.brief.to_owned()) {
            none if none.is_empty() => "No tier can answer now".to_owned(),
            reasons => format!("No tier can answer now: {reasons}"),
        };
        let detail = Detail(told(&Why::to_string, &|route| route.reason.clone()));
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::AllTiersDown, message);
        Self { detail: Some(detail), ..error.retry_after(shared.retry_after(table)) }
    }

    /// The HTTP library's own refusal.
    fn unparsed(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::URI_TOO_LONG => (Code::HeadTooLarge, "The URL of the request is too long".to_owned()),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                let message = format!(
                    "The request has more than 100 header fields, or they and its first line are longer than \
                     {HEAD_BYTES} bytes"
                );
                (Code::HeadTooLarge, message)
            }
            _ => (
                Code::InvalidRequest,
                "The request is not HTTP/1.1: its first line or a header field is damaged".to_owned(),
            ),
        };
        Self::new(status, code, message)
    }

    /// The answer for a method that the path does not take.
    pub fn allowing(mut self, methods: &'static str) -> Response<ReplyBody> {
        self.message.push_str("; use ");
        self.message.push_str(&methods.replace(", ", " or "));
        let mut response = self.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        response
    }

    fn seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_millis().div_ceil(1000).max(1) as u64)
    }

    fn body(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let error =
            json!({"message": self.message, "type": kind, "param": self.param, "code": self.code.name()});
        let mut body = json!({ "error": error });
        if let Some(seconds) = self.seconds() {
            body["retry_after"] = seconds.into();
        }
        body
    }

    /// The answer; its code and its detail are extensions of it, for whoever counts and logs.
    pub fn into_response(self) -> Response<ReplyBody> {
        let mut response = json_response(self.status, &self.body());
        let seconds = self.seconds();
        response.extensions_mut().insert(self.code);
        self.detail.map(|detail| response.extensions_mut().insert(detail));
        if let Some(seconds) = seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What the library says of a request that it cannot parse, with a body of ours and a name for the request.
pub(super) fn in_our_words(said: &[u8], shared: &Shared) -> Bytes {
    let said = String::from_utf8_lossy(said);
    let status = said.split(' ').nth(1).and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    let error = OwnError::unparsed(status.unwrap_or(StatusCode::BAD_REQUEST));
    shared.refusals.count(error.code);
    let (body, id) = (error.body().to_string(), shared.new_name());
    let is_kept = |line: &&str| !line.is_empty() && !line.starts_with("content-length:");
    let head: Vec<&str> = said.lines().filter(is_kept).collect();
    let head = head.join("\r\n");
    let length = body.len();
    Bytes::from(format!(
        "{head}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nx-request-id: {id}\r\n\r\n{body}"
    ))
}

/// What a client sent, not longer than a message can bear.
fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_QUOTE)]
}

fn listed(table: &RouteTable, reasons: &[(TierId, String)]) -> String {
    let mut text = String::new();
    for (tier, reason) in reasons {
        let name = table.tier(*tier).map_or("?", |route| route.name.as_str());
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{name}: {reason}");
    }
    text
}

fn json_response(status: StatusCode, body: &Value) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::whole(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `GET /health`: 200 while any tier takes requests. Asked by another mainstay it tells only of what does not lead back
/// there, and on which paths.
pub(super) fn health(table: &RouteTable, shared: &Shared, via: &Path) -> Response<ReplyBody> {
    let Some((serving, paths)) = table.reach(shared.instance, via) else {
        return OwnError::all_down(&[], &[], table, shared).into_response();
    };
    let mut body = json!({"status": "ok", "tier": serving.name});
    if !via.is_empty() {
        body[peer::PATHS] = paths.iter().map(Path::to_string).collect();
    }
    json_response(StatusCode::OK, &body)
}

/// `GET /v1/models`: every name that leads into the chain.
pub(super) fn models(table: &RouteTable) -> Response<ReplyBody> {
    let data: Vec<Value> = table.names().into_iter().map(|name| model_object(name, table)).collect();
    json_response(StatusCode::OK, &json!({"object": "list", "data": data}))
}

/// `GET /v1/models/NAME`: one of that list. `name` is as it stands in the path.
pub(super) fn model(table: &RouteTable, name: &str) -> Response<ReplyBody> {
    // What is not UTF-8 is nobody's name, and is shown as well as it can be.
    let name = percent_decode_str(name).decode_utf8_lossy();
    match table.names().into_iter().find(|known| *known == name) {
        Some(known) => json_response(StatusCode::OK, &model_object(known, table)),
        None => OwnError::unknown_model(&name, table).into_response(),
    }
}

/// A name with what is known of the tier that has it: by vLLM's names, which clients look for.
fn model_object(name: &str, table: &RouteTable) -> Value {
    let mut object = json!({"id": name, "object": "model", "created": 0, "owned_by": "mainstay"});
    let by_model = table.tiers.iter().find(|route| route.model == name);
    let by_alias = || table.tiers.iter().find(|route| route.aliases.iter().any(|alias| alias == name));
    if let Some(route) = by_model.or_else(by_alias) {
        object["root"] = route.model.as_str().into();
        if let Some(tokens) = route.live.context() {
            object["max_model_len"] = tokens.into();
        }
    }
    object
}
