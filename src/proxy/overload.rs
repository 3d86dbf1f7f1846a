//! PURE. How long an upstream that has no room wants to be left alone.
use http::HeaderMap;
use http::header::RETRY_AFTER;
use std::time::Duration;

/// A tier that says no time is left alone so long.
const UNTOLD: Duration = Duration::from_secs(1);
/// However long it asks for: what it says may be wrong, or meant for another key.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3). `wall`: seconds since 1970. `None`: it says nothing that can be
/// read.
pub(super) fn retry_after(fields: &HeaderMap, wall: i64) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::from_secs(date.as_second().saturating_sub(wall).try_into().unwrap_or(0)))
}

/// How long new requests keep away from it while another tier is open.
pub(super) fn pause(asked: Option<Duration>) -> Duration {
    asked.unwrap_or(UNTOLD).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[track_caller]
    fn check(value: &'static str, expected: Option<u64>) {
        let fields = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        assert_eq!(retry_after(&fields, 784_111_777), expected.map(Duration::from_secs), "{value:?}");
    }

    #[test]
    fn a_time_is_read_in_seconds_or_as_a_date() {
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:49:36 GMT", Some(0));
        for unreadable in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            check(unreadable, None);
        }
    }

    #[test]
    fn no_tier_is_left_alone_for_ever() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(pause(None), Duration::from_secs(1));
        assert_eq!((pause(seconds(0)), pause(seconds(30))), (Duration::ZERO, Duration::from_secs(30)));
        assert_eq!(pause(seconds(86_400)), Duration::from_secs(600));
    }
}
