//! What lets the pages that may ask (`origin`) read our answers, and tells their browsers so beforehand.
use super::body::ReplyBody;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, VARY,
};
use http::{Method, Response, StatusCode};

/// A browser asks with it whether a page from elsewhere may reach an address of a private network.
const REQUEST_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The answer to a browser that asks before it sends, for a page that may.
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
    if request.contains_key(REQUEST_PRIVATE) {
        fields.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
    }
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
