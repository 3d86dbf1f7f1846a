//! Addresses as they are typed: where we listen, where a remote tier is, whose pages may call us.
use super::value::{Given, Wrong, text};
use http::Uri;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub(super) const LISTEN_FORM: &str =
    r#"write ADDRESS:PORT, such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::1]:8000""#;
const RELAY_FORM: &str =
    r#"write "smtp://HOST:PORT" (TLS when offered), "smtp+starttls://HOST:PORT" or "smtps://HOST:PORT""#;
const URL_FORM: &str = r#"write http://HOST:PORT, such as "http://gpu2:8000""#;

/// Of a port to connect to.
const NO_PORT: &str = "whose port is not a number from 1 to 65535";
/// Of a port to listen on, where 0 lets the kernel choose.
const PORT_RANGE: &str = "whose port is not a number from 0 to 65535";

/// The server that takes the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    pub security: Security,
    /// A name or a numeric address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// `smtp://`: STARTTLS when the relay offers it.
    Offered,
    /// `smtp+starttls://`: STARTTLS, or no mail.
    Required,
    /// `smtps://`: TLS from the first byte.
    Wrapped,
}

/// `http://HOST:PORT/BASE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    /// A name or a numeric address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Empty, or `/…` without a slash at its end.
    pub base_path: String,
}

impl Url {
    /// `HOST:PORT`, as in a `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.base_path)
    }
}

/// `127.0.0.1:8000` or `[::1]:8000`. Port 0 lets the kernel choose.
pub(super) fn listen(given: &Given<'_>) -> Result<SocketAddr, Wrong> {
    let text = text(given)?;
    text.parse().map_err(|_| {
        let why = match text.rsplit_once(':') {
            _ if text.contains("://") => "a URL, where an address and a port are wanted",
            None => "which has no port",
            Some((host, _)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
                "an IPv6 address without brackets"
            }
            Some((host, port)) if is_numeric(host) && is_number(port) => PORT_RANGE,
            Some((host, _)) if host.chars().any(char::is_alphabetic) && !host.starts_with('[') => {
                "a name, and only numeric addresses are listened on"
            }
            Some(_) => "which is no address",
        };
        given.wrong(why, LISTEN_FORM)
    })
}

/// Is it an address as it stands before a port?
fn is_numeric(host: &str) -> bool {
    format!("{host}:0").parse::<SocketAddr>().is_ok()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Would binding both fail? The same address, or the same port on every address of the family.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let every = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (every || one.ip() == other.ip())
}

/// Would a connection to this URL arrive at this listener of ours?
pub(super) fn leads_to(url: &Url, listener: SocketAddr) -> bool {
    let host = if url.host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { &url.host };
    let Ok(ip) = host.parse::<IpAddr>() else { return false };
    url.port == listener.port()
        && (ip == listener.ip() || (listener.ip().is_unspecified() && ip.is_loopback()))
}

/// `20000-20999`, both included.
pub(super) fn port_range(given: &Given<'_>) -> Result<(u16, u16), Wrong> {
    let form = r#"write FIRST-LAST in quotes, such as "20000-20999""#;
    let text = text(given).map_err(|_| given.of_wrong_type(form))?;
    let ends = text
        .split_once('-')
        .and_then(|(low, high)| Some((low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?)));
    match ends {
        None => Err(given.wrong("which is no range of ports", form)),
        Some((low, high)) if low > high => Err(given.wrong("which ends before it begins", form)),
        Some((low, _)) if low < 1024 => {
            Err(given.wrong("which holds ports that only root may use", "begin at 1024 or above"))
        }
        Some(ends) => Ok(ends),
    }
}

