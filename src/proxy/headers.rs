//! Which header fields go from the client to an upstream, and which come back.
use super::route::RouteTable;
use super::veil;
use crate::kinds::{Kind, fields, peer};
use crate::policy::{Misled, Path, TierId};
use crate::redact::Redactor;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeSet;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TIER: HeaderName = HeaderName::from_static("x-mainstay-tier");
pub(super) const DEGRADED: HeaderName = HeaderName::from_static("x-mainstay-degraded");
pub(super) const ATTEMPTS: HeaderName = HeaderName::from_static("x-mainstay-attempts");
pub(super) const SKIPPED: HeaderName = HeaderName::from_static("x-mainstay-skipped");
pub(super) const DEGRADE: HeaderName = HeaderName::from_static("x-mainstay-degrade");
pub(super) const VIA: HeaderName = HeaderName::from_static(peer::VIA);
pub(super) const INSTANCE: HeaderName = HeaderName::from_static(peer::INSTANCE);

/// The client's fields that a tier of this kind gets. `further`: names that the operator allows to remote ones.
pub(super) fn to_upstream(client: &HeaderMap, kind: Kind, further: &[String]) -> HeaderMap {
    kept(client, |name| match kind {
        Kind::Vllm | Kind::Ollama | Kind::LlamaServer => {
            name != REQUEST_ID && !fields::ends_here(name.as_str())
        }
        Kind::Remote(_) => name != REQUEST_ID && fields::reaches_remotes(name.as_str(), further),
    })
}

/// The upstream's fields that the client gets.
pub(super) fn to_client(upstream: &HeaderMap, redactor: &Redactor) -> HeaderMap {
    let mut shown = kept(upstream, |name| fields::reaches_clients(name.as_str()));
    veil::fields(redactor, &mut shown);
    shown
}

fn kept(given: &HeaderMap, passes: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let nominated: BTreeSet<String> = given
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let goes_on = |name: &HeaderName| !nominated.contains(name.as_str()) && passes(name);
    given.iter().filter(|(name, _)| goes_on(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

pub(super) fn put_attempts(fields: &mut HeaderMap, attempts: u32) {
    if attempts > 1 {
        fields.insert(ATTEMPTS, HeaderValue::from(attempts));
    }
}

/// Tiers that could not carry the request, and would have been asked before the one that answered.
pub(super) fn put_skipped(
    fields: &mut HeaderMap,
    table: &RouteTable,
    skipped: &[(TierId, String)],
    answered: Option<TierId>,
) {
    for (tier, reason) in skipped.iter().filter(|(tier, _)| answered.is_none_or(|by| *tier < by)) {
        if let Some(route) = table.tier(*tier) {
            fields.append(SKIPPED, value_of(&format!("{}; {reason}", route.name)));
        }
    }
}

/// `text` as a header value: anything but visible ASCII and blanks becomes `?`.
pub(super) fn value_of(text: &str) -> HeaderValue {
    let plain: String =
        text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    HeaderValue::try_from(plain).unwrap_or(HeaderValue::from_static("?"))
}

/// The instances of mainstay that the request went through. Several fields are one list (RFC 9110, 5.3).
pub(super) fn via(fields: &HeaderMap) -> Result<Path, Misled> {
    let lists: Vec<&str> = fields
        .get_all(VIA)
        .iter()
        .map(|v| v.to_str().map_err(|_| Misled::Garbled))
        .collect::<Result<_, _>>()?;
    if lists.is_empty() {
        return Ok(Path::default());
    }
    Path::parse(&lists.join(",")).ok_or(Misled::Garbled)
}

/// Does the request refuse weakened answers? `None` when what it says is neither yes nor no: taken for "allow" it would
/// weaken answers that somebody tried to refuse.
pub(super) fn refuses_weakened(fields: &HeaderMap) -> Option<bool> {
    match fields.get(DEGRADE).map(|value| value.as_bytes().trim_ascii()) {
        None => Some(false),
        Some(value) if value.eq_ignore_ascii_case(b"refuse") => Some(true),
        Some(value) if value.eq_ignore_ascii_case(b"allow") => Some(false),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Api;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(n, v): &(&'static str, &'static str)| {
            (HeaderName::from_static(n), HeaderValue::from_static(v))
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn what_an_upstream_gets() {
        let given = map(&[
            ("host", "mainstay"),
            ("authorization", "Bearer secret"),
            ("accept-encoding", "gzip"),
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("x-custom", "2"),
            ("x-conversation-id", "7"),
            ("x-mainstay-degrade", "refuse"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("user-agent", "test"),
            ("accept", "*/*"),
            ("accept", "text/plain"),
        ]);
        let mut expected = map(&[("user-agent", "test"), ("accept", "*/*"), ("accept", "text/plain")]);
        assert_eq!(to_upstream(&given, Kind::Remote(Api::OpenAi), &[]), expected);
        expected.insert("x-custom", HeaderValue::from_static("2"));
        assert_eq!(to_upstream(&given, Kind::Vllm, &[]), expected);
        assert_eq!(to_upstream(&given, Kind::Remote(Api::OpenAi), &["x-custom".into()]), expected);
    }

    #[test]
    fn what_a_client_gets() {
        let given = map(&[
            ("content-length", "3"),
            ("content-type", "application/json"),
            ("keep-alive", "timeout=5"),
            ("server", "uvicorn"),
            ("x-mainstay-tier", "theirs"),
            ("access-control-allow-origin", "*"),
            ("retry-after", "7"),
        ]);
        assert_eq!(
            to_client(&given, &Redactor::of_forms()),
            map(&[("content-type", "application/json"), ("retry-after", "7")])
        );
    }

    #[test]
    fn several_lists_of_instances_are_one() {
        let (one, two) = ("0000000000000001", "0000000000000002");
        assert_eq!(via(&map(&[])), Ok(Path::default()));
        let both = via(&map(&[("x-mainstay-via", one), ("x-mainstay-via", two)]));
        assert_eq!(both.map(|path| path.to_string()), Ok(format!("{one}, {two}")));
        assert_eq!(via(&map(&[("x-mainstay-via", "")])), Err(Misled::Garbled));
    }

    #[test]
    fn any_text_makes_a_value() {
        assert_eq!(value_of("cpu; größer\r\nx: y"), "cpu; gr??er??x: y");
    }
}
