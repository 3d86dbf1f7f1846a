//! Which header fields of a client an upstream may see, and which of an upstream's a client may: by what they are for. Names
//! are in lower case.

/// Fields of one connection (RFC 9110, 7.6.1), and of the framing of one message.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What mainstay says itself, or decides instead of the upstream.
const OURS: &[&str] = &[
    // Answers are read, so they have to come as they are, and whole.
    "accept-encoding",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    // Which pages may call is decided here, and Ollama refuses one that it does not know.
    "origin",
    "referer",
    // With it llama-server goes on generating for a client that has left.
    "x-conversation-id",
];

/// A field with one of these words in its name holds what lets its sender in somewhere.
const CREDENTIALS: &[&str] = &[
    "apikey",
    "assertion",
    "auth",
    "authenticate",
    "authentication",
    "authorization",
    "cookie",
    "cookie2",
    "credential",
    "credentials",
    "jwt",
    "key",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "signature",
    "token",
];
/// No credential in spite of its name: the clients of OpenAI send it with every request.
const NO_CREDENTIAL: &str = "idempotency-key";

/// Said by proxies before us, who they speak for and what was asked of them; a client can say it as well.
const FORWARDING: &[&str] = &[
    "client-ip",
    "forwarded",
    "remote-addr",
    "remote-user",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-remote-user",
];
const FORWARDING_PREFIXES: &[&str] =
    &["x-forwarded", "x-original-", "x-rewrite-", "x-envoy-", "cf-", "x-ms-client-"];
const FORWARDING_SUFFIXES: &[&str] = &["-client-ip", "-connecting-ip", "-real-ip", "-user-ip"];

/// What any upstream may know of a client's request.
const OF_REQUESTS: &[&str] = &[
    "accept",
    "content-encoding",
    "content-type",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
];
/// What the hosted APIs read.
const APIS: &[&str] = &["openai-", "anthropic-"];

/// What an answer is, how long it may be kept, and when to come again.
const OF_ANSWERS: &[&str] = &[
    "age",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-range",
    "content-type",
    "digest",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "retry-after",
    "retry-after-ms",
    "server-timing",
    "vary",
    "warning",
];
/// Orders to a browser, or to a proxy in front of us, in spite of their prefix.
const X_ORDERS: &[&str] = &[
    "x-accel-",
    "x-content-",
    "x-dns-",
    "x-download-",
    "x-frame-",
    "x-lighttpd-",
    "x-mainstay-",
    "x-permitted-",
    "x-pingback",
    "x-powered-by",
    "x-proxy-",
    "x-redirect",
    "x-reproxy-",
    "x-request-id",
    "x-robots-",
    "x-sendfile",
    "x-sourcemap",
    "x-ua-",
    "x-webkit-",
    "x-xss-",
];

/// Does a client's field end here, whatever stands behind us? Credentials do: they are for us, not for the engine.
pub fn ends_here(name: &str) -> bool {
    let is = |names: &[&str]| names.contains(&name);
    is(HOP_BY_HOP)
        || is(OURS)
        || name.starts_with("proxy-")
        || name.starts_with("x-mainstay-")
        || is_credential(name)
        || is_forwarding(name)
}

/// May a client's field go to a server that is not ours? `further`: names that the operator allows.
pub fn reaches_remotes(name: &str, further: &[String]) -> bool {
    let is_known = OF_REQUESTS.contains(&name) || APIS.iter().any(|prefix| name.starts_with(prefix));
    !ends_here(name) && (is_known || further.iter().any(|allowed| allowed == name))
}

/// May a client see this field of an upstream's answer? Nothing that sends it elsewhere, or that it would do for our
/// name (a browser keeps HSTS and cookies for the host, a reverse proxy obeys `x-accel-redirect`).
pub fn reaches_clients(name: &str) -> bool {
    let orders = X_ORDERS.iter().any(|order| name.starts_with(order));
    let says = OF_ANSWERS.contains(&name)
        || APIS.iter().any(|prefix| name.starts_with(prefix))
        || name.starts_with("ratelimit")
        || name.starts_with("x-") && !orders;
    // `x-ratelimit-remaining-tokens` is a count.
    says && (name.contains("ratelimit") || !is_credential(name)) && !is_forwarding(name)
}

fn is_credential(name: &str) -> bool {
    name != NO_CREDENTIAL && name.split(['-', '_', '.']).any(|word| CREDENTIALS.contains(&word))
}

fn is_forwarding(name: &str) -> bool {
    FORWARDING.contains(&name)
        || FORWARDING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || FORWARDING_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_words_of_other_proxies_end_here() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "x-auth-token",
            "x-access-token",
            "x-amz-security-token",
            "x_api_key",
            "x-functions-key",
            "ocp-apim-subscription-key",
            "private-token",
            "x-vault-token",
            "x-csrf-token",
            "anthropic-api-key",
            "cf-access-jwt-assertion",
            "forwarded",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-real-ip",
            "x-envoy-external-address",
            "fastly-client-ip",
            "x-original-url",
            "x-http-method-override",
            "host",
            "transfer-encoding",
            "upgrade",
            "accept-encoding",
            "x-conversation-id",
            "x-mainstay-degrade",
        ] {
            assert!(ends_here(name), "{name}");
            assert!(!reaches_remotes(name, &[name.to_owned()]), "{name}");
        }
        for name in
            ["x-data-parallel-rank", "idempotency-key", "x-session-id", "x-stainless-os", "x-keyboard"]
        {
            assert!(!ends_here(name), "{name}");
            assert!(!reaches_remotes(name, &[]), "{name}");
            assert!(reaches_remotes(name, &[name.to_owned()]), "{name}");
        }
        for name in
            ["content-type", "accept", "user-agent", "traceparent", "openai-organization", "anthropic-beta"]
        {
            assert!(!ends_here(name) && reaches_remotes(name, &[]), "{name}");
        }
    }

    #[test]
    fn an_answer_says_what_it_is_and_commands_nobody() {
        for name in [
            "content-type",
            "retry-after",
            "x-ratelimit-remaining-tokens",
            "ratelimit-limit",
            "openai-version",
            "anthropic-ratelimit-tokens-remaining",
            "x-should-retry",
            "x-own",
            "cache-control",
        ] {
            assert!(reaches_clients(name), "{name}");
        }
        for name in [
            "location",
            "content-location",
            "alt-svc",
            "strict-transport-security",
            "refresh",
            "clear-site-data",
            "set-cookie",
            "www-authenticate",
            "proxy-authenticate",
            "link",
            "nel",
            "report-to",
            "content-security-policy",
            "permissions-policy",
            "access-control-allow-origin",
            "service-worker-allowed",
            "sourcemap",
            "server",
            "date",
            "content-length",
            "x-accel-redirect",
            "x-sendfile",
            "x-frame-options",
            "x-content-type-options",
            "x-mainstay-tier",
            "x-request-id",
            "x-auth-token",
            "x-forwarded-host",
            "upgrade",
            "connection",
        ] {
            assert!(!reaches_clients(name), "{name}");
        }
    }
}
