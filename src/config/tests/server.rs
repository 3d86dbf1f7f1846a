//! `[server]` and `[agent]`: one test per rule.
use super::*;

#[test]
fn listen_takes_numeric_addresses() {
    let form = r#"write ADDRESS:PORT, such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::1]:8000""#;
    server("listen = ['127.0.0.1:8000', '[::1]:8000', '127.0.0.2:0', '127.0.0.2:0']", "");
    server(
        "listen = []",
        r#"1:17: `listen` is empty; write at least one address, such as ["127.0.0.1:8000"]"#,
    );
    server("listen = '127.0.0.1:80'", "");
    server("listen = '127.0.0.1'", &format!("1:17: `listen` is \"127.0.0.1\", which has no port; {form}"));
    server("listen = [8000]", "1:18: `listen` has an integer; write a string in quotes");
    for (address, why) in [
        ("localhost:8000", "a name, and only numeric addresses are listened on"),
        ("127.0.0.1", "which has no port"),
        ("::1:8000", "an IPv6 address without brackets"),
        ("127.0.0.1:99999", "whose port is not a number from 0 to 65535"),
        ("[::1]:99999", "whose port is not a number from 0 to 65535"),
        ("http://127.0.0.1:24800", "a URL, where an address and a port are wanted"),
        ("[::1:8000", "which is no address"),
    ] {
        server(
            &format!("listen = ['{address}']"),
            &format!("1:18: `listen` has \"{address}\", {why}; {form}"),
        );
    }
    server(
        "listen = ['127.0.0.1:80', '0.0.0.0:80', '[::]:80']",
        r#"1:34: `listen` has "0.0.0.0:80", which covers "127.0.0.1:80" too; remove one of them"#,
    );
    server(
        "listen = ['0.0.0.0:80', '127.0.0.1:80']",
        r#"1:32: `listen` has "127.0.0.1:80", which "0.0.0.0:80" covers already; remove one of them"#,
    );
    server("listen = 24800", &format!("1:17: `listen` is an integer; {form}, or a list of such"));
}

#[test]
fn engine_ports_are_a_range_with_one_to_spare() {
    let form = r#"write FIRST-LAST in quotes, such as "20000-20999""#;
    server("engine_ports = '1024-65535'", "");
    server("engine_ports = 20000", &format!("1:23: `engine_ports` is an integer; {form}"));
    for text in ["20000", "a-b", "20000-", "1-70000"] {
        server(
            &format!("engine_ports = '{text}'"),
            &format!("1:23: `engine_ports` is \"{text}\", which is no range of ports; {form}"),
        );
    }
    server(
        "engine_ports = '300-200'",
        &format!("1:23: `engine_ports` is \"300-200\", which ends before it begins; {form}"),
    );
    server(
        "engine_ports = '80-2000'",
        "1:23: `engine_ports` is \"80-2000\", which holds ports that only root may use; begin at 1024 or above",
    );
    server(
        "engine_ports = '2000-2000'",
        "1:23: `engine_ports` holds 1 for 1 engines; give it more ports than engines, one is not used again for a minute",
    );
}

#[test]
fn a_fixed_port_may_lie_in_the_range_and_is_then_not_to_spare() {
    let fixed = "[[tier]]\nname = 'b'\nengine = 'ollama'\nmodel = 'x'\nport = 2001";
    check(&format!("server.engine_ports = '2000-2002'\n{FIRST}{fixed}"), "");
    check(
        &format!("server.engine_ports = '2000-2001'\n{FIRST}{fixed}"),
        "1:23: `engine_ports` holds 1 beside 1 fixed for 1 engines; give it more ports than engines, one is not used again for a minute",
    );
    check(&format!("server.engine_ports = '2000-2001'\n{FIRST}port = 2000\n{fixed}"), "");
}

