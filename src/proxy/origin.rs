//! PURE. Where a request comes from, and whether it is served: programs may ask, a web page only where the operator opened
//! the endpoint to it.
//!
//! A browser says in `Origin` which page asks. That `Origin` and `Host` agree is not enough for a page of the endpoint's
//! own: whoever owns a name can have its page loaded from his server, and then let the name lead to us.
use crate::kinds::paths;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Method, Request, Version};
use std::net::IpAddr;

/// Why a request is refused before its body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// It does not say in one way which host it asks.
    Host,
    /// Its first line is a URL of another host than `Host` says.
    TwoHosts,
    /// It comes from a page to which the endpoint is not open.
    Page { origin: String },
    /// It comes from a page of the host that it asks, and the host has a name that is not known to be ours.
    Name { host: String },
    /// A page sends it in a way for which a browser asks nobody.
    MediaType { file: bool },
}

/// To whom the operator opened the endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Doors<'a> {
    /// Origins whose pages may ask; `"*"` is all of them.
    pub origins: &'a [String],
    /// Names of this endpoint, in lower case.
    pub hosts: &'a [String],
}

/// The origin of the page that asks, and that may read the answer; `None` for a program.
pub(super) fn admit<B>(request: &Request<B>, doors: &Doors<'_>) -> Result<Option<HeaderValue>, Objection> {
    let fields = request.headers();
    let host = host(request)?;
    let origin = page(fields, host, doors)?;
    let by_browser = origin.is_some() || fields.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
    if by_browser && request.method() == Method::POST && !is_asked_about(request) {
        return Err(Objection::MediaType { file: paths::takes_form(request.uri().path()) });
    }
    Ok(origin)
}

/// What the request calls us. Only HTTP/1.0 may leave it out.
fn host<B>(request: &Request<B>) -> Result<Option<&str>, Objection> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => return Ok(None),
        (Some(only), None) => only.to_str().map_err(|_| Objection::Host)?,
        _ => return Err(Objection::Host),
    };
    let agree = |authority: &Authority| authority.as_str().eq_ignore_ascii_case(host);
    if request.uri().authority().is_none_or(agree) { Ok(Some(host)) } else { Err(Objection::TwoHosts) }
}

fn page(fields: &HeaderMap, host: Option<&str>, doors: &Doors<'_>) -> Result<Option<HeaderValue>, Objection> {
    let mut origins = fields.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(None) };
    let text = origin.to_str().unwrap_or("?");
    let listed = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(text);
    let is_only = origins.next().is_none();
    if is_only && doors.origins.iter().any(listed) {
        return Ok(Some(origin.clone()));
    }
    match host.filter(|host| is_only && is_of(text, host)).and_then(name_and_port) {
        Some((name, _)) if is_ours(&name, doors.hosts) => Ok(Some(origin.clone())),
        Some((name, _)) => Err(Objection::Name { host: name }),
        None => Err(Objection::Page { origin: text.to_owned() }),
    }
}

/// Is it the origin of pages that `host` serves?
fn is_of(origin: &str, host: &str) -> bool {
    let Some((scheme, place)) = origin.split_once("://") else { return false };
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let whole = |text| name_and_port(text).map(|(name, port)| (name, port.unwrap_or(usual)));
    whole(place).is_some_and(|place| whole(host) == Some(place))
}

/// The name in lower case, an IPv6 address without brackets.
fn name_and_port(place: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = place.parse().ok()?;
    let (host, port) = (authority.host(), authority.port_u16());
    let has_more = authority.as_str().len() > host.len();
    if host.is_empty() || (has_more && port.is_none()) || place.contains('@') {
        return None;
    }
    let name = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    Some((name.to_ascii_lowercase(), port))
}

/// Is it a name under which nobody else can have a page loaded?
fn is_ours(name: &str, hosts: &[String]) -> bool {
    name.parse::<IpAddr>().is_ok() || name == "localhost" || hosts.iter().any(|ours| ours == name)
}

/// Is the request of a kind for which a browser first asks whether the page may send it, or which is a file?
fn is_asked_about<B>(request: &Request<B>) -> bool {
    let sent = media_type(request.headers());
    sent.eq_ignore_ascii_case(b"application/json")
        || (sent.eq_ignore_ascii_case(b"multipart/form-data") && paths::takes_form(request.uri().path()))
}

/// The type of a body, without its parameters; empty where none is given.
pub(super) fn media_type(fields: &HeaderMap) -> &[u8] {
    let given = fields.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    given.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests;