/// `http://HOST[:PORT][/BASE]`.
pub(super) fn url(given: &Given<'_>) -> Result<Url, Wrong> {
    let text = text(given)?;
    // First of all, because what stands before an `@` may be a password and is not shown.
    if text
        .split("://")
        .last()
        .is_some_and(|rest| rest.split(['/', '?', '#']).next().is_some_and(|a| a.contains('@')))
    {
        return Err(given.wrong_unshown("holds a user name", "write the key into `api_key` instead"));
    }
    // `Uri` takes a bare `host:port` as well, and drops a fragment.
    let Some((scheme, _)) = text.split_once("://") else {
        return Err(given.wrong("which has no http:// in front", URL_FORM));
    };
    match scheme {
        "http" => {}
        "https" => return Err(given.wrong("and https is not supported yet", URL_FORM)),
        _ => return Err(given.wrong("which is not http", URL_FORM)),
    }
    let uri: Uri = text.parse().map_err(|_| given.wrong("which is no URL", URL_FORM))?;
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return Err(given.wrong("which names no host", URL_FORM));
    };
    if uri.query().is_some() || text.contains('#') {
        return Err(given.wrong("with a query or fragment", URL_FORM));
    }
    let port = match (authority.as_str().len() > host.len(), uri.port_u16()) {
        (false, _) => 80,
        (true, Some(port)) if port > 0 => port,
        (true, _) => return Err(given.wrong(NO_PORT, URL_FORM)),
    };
    let base_path = uri.path().trim_end_matches('/');
    if base_path == "/v1" || base_path.ends_with("/v1") {
        return Err(given.wrong("and mainstay adds /v1 by itself", "remove /v1 from its end"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(given.wrong("which names no host", URL_FORM));
    }
    Ok(Url { host: host.to_owned(), port, base_path: base_path.to_owned() })
}

/// `smtp://HOST[:PORT]`, `smtp+starttls://…` or `smtps://…`.
pub(super) fn relay(given: &Given<'_>) -> Result<Relay, Wrong> {
    let text = text(given)?;
    if text.contains('@') {
        return Err(given.wrong_unshown("holds a user name", "write `username` and `password` instead"));
    }
    let Some((scheme, place)) = text.split_once("://") else {
        return Err(given.wrong("which has no smtp:// in front", RELAY_FORM));
    };
    let (security, usual_port) = match scheme {
        "smtp" => (Security::Offered, 25),
        "smtp+starttls" => (Security::Required, 587),
        "smtps" => (Security::Wrapped, 465),
        _ => return Err(given.wrong("which is none of the kinds of relay", RELAY_FORM)),
    };
    let place = place.strip_suffix('/').unwrap_or(place);
    let parsed = place.parse::<http::uri::Authority>();
    let authority = parsed.map_err(|_| given.wrong("which names no host and port", RELAY_FORM))?;
    let port = match (place.len() > authority.host().len(), authority.port_u16()) {
        (false, _) => usual_port,
        (true, Some(port)) if port > 0 => port,
        (true, _) => return Err(given.wrong(NO_PORT, RELAY_FORM)),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(given.wrong("which names no host", RELAY_FORM));
    }
    Ok(Relay { security, host: host.to_owned(), port })
}

/// `*`, or `https://HOST[:PORT]` as a browser sends it in `Origin`. Applications and extensions have schemes of their own.
pub(super) fn origin(given: &Given<'_>) -> Result<String, Wrong> {
    let form = r#"write scheme and host without a path, such as "https://chat.example.org", or "*" for all"#;
    let text = text(given)?;
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let is_origin = text == "*"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            is_scheme(scheme)
                && !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
        });
    if !is_origin {
        return Err(given.wrong("which is no origin", form));
    }
    // Browsers write names in lower case, and leave out the port that the scheme means anyway.
    let text = text.to_ascii_lowercase();
    let usual = [("http://", ":80"), ("https://", ":443")];
    let short = usual.iter().find(|(scheme, _)| text.starts_with(scheme));
    Ok(short.and_then(|(_, port)| text.strip_suffix(port)).unwrap_or(&text).to_owned())
}

/// A name as it stands in `Host`, without a port.
pub(super) fn host(given: &Given<'_>) -> Result<String, Wrong> {
    let text = text(given)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if text.is_empty() || text.starts_with('.') || !text.bytes().all(plain) {
        let form = r#"write a name without scheme, port and wildcard, such as "chat.example.org""#;
        return Err(given.wrong("which is no host name", form));
    }
    Ok(text.trim_end_matches('.').to_ascii_lowercase())
}

/// A path of an upstream: absolute, without query.
pub(super) fn path(given: &Given<'_>) -> Result<String, Wrong> {
    let text = text(given)?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
    if !text.starts_with('/') || !text.bytes().all(plain) {
        return Err(given.wrong("which is no path", "write a path that begins with /, without query"));
    }
    Ok(text)
}