#[test]
fn passthrough_lets_only_inference_through() {
    server("passthrough = ['/v1/rerank', '/pooling', '/v1/messages/count_tokens']", "");
    server("passthrough = []", "");
    server("passthrough_unknown = ['/api/generate', '/v1/videos', '/generate_stream']", "");
    let unknown = "which is no inference path that mainstay knows; remove it, or write it into `passthrough_unknown` \
                   if you know that it changes nothing for other clients: at your own risk";
    for path in ["/api/generate", "/v1/files", "/V1/Rerank", "/v1/v1/rerank"] {
        server(
            &format!("passthrough = ['{path}']"),
            &format!("1:23: `passthrough` has \"{path}\", {unknown}"),
        );
    }
    for (key, column) in [("passthrough", 23), ("passthrough_unknown", 31)] {
        let refused = |path: &str, why: &str| {
            server(&format!("{key} = ['{path}']"), &format!("1:{column}: `{key}` has \"{path}\", {why}"));
        };
        refused("v1/x", "which does not begin with /; write a path such as \"/v1/rerank\"");
        for path in ["/v1/models", "/models", "/Models/x", "/chat/completions", "/metrics"] {
            refused(path, "which mainstay answers by itself; remove it");
        }
        let engine_changing = "/sleep /wake_up /pause /resume /abort_requests /update_weights /collective_rpc \
            /reset_prefix_cache /invocations /slots /props /api/pull /api/push /api/create /api/copy /api/delete \
            /api/blobs /slots/0 /api/blobs/sha256-1 /SLEEP /Api/Pull /tools /start_weight_update \
            /inference/v1/abort_requests /flush_cache /v1/v1/sleep /base/wake-up";
        for path in engine_changing.split_whitespace() {
            refused(path, "which changes an engine and is never let through; remove it");
        }
        let form =
            "write an exact path of letters, digits, - _ . ~ and single slashes, without a slash at its end";
        for path in
            ["/", "/a/", "//sleep", "/a/../sleep", "/./sleep", "/%73leep", "/a?b", "/a*", "/a b", "/sleep/"]
        {
            refused(path, &format!("which is no plain path; {form}"));
        }
    }
    server(
        "passthrough = ['/score', '/pooling', '/score']",
        "1:45: `passthrough` has \"/score\" twice; remove one of them",
    );
}

#[test]
fn hosts_are_names() {
    server("hosts = ['chat.example.org', 'gpu_1', '10.0.0.1']", "");
    let form = r#"which is no host name; write a name without scheme, port and wildcard, such as "chat.example.org""#;
    for host in ["", "https://a", "a:8000", "*", "*.example.org", ".a", "a b"] {
        server(&format!("hosts = ['{host}']"), &format!("1:17: `hosts` has \"{host}\", {form}"));
    }
    let config = config(&format!("server.hosts = ['Chat.Example.org.']\n{FIRST}"));
    assert_eq!(config.server.hosts, ["chat.example.org"]);
}

#[test]
fn origins_are_scheme_and_host() {
    server("cors_origins = ['https://a.example:8443', 'http://[::1]:3000', 'app://obsidian.md', '*']", "");
    let form = r#"write scheme and host without a path, such as "https://chat.example.org", or "*" for all"#;
    for origin in ["a.example", "https://a/", "1x://a", "https://", "https://a b", "null"] {
        server(
            &format!("cors_origins = ['{origin}']"),
            &format!("1:24: `cors_origins` has \"{origin}\", which is no origin; {form}"),
        );
    }
}

#[test]
fn origins_are_kept_as_browsers_send_them() {
    let text =
        "server.cors_origins = ['HTTPS://A.example:443', 'http://b:80', 'https://c:80', 'http://[::1]:80']";
    let config = config(&format!("{text}\n{FIRST}"));
    assert_eq!(config.server.cors_origins, ["https://a.example", "http://b", "https://c:80", "http://[::1]"]);
    server(
        "cors_origins = ['https://a', 'https://A:443']",
        "1:37: `cors_origins` has \"https://a\" twice; remove one of them",
    );
}

