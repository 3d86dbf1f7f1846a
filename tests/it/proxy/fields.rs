//! Which header fields of a client reach engines and remote tiers, and which of an upstream's reach the client.
use super::engine::{Engine, good_engine};
use super::*;
use mainstay::kinds::Api;

/// Of a client: (name, does an engine of this host get it?, does a remote tier?). `x-session-id` is in `forward_headers`.
const OF_CLIENTS: [(&str, bool, bool); 16] = [
    ("Authorization", false, false),
    ("Api-Key", false, false),
    ("X-Goog-Api-Key", false, false),
    ("X-Auth-Token", false, false),
    ("X-Access-Token", false, false),
    ("X-Amz-Security-Token", false, false),
    ("Cookie", false, false),
    ("X-Forwarded-For", false, false),
    ("Forwarded", false, false),
    ("X-Real-Ip", false, false),
    ("X-Unheard-Of", true, false),
    ("Idempotency-Key", true, false),
    ("X-Session-Id", true, true),
    ("Traceparent", true, true),
    ("OpenAI-Organization", true, true),
    ("Anthropic-Beta", true, true),
];

/// Of upstreams: what would send a client elsewhere, or be obeyed for our name.
const ORDERS: [&str; 7] = [
    "location",
    "alt-svc",
    "strict-transport-security",
    "refresh",
    "clear-site-data",
    "set-cookie",
    "x-accel-redirect",
];

/// Seen to fail with the old list of fields that end here.
#[test]
fn engines_get_no_credentials_and_remote_tiers_what_they_need() {
    for (kind, is_remote) in [(Kind::Vllm, false), (Kind::Remote(Api::OpenAi), true)] {
        let engine = good_engine();
        let bed = Bed::new(vec![tier("first", kind, engine.port)]);
        for (path, body) in [
            ("/v1/chat/completions", chat(false).to_string()),
            ("/tokenize", json!({"prompt": "x"}).to_string()),
        ] {
            let fields: String =
                OF_CLIENTS.iter().map(|(name, ..)| format!("{name}: value-of-{name}\r\n")).collect();
            let length = body.len();
            let head = format!("POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n");
            let answer =
                ask(bed.port, format!("{head}{fields}Content-Length: {length}\r\n\r\n{body}").as_str());
            assert_eq!(answer.status, 200, "{answer:?}");
            let asked = engine.requests();
            let asked = asked.last().unwrap();
            assert!(asked.head.starts_with(&format!("POST {path} ")), "{}", asked.head);
            for (name, of_engines, of_remotes) in OF_CLIENTS {
                let goes = if is_remote { of_remotes } else { of_engines };
                let value = format!("value-of-{name}");
                let got = asked.field(&name.to_ascii_lowercase());
                assert_eq!(got, goes.then_some(value.as_str()), "{name} to {kind:?} at {path}");
            }
        }
    }
}

/// Seen to fail with the old list of an upstream's fields.
#[test]
fn an_upstream_commands_no_client() {
    let orders: String = ORDERS.iter().map(|name| format!("{name}: /elsewhere\r\n")).collect();
    for status in ["200 OK", "400 Bad Request"] {
        let fields = format!("{orders}X-Own: 1\r\nRetry-After: 7\r\n");
        let body = match status {
            "200 OK" => json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}),
            _ => json!({"error": {"message": "no"}}),
        };
        let body = body.to_string();
        let engine = Engine::start(move |t| t.whole(status, &fields, body.clone()));
        let bed = Bed::new(vec![vllm("first", engine.port)]);
        for answer in [bed.chat(false), bed.post("/tokenize", &json!({"prompt": "x"}))] {
            assert_eq!(answer.status.to_string(), status[..3], "{answer:?}");
            assert_eq!((answer.field("x-own"), answer.field("retry-after")), (Some("1"), Some("7")));
            for name in ORDERS {
                assert_eq!(answer.field(name), None, "{name}");
            }
        }
    }
}

/// Seen to fail with a 3xx passed on.
#[test]
fn a_redirect_or_a_switch_of_protocols_is_a_failed_attempt() {
    for status in ["101 Switching Protocols", "302 Found", "304 Not Modified", "307 Temporary Redirect"] {
        let engine = Engine::start(move |t| {
            let fields =
                "Location: http://elsewhere.example/\r\nUpgrade: websocket\r\nConnection: upgrade\r\n";
            t.whole(status, fields, String::new());
        });
        let spare = good_engine();
        let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", spare.port)]);
        let answer = bed.chat(false);
        assert_eq!((answer.status, answer.field("x-mainstay-tier")), (200, Some("second")), "{status}");
        let answer = bed.post("/tokenize", &json!({"prompt": "x"}));
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"), "{status}: {answer:?}");
        assert!(!answer.head.contains("elsewhere") && !answer.body.contains("elsewhere"), "{answer:?}");
    }
}
