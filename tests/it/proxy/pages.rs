//! Who may ask: web pages only where the operator opened the endpoint to them.
use super::client::{get, post_with, provoke};
use super::engine::good_engine;
use super::*;

/// A request for a chat with these header fields.
fn chat_with(host: &str, fields: &str) -> String {
    post_with("/v1/chat/completions", fields, &chat(false))
        .replace("Host: mainstay", &format!("Host: {host}"))
}

#[test]
fn a_page_that_nobody_opened_the_endpoint_to_is_refused() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let port = bed.port;
    let local = format!("127.0.0.1:{port}");
    let rebound = format!("rebound.attacker.example:{port}");
    for (request, status, code, key) in [
        // What a page of any origin can send without its browser asking.
        (
            chat_with(&local, "Origin: https://evil.example\r\n"),
            403,
            "origin_not_allowed",
            "server.cors_origins",
        ),
        (chat_with(&local, "Origin: null\r\n"), 403, "origin_not_allowed", "server.cors_origins"),
        // Under a name whose owner let it lead to us.
        (
            chat_with(&rebound, &format!("Origin: http://{rebound}\r\n")),
            403,
            "origin_not_allowed",
            "server.hosts",
        ),
        (
            get("/v1/models").replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n"),
            403,
            "origin_not_allowed",
            "",
        ),
        (
            get("/health").replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n"),
            403,
            "origin_not_allowed",
            "",
        ),
        (
            post_with("/tokenize", "Origin: https://evil.example\r\n", &json!({})),
            403,
            "origin_not_allowed",
            "",
        ),
        (
            chat_with(&local, &format!("Origin: http://{local}\r\n"))
                .replace("application/json", "text/plain"),
            415,
            "unsupported_media_type",
            "application/json",
        ),
        (
            chat_with(&local, "Sec-Fetch-Site: cross-site\r\n").replace("application/json", "text/plain"),
            415,
            "unsupported_media_type",
            "application/json",
        ),
    ] {
        let answer = ask(port, &request);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{request}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(key), "{key}: {answer:?}");
        assert!(answer.field("x-request-id").is_some());
        assert_eq!(answer.field("access-control-allow-origin"), None, "{request}");
    }
    assert_eq!(engine.requests().len(), 0);
    assert_eq!(bed.proxy.refusals().of(proxy::Code::OriginNotAllowed), 6);
    // Before its body is read: this one never comes.
    let unsent = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {local}\r\nOrigin: https://evil.example\r\nContent-Length: 99\r\n\r\n"
    );
    assert_eq!(ask(port, &unsent).status, 403);
}

#[test]
fn the_endpoints_own_pages_and_all_programs_are_served() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let local = format!("127.0.0.1:{}", bed.port);
    for request in [
        chat_with(&local, &format!("Origin: http://{local}\r\nSec-Fetch-Site: same-origin\r\n")),
        chat_with("gpu1:8000", "Origin: http://gpu1:8000\r\n"),
        chat_with("whatever", "Origin: https://chat.example\r\n"),
        chat_with("rebound.attacker.example", ""),
        chat_with("whatever", "").replace("application/json", "application/x-www-form-urlencoded"),
    ] {
        ask(bed.port, &request).expect_good_by("first");
    }
    let old = get("/health").replace("HTTP/1.1\r\nHost: mainstay", "HTTP/1.0");
    assert!(provoke(bed.port, old.as_bytes()).starts_with("HTTP/1.0 200 "), "HTTP/1.0 knows no Host");
}

#[test]
fn one_host_is_named() {
    let bed = Bed::new(vec![]);
    for request in [
        get("/health").replace("Host: mainstay\r\n", ""),
        get("/health").replace("Host: mainstay\r\n", "Host: mainstay\r\nHost: mainstay\r\n"),
        get("http://other:1/health"),
    ] {
        let answer = ask(bed.port, &request);
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_host"), "{request}");
    }
}

#[test]
fn browsers_that_ask_first_are_told() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let preflight = |origin: &str, more: &str| {
        format!(
            "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: mainstay\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n{more}\r\n"
        )
    };
    let private = "Access-Control-Request-Private-Network: true\r\n";
    let allowed = ask(bed.port, &preflight("https://chat.example", ""));
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.field("access-control-allow-origin"), Some("https://chat.example"));
    assert_eq!(allowed.field("access-control-allow-headers"), Some("authorization"));
    assert_eq!(allowed.field("access-control-allow-private-network"), None);
    let allowed = ask(bed.port, &preflight("https://chat.example", private));
    assert_eq!(allowed.field("access-control-allow-private-network"), Some("true"));
    let refused = ask(bed.port, &preflight("https://evil.example", private));
    assert_eq!(refused.status, 403);
    assert!(!refused.head.to_ascii_lowercase().contains("access-control-allow"), "{refused:?}");
    let request = post_with("/v1/chat/completions", "Origin: https://chat.example\r\n", &chat(true));
    let answer = ask(bed.port, &request);
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://chat.example"));
    assert_eq!(engine.requests()[0].field("origin"), None);
    assert_eq!(bed.chat(true).field("access-control-allow-origin"), None);
}
