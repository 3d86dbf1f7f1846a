use super::*;

/// A GET with these fields.
fn ask(fields: &[(&str, &str)], origins: &[&str]) -> Result<Option<String>, Objection> {
    admitted("GET", "/v1/models", fields, origins)
}

fn admitted(
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    origins: &[&str],
) -> Result<Option<String>, Objection> {
    let request = Request::builder().method(method).uri(path);
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let (origins, hosts) = (owned(origins), owned(&["gpu1", "chat.example"]));
    let admitted = admit(&request.body(()).unwrap(), &Doors { origins: &origins, hosts: &hosts });
    admitted.map(|origin| origin.map(|origin| origin.to_str().unwrap().to_owned()))
}

#[test]
fn programs_may_ask_under_any_name() {
    for host in ["127.0.0.1:8000", "mainstay", "rebound.attacker.example", "", "a b"] {
        assert_eq!(ask(&[("host", host)], &[]), Ok(None), "{host}");
    }
}

#[test]
fn one_host_is_asked() {
    assert_eq!(ask(&[], &[]), Err(Objection::Host));
    assert_eq!(ask(&[("host", "a"), ("host", "a")], &[]), Err(Objection::Host));
    assert_eq!(admitted("GET", "http://a:1/x", &[("host", "A:1")], &[]), Ok(None));
    assert_eq!(admitted("GET", "http://a:1/x", &[("host", "b")], &[]), Err(Objection::TwoHosts));
    let old = Request::builder().version(Version::HTTP_10).body(()).unwrap();
    assert_eq!(admit(&old, &Doors::default()), Ok(None));
}

#[test]
fn a_page_of_the_endpoint_itself_may_ask() {
    for (origin, host) in [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://10.0.0.5", "10.0.0.5:80"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://localhost:8000", "LOCALHOST:8000"),
        ("http://gpu1:8000", "gpu1:8000"),
        ("https://chat.example", "chat.example"),
        ("https://chat.example", "Chat.Example.:443"),
    ] {
        let said = ask(&[("host", host), ("origin", origin)], &[]);
        assert_eq!(said, Ok(Some(origin.to_owned())), "{origin} at {host}");
    }
}

#[test]
fn a_page_from_elsewhere_may_not() {
    for (origin, host) in [
        ("https://evil.example", "127.0.0.1:8000"),
        ("http://127.0.0.1:3000", "127.0.0.1:8000"),
        ("http://localhost", "localhost:8000"),
        ("https://chat.example", "chat.example:80"),
        ("null", "127.0.0.1:8000"),
        ("null", "null"),
        ("file://", "localhost"),
        ("ftp://localhost", "localhost"),
        ("http://user@localhost", "localhost"),
        ("http://localhost:x", "localhost:x"),
        ("", "localhost"),
    ] {
        let said = ask(&[("host", host), ("origin", origin)], &["https://other.example"]);
        assert_eq!(said, Err(Objection::Page { origin: origin.to_owned() }), "{origin} at {host}");
    }
    let two = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")];
    assert_eq!(ask(&two, &["*"]), Err(Objection::Page { origin: "http://localhost".into() }));
}

#[test]
fn a_name_that_was_made_to_lead_here_is_not_ours() {
    for host in ["rebound.attacker.example", "gpu1.attacker.example", "localhost.attacker.example"] {
        let (place, origin) = (format!("{host}:8000"), format!("http://{host}:8000"));
        let said = ask(&[("host", &place), ("origin", &origin)], &[]);
        assert_eq!(said, Err(Objection::Name { host: host.to_owned() }));
    }
}

#[test]
fn a_listed_page_may_ask_under_any_name() {
    for (listed, origin) in [
        ("https://chat.example", "https://chat.example"),
        ("https://chat.example", "https://CHAT.example"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("*", "https://anything.example"),
        ("*", "null"),
    ] {
        let said = ask(&[("host", "whatever"), ("origin", origin)], &[listed]);
        assert_eq!(said, Ok(Some(origin.to_owned())), "{origin}");
    }
}

#[test]
fn a_page_sends_nothing_for_which_its_browser_asks_nobody() {
    const CHAT: &str = "/v1/chat/completions";
    const AUDIO: &str = "/v1/audio/transcriptions";
    let origin = ("origin", "http://localhost");
    for (path, field, content_type, served) in [
        (CHAT, origin, "application/json", true),
        (CHAT, origin, "Application/JSON; charset=utf-8", true),
        (CHAT, origin, "text/plain", false),
        (CHAT, origin, "text/plain; application/json", false),
        (CHAT, origin, "multipart/form-data; boundary=x", false),
        (CHAT, origin, "application/x-www-form-urlencoded", false),
        (CHAT, ("sec-fetch-site", "cross-site"), "text/plain", false),
        (CHAT, ("sec-fetch-mode", "cors"), "application/json", true),
        (CHAT, ("user-agent", "curl"), "application/x-www-form-urlencoded", true),
        (AUDIO, origin, "multipart/form-data; boundary=x", true),
        (AUDIO, ("sec-fetch-dest", "empty"), "text/plain", false),
    ] {
        let fields = [("host", "localhost"), field, ("content-type", content_type)];
        let said = admitted("POST", path, &fields, &[]);
        assert_eq!(said.is_ok(), served, "{path} {fields:?}");
        let refused = Err(Objection::MediaType { file: path == AUDIO });
        assert!(served || said == refused, "{said:?}");
    }
    assert!(admitted("POST", CHAT, &[("host", "localhost"), origin], &[]).is_err());
    assert!(admitted("GET", CHAT, &[("host", "localhost"), origin], &[]).is_ok());
}
