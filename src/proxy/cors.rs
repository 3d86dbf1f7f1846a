//! Which pages of other origins may call us (`server.cors_origins`).
use super::body::ReplyBody;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode};

/// The origin of the request, when its pages may read our answers.
pub(super) fn allowed(request: &HeaderMap, origins: &[String]) -> Option<HeaderValue> {
    let origin = request.get(ORIGIN)?;
    let listed =
        |allowed: &String| allowed == "*" || allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
    origins.iter().any(listed).then(|| origin.clone())
}

/// The answer to a browser that asks before it sends.
pub(super) fn preflight(method: &Method, request: &HeaderMap) -> Option<Response<ReplyBody>> {
    if method != Method::OPTIONS || !request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = Response::new(ReplyBody::whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let wanted = wanted.cloned().unwrap_or(HeaderValue::from_static("authorization, content-type"));
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    Some(response)
}

/// Lets pages of `origin` read an answer.
pub(super) fn allow(answer: &mut HeaderMap, origin: HeaderValue) {
    const EXPOSED: &str = "x-request-id, x-mainstay-tier, x-mainstay-degraded, x-mainstay-attempts, \
                           x-mainstay-skipped, retry-after";
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    answer.append(VARY, HeaderValue::from_static("origin"));
}
