//! PURE. What became of a request at one tier, for the two who are told: the client and the log.
use super::Lost;
use std::fmt;

/// Why a tier did not answer. What a client is told of it comes from the program's own text and a status number: no
/// host, path or word of an engine can be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Why {
    status: Option<u16>,
    phrase: &'static str,
    /// For the log only: the engine's or the system's own words.
    detail: String,
}

impl Why {
    /// An answer with an error status; `phrase` says what it means where that is known, and may be empty.
    pub fn status(status: u16, phrase: &'static str, detail: String) -> Self {
        Self { status: Some(status), phrase, detail }
    }

    /// For clients: "connection refused", "HTTP 500".
    pub fn told(&self) -> String {
        match (self.status, self.phrase) {
            (None, phrase) => phrase.to_owned(),
            (Some(status), "") => format!("HTTP {status}"),
            (Some(status), phrase) => format!("HTTP {status}, {phrase}"),
        }
    }
}

impl From<&'static str> for Why {
    fn from(phrase: &'static str) -> Self {
        Self { status: None, phrase, detail: String::new() }
    }
}

impl From<&Lost> for Why {
    fn from(lost: &Lost) -> Self {
        let (phrase, detail) = match lost {
            Lost::Refused => ("connection refused", ""),
            Lost::ConnectTimeout => ("no connection in time", ""),
            Lost::Unreachable(why) => ("cannot be reached", why.as_str()),
            Lost::Shortage(why) => ("could not be asked from here", why.as_str()),
            Lost::Stale | Lost::Reset => ("connection ended before the answer did", ""),
            Lost::Malformed(why) => ("answer is not HTTP", why.as_str()),
            Lost::Untranslatable(why) => ("cannot be asked", why.as_str()),
        };
        Self { status: None, phrase, detail: detail.to_owned() }
    }
}

impl fmt::Display for Why {
    /// For the log: everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_told_the_kind_and_the_log_everything() {
        let check = |why: Why, told: &str, logged: &str| {
            assert_eq!((why.told().as_str(), why.to_string().as_str()), (told, logged));
        };
        check((&Lost::Refused).into(), "connection refused", "connection refused");
        let unknown_host = Lost::Unreachable("db7.internal: no such name".into());
        check((&unknown_host).into(), "cannot be reached", "cannot be reached: db7.internal: no such name");
        check(Why::status(500, "", "/srv/x.py".into()), "HTTP 500", "HTTP 500: /srv/x.py");
        check(Why::status(400, "too long", String::new()), "HTTP 400, too long", "HTTP 400, too long");
    }
}