#[test]
fn server_figures_have_ranges() {
    for (line, column, expected) in [
        ("max_body = '100B'", 19, r#"is "100B", which is out of range; write a size from "1KiB" to "4GiB""#),
        ("max_connections = 0", 26, "is 0, which is out of range; write a whole number from 1 to 1000000"),
        (
            "request_timeout = '0s'",
            26,
            r#"is "0s", which is out of range; write a duration from "1s" to "24h", or "none""#,
        ),
        (
            "request_timeout = 'never'",
            26,
            "is \"never\", which is no duration; write a whole number and ms, s, m or h in quotes, such as \"250ms\", \
             \"10s\", \"5m\" or \"2h\", or \"none\"",
        ),
        (
            "all_down_retry_after = '2h'",
            31,
            r#"is "2h", which is out of range; write a duration from "1s" to "1h""#,
        ),
        ("drain = '25h'", 16, r#"is "25h", which is out of range; write a duration from "0s" to "24h""#),
        ("any_model = 'yes'", 20, "is a string; write true or false"),
    ] {
        let key = line.split(' ').next().expect("a key");
        server(line, &format!("1:{column}: `{key}` {expected}"));
    }
    server("replay_memory = '0KiB'", "");
    server("request_timeout = 'none'", "");
}

#[test]
fn directories_are_absolute_and_found() {
    let agent =
        |lines: &str, environment: &Environment| said_in(&format!("agent.{lines}\n{FIRST}"), environment);
    assert_eq!(
        agent("run_dir = 'run'", &unit()),
        "1:17: `run_dir` is \"run\", which is no absolute path; write a path that begins with /"
    );
    assert_eq!(
        agent("log = 'info'", &Environment::empty()),
        "1:1: no `run_dir` is given, /run/mainstay is not writable, and the environment names none; write run_dir = \"/…\" into [agent]",
        "a state directory that cannot be written costs history and mail only"
    );
    assert_eq!(agent("run_dir = '/r'\nagent.state_dir = '/s'", &Environment::empty()), "");
}

/// A directory's path of so many bytes.
fn path_of(bytes: usize) -> String {
    format!("/{}", "d".repeat(bytes - 1))
}

#[test]
fn sockets_have_room_in_the_runtime_directory() {
    let said = |bytes: usize, room: usize, tier: &str| {
        format!(
            "the runtime directory's path is {bytes} bytes long, and sockets in it have no room; choose one of at most {room} bytes, or a shorter name for tier \"{tier}\""
        )
    };
    // A path of 107 bytes, less /runs/a-9999999/shim.sock.
    check(&format!("agent.run_dir = '{}'\n{FIRST}", path_of(82)), "");
    check(&format!("agent.run_dir = '{}/'\n{FIRST}", path_of(82)), "");
    check(&format!("agent.run_dir = '{}'\n{FIRST}", path_of(83)), &format!("1:17: {}", said(83, 82, "a")));
    let longest = "l".repeat(40);
    let two = format!("{FIRST}[[tier]]\nname = '{longest}'\nengine = 'ollama'\nmodel = 'm'\n");
    check(&format!("agent.run_dir = '{}'\n{two}", path_of(43)), "");
    check(&format!("agent.run_dir = '{}'\n{two}", path_of(44)), &format!("1:17: {}", said(44, 43, &longest)));
    // Nothing of ours runs behind a remote tier.
    let remote =
        format!("[[tier]]\nname = '{longest}'\nengine = 'remote'\nmodel = 'm'\nurl = 'http://h:1'\n");
    check(&format!("agent.run_dir = '{}'\n{remote}", path_of(94)), "");
    check(
        &format!("agent.run_dir = '{}'\n{remote}", path_of(95)),
        "1:17: the runtime directory's path is 95 bytes long, and sockets in it have no room; choose one of at most 94 bytes",
    );
}

#[test]
fn a_runtime_directory_of_the_environment_must_fit_too() {
    let deep = Environment { runtime_directory: Some(path_of(83).into()), ..unit() };
    let said = |text: &str| said_in(text, &deep).split("; ").next().unwrap_or_default().to_owned();
    let what = "the runtime directory's path is 83 bytes long, and sockets in it have no room";
    assert_eq!(said(FIRST), format!("1:1: {what}"), "at the first tier");
    assert_eq!(said(&format!("{FIRST}[agent]\nlog = 'info'\n")), format!("5:1: {what}"), "at [agent]");
    assert_eq!(said(&format!("agent.run_dir = '/r'\n{FIRST}")), "");
    // It may have been named in the line that could not be read.
    let broken = format!("{FIRST}[agent]\nrun_dir = /r\n");
    assert_eq!(said(&broken), "6:11: a value without quotes");
}

#[test]
fn another_runtime_directory_must_fit_and_becomes_absolute() {
    let mut config = config(FIRST);
    assert_eq!(config.replace_run_dir(Path::new("there/run")), Ok(()));
    let working = std::env::current_dir().expect("a working directory");
    assert_eq!(config.agent.run_dir, working.join("there/run"));
    let before = config.clone();
    let why = config.replace_run_dir(Path::new(&path_of(83))).expect_err("it is too long");
    assert!(why.starts_with("the runtime directory's path is 83 bytes long"), "{why}");
    assert_eq!(config, before);
}

#[test]
fn forward_headers_names_no_credential() {
    server("forward_headers = []", "");
    server("forward_headers = ['X-Session-Id', 'idempotency-key']", "");
    let refused = |name: &str, why: &str| {
        server(&format!("forward_headers = ['{name}']"), &format!("1:27: `forward_headers` has {why}"));
    };
    for name in ["", "x y", "x:y", "x-\u{e9}"] {
        let why = "which is no name of a header field; write a name such as \"x-session-id\"";
        refused(name, &format!("\"{name}\", {why}"));
    }
    for name in ["Authorization", "X-Api-Key", "cookie", "x-forwarded-for", "Host", "x-mainstay-via"] {
        let why = "it belongs to one connection, names its sender or holds a credential";
        let remedy = "remove it; a key for the upstream is the tier's `api_key`";
        refused(name, &format!("a field that never goes on ({name}): {why}; {remedy}"));
    }
}
