//! `[[tier]]`: one test per rule.
use super::*;

#[test]
fn tiers_have_a_name_an_engine_and_a_model() {
    let names = "write name = \"…\", of a-z, 0-9 and -";
    let engines = r#"write engine = "vllm", "ollama", "llama-server" or "remote""#;
    check(
        "[[tier]]",
        &format!("1:1: [[tier]] has no `engine`; {engines}\n1:1: [[tier]] has no `name`; {names}"),
    );
    let form = "write a name of a-z, 0-9 and -, such as \"primary\"";
    for (name, why) in [
        ("GPU", format!("which is no name of a tier; {form}")),
        ("", format!("which is no name of a tier; {form}")),
        ("a_b", format!("which is no name of a tier; {form}")),
        ("-a", "which begins or ends with -; begin and end it with a letter or digit".to_owned()),
        (&"a".repeat(41), "which is too long; write at most 40 characters".to_owned()),
    ] {
        check(&FIRST.replace("'a'", &format!("'{name}'")), &format!("2:8: `name` is \"{name}\", {why}"));
    }
    check(
        &FIRST.replace("vllm", "vlm"),
        r#"3:10: `engine` is "vlm", which is none of the choices; write "vllm", "ollama", "llama-server" or "remote""#,
    );
    for (engine, remedy) in [
        ("vllm", "write model = \"…\", the name or directory that vllm serve is given"),
        ("ollama", "write model = \"…\", as `ollama list` names it"),
        ("llama-server", "write model = \"…\", the path of a .gguf file"),
    ] {
        let text = FIRST.replace("vllm", engine).replace("model = 'm'\n", "");
        check(&text, &format!("1:1: [[tier]] has no `model`; {remedy}"));
    }
    tier(
        "vllm",
        "port = 3\n[[tier]]\nname = 'b'\nengine = 'ollama'\nmodel = 'x'",
        "6:8: a tier above is named \"b\" already; give each tier a name of its own",
    );
    check(
        "[[tier]]\nname = 'r'\nengine = 'remote'\nurl = 'http://h'",
        "1:1: the first [[tier]] has no `model`, and there is none above to take it from; write model = \"…\", the name that the remote server knows",
    );
    check(
        &FIRST.replace("'m'", "' '"),
        "4:9: `model` is \" \", which says nothing; write something, or remove the key",
    );
}

#[test]
fn keys_that_mean_nothing_for_an_engine_are_refused() {
    for key in ["url = 'x'", "api = 3", "api_key = 'x'", "health_path = 'x'"] {
        let name = key.split(' ').next().expect("a key");
        let expected =
            format!("4:1: `{name}` is for remote tiers only; remove it, or write engine = \"remote\"");
        tier("llama-server", key, &expected);
    }
    for key in [
        "command = 3",
        "args = []",
        "env = {}",
        "dir = '/'",
        "gpus = 3",
        "port = 1",
        "start = 'x'",
        "stop_grace = '1s'",
        "nice = 1",
        "oom_score_adj = 1",
        "restart = {}",
        "startup = {}",
    ] {
        let name = key.split(' ').next().expect("a key");
        let expected = format!("4:1: `{name}` is for engines of this host, not for a remote tier; remove it");
        tier("remote", &format!("url = 'http://h'\n{key}").replace("url", "url"), &expected);
    }
    for name in ["silence", "suspect"] {
        tier(
            "remote",
            &format!("url = 'http://h'\n{name} = '1s'"),
            &format!(
                "4:1: `{name}` is for engines of this host, not for a remote tier; remove it, or write timeouts = {{ first_content = \"…\" }}"
            ),
        );
    }
    tier("vllm", "pull = 'never'", "4:1: `pull` is for ollama, not for vllm; remove it");
    tier(
        "remote",
        "url = 'http://h'\npull = 'never'",
        "4:1: `pull` is for ollama, not for remote; remove it",
    );
    tier("ollama", "pull = 'never'", "");
    tier(
        "ollama",
        "pull = 'always'",
        r#"4:8: `pull` is "always", which is none of the choices; write "never" or "missing""#,
    );
}

#[test]
fn urls_are_http_and_lead_elsewhere() {
    let form = r#"write http://HOST:PORT, such as "http://gpu2:8000""#;
    for url in [
        "http://gpu2:8000",
        "http://gpu2",
        "http://10.0.0.1:1/a/b/",
        "http://[fe80::1]:80",
        "http://127.0.0.1:8001",
    ] {
        tier("remote", &format!("url = '{url}'"), "");
    }
    for (url, why) in [
        ("gpu2:8000", format!("which has no http:// in front; {form}")),
        ("https://gpu2", format!("and https is not supported yet; {form}")),
        ("ftp://gpu2", format!("which is not http; {form}")),
        ("http://", format!("which is no URL; {form}")),
        ("http://a b", format!("which is no URL; {form}")),
        ("http://h:99999", format!("whose port is not a number from 1 to 65535; {form}")),
        ("http://h:0", format!("whose port is not a number from 1 to 65535; {form}")),
        ("http://h/?a", format!("with a query or fragment; {form}")),
        ("http://h/#a", format!("with a query or fragment; {form}")),
        ("http://h:1/v1", "and mainstay adds /v1 by itself; remove /v1 from its end".to_owned()),
        ("http://h:1/x/v1/", "and mainstay adds /v1 by itself; remove /v1 from its end".to_owned()),
    ] {
        tier("remote", &format!("url = '{url}'"), &format!("3:7: `url` is \"{url}\", {why}"));
    }
    tier(
        "remote",
        "url = 'http://u:p@h'",
        "3:7: `url` holds a user name; write the key into `api_key` instead",
    );
    for url in ["http://127.0.0.1:8000", "http://LOCALHOST:8000/x"] {
        let expected = "3:7: `url` leads back to mainstay itself (127.0.0.1:8000); name another server";
        tier("remote", &format!("url = '{url}'"), expected);
    }
    tier("remote", "", "0:1: [[tier]] has no `url`; write url = \"http://HOST:PORT\"");
    tier(
        "remote",
        "url = 'http://h'\nhealth_path = 'health'",
        "4:15: `health_path` is \"health\", which is no path; write a path that begins with /, without query",
    );
}

#[test]
fn gpus_are_indices_or_uuids() {
    let form = r#"write an index such as 0, or a UUID such as "GPU-8f6e…""#;
    tier("vllm", "gpus = [0, 'GPU-8f6e2c1a-0b7d-4e0e-9f51-1d1c2b3a4f5e']", "");
    tier("vllm", "gpus = 0", "4:8: `gpus` is an integer; write a list, such as [0, 1], or [] for none");
    tier("vllm", "gpus = [0, 1, 0]", "4:15: `gpus` has 0 twice; remove one of them");
    tier(
        "vllm",
        "gpus = [-1]",
        "4:9: `gpus` has -1, which is out of range; write a whole number from 0 to 255",
    );
    tier("vllm", "gpus = [true]", &format!("4:9: `gpus` has a boolean; {form}"));
    for (id, why) in [
        ("0", "an index in quotes; write 0 without quotes".to_owned()),
        ("0000:01:00.0", format!("and PCI addresses are not supported yet; {form}")),
        ("00000000:C1:00.0", format!("and PCI addresses are not supported yet; {form}")),
        ("01:00.0", format!("and PCI addresses are not supported yet; {form}")),
        ("MIG-1234", format!("and MIG instances are not supported yet; {form}")),
        ("GPU-xyz", format!("which names no GPU; {form}")),
        ("", format!("which names no GPU; {form}")),
    ] {
        tier("vllm", &format!("gpus = ['{id}']"), &format!("4:9: `gpus` has \"{id}\", {why}"));
    }
}

#[test]
fn commands_leave_to_us_where_an_engine_listens_and_who_may_ask_it() {
    tier("vllm", "command = []", r#"4:11: `command` names no program; write one, such as ["vllm", "serve"]"#);
    tier(
        "vllm",
        "command = 'vllm serve'",
        r#"4:11: `command` is a string; write a list, such as ["vllm", "serve"]"#,
    );
    tier("vllm", "args = ['-x', 3]", "4:15: `args` has an integer; write a string in quotes");
    tier(
        "vllm",
        "args = ['a\\u0000']".replace('\'', "\"").as_str(),
        "4:9: `args` has \"a\\0\", with a NUL byte; remove the NUL",
    );
    tier(
        "vllm",
        "dir = 'x'",
        "4:7: `dir` is \"x\", which is no absolute path; write a path that begins with /",
    );
}

/// The last one wins, so an argument of the operator's would replace what mainstay says by itself.
#[test]
fn arguments_that_mainstay_gives_by_itself_are_refused() {
    let port = "set `port` of the tier instead";
    let host = "leave it out: engines listen on 127.0.0.1 only";
    let key = "leave it out: only mainstay reaches the engine, and asks it without a key";
    let tls = "leave it out: mainstay asks the engine without TLS, on 127.0.0.1";
    let model = "set `model` of the tier instead";
    for (engines, flag, remedy) in [
        (&["vllm", "llama-server"][..], "--port", port),
        (&["vllm", "llama-server"], "--host", host),
        (&["vllm"], "--uds", host),
        (&["vllm", "llama-server"], "--api-key", key),
        (&["vllm", "llama-server"], "--api_key", key),
        (&["llama-server"], "--api-key-file", key),
        (&["vllm"], "--ssl-keyfile", tls),
        (&["llama-server"], "--ssl-cert-file", tls),
        (&["vllm", "llama-server"], "--model", model),
        (&["llama-server"], "-m", model),
    ] {
        for engine in engines {
            for argument in [format!("'{flag}', 'x'"), format!("'{flag}=x'"), format!("'{flag} x'")] {
                let expected = format!("4:9: `args` has the flag {flag}; {remedy}");
                tier(engine, &format!("args = [{argument}]"), &expected);
            }
        }
    }
    tier("ollama", "args = ['--model', '--alias=x']", "");
    // A name of the operator's own is heeded.
    tier("vllm", "args = ['--served-model-name', 'x']", "");
    tier("llama-server", "args = ['-a', 'x', '--alias=x']", "");
    tier("vllm", "args = ['-m', '-a', '--alias', '--ports']", "");
}

#[test]
fn a_flag_and_its_value_are_two_arguments() {
    for flag in ["--ctx-size", "-c", "--hf-token"] {
        let expected = format!(
            "4:9: `args` has a flag and its value in one string, {flag}; write two strings, the flag and the value"
        );
        for blank in [" ", "\\t"] {
            tier("llama-server", &format!("args = [\"{flag}{blank}8192\"]"), &expected);
        }
    }
    tier("vllm", "args = ['--x={\"a\": 1}', '-1 -2', 'a --b', '- a', '--', '--x', 'a b']", "");
}

/// A file that is given as `model` is loaded, or the configuration is refused.
#[test]
fn a_llama_server_has_one_source_of_its_model() {
    let second = |flag: &str| {
        format!(
            "4:8: `args` has the flag {flag}, and `model` names a file; \
             leave the flag out, or let `model` be just a name for what it loads"
        )
    };
    let check = |model: &str, args: &str, expected: &str| {
        let tier = format!("[[tier]]\nname = 'b'\nmodel = '{model}'\nargs = {args}\nengine = 'llama-server'");
        let said = said_in(&format!("{tier}\n{FIRST}"), &unit());
        assert_eq!(said, expected, "{args}");
    };
    check("/m.gguf", "['-hf', 'x/y']", &second("-hf"));
    check("m.gguf", "['--hf-repo=x/y']", &second("--hf-repo"));
    check("/srv/m", "['--model_url', 'http://x']", &second("--model_url"));
    check("m", "['--hf-repo', 'x/y']", "");
    check("/m.gguf", "['-c', '--hf-file']", "");
}

#[test]
fn ports_are_one_engines_alone() {
    tier("vllm", "port = 8001", "");
    tier(
        "vllm",
        "port = 70000",
        "4:8: `port` is 70000, which is out of range; write a whole number from 0 to 65535",
    );
    tier(
        "vllm",
        "port = 8000",
        "4:8: `port` is 8000, where mainstay itself listens (127.0.0.1:8000); choose another port",
    );
    tier(
        "vllm",
        "port = 81\n[[tier]]\nname = 'c'\nengine = 'ollama'\nmodel = 'x'\nport = 81",
        "9:8: `port` is 81, which tier \"b\" has already; choose another port",
    );
}

/// Every name enters the whole chain, so saying one twice says nothing wrong.
#[test]
fn aliases_may_repeat_a_name() {
    tier("vllm", "aliases = ['x', 'y']", "");
    tier("vllm", "aliases = ['m', 'x', 'x']", "");
    tier(
        "vllm",
        "aliases = ['']",
        "4:12: `aliases` has \"\", which says nothing; write something, or remove the key",
    );
}

#[test]
fn tables_of_figures_agree_with_themselves() {
    tier(
        "vllm",
        "health = { failures = 0 }",
        "4:23: `failures` is 0, which is out of range; write a whole number from 1 to 1000",
    );
    tier(
        "vllm",
        "health = { interval = '1ms' }",
        r#"4:23: `interval` is "1ms", which is out of range; write a duration from "100ms" to "24h""#,
    );
    tier(
        "vllm",
        "health = { slow = '0s' }",
        r#"4:19: `slow` is "0s", which is out of range; write a duration from "1ms" to "24h""#,
    );
    tier(
        "vllm",
        "restart = { max = '500ms' }",
        "4:19: `max` is 500ms, below `base`, 1s; let the waits grow from `base` to `max`",
    );
    tier(
        "vllm",
        "restart = { base = '2m' }",
        "4:20: `max` is 60s, below `base`, 2m; let the waits grow from `base` to `max`"
            .replace("60s", "1m")
            .as_str(),
    );
    tier(
        "vllm",
        "startup = { stall = '2h' }",
        "4:21: `cap` is 1h, below `stall`, 2h; give a whole start at least as long as one stall",
    );
    tier(
        "vllm",
        "timeouts = { connect = 2 }",
        "4:24: `connect` is an integer; write a whole number and ms, s, m or h in quotes, such as \"250ms\", \"10s\", \"5m\" or \"2h\"",
    );
    tier(
        "vllm",
        "start = 'auto'",
        r#"4:9: `start` is "auto", which is none of the choices; write "always", "on-demand" or "manual""#,
    );
    tier(
        "vllm",
        "oom_score_adj = -1001",
        "4:17: `oom_score_adj` is -1001, which is out of range; write a whole number from -1000 to 1000",
    );
}

#[test]
fn weakening_has_bounds() {
    tier("vllm", "degrade = {}", "");
    tier(
        "vllm",
        "degrade = { max_tokens = 0 }",
        "4:26: `max_tokens` is 0, which is out of range; write a whole number from 1 to 4294967295",
    );
    tier(
        "vllm",
        "degrade = { temperature = 2.5 }",
        "4:27: `temperature` is 2.5, which is out of range; write a number from 0.0 to 2.0",
    );
    tier(
        "vllm",
        "degrade = { notice = '' }",
        "4:22: `notice` is \"\", which says nothing; write something, or remove the key",
    );
}

#[test]
fn variables_have_names_and_some_are_ours() {
    tier("vllm", "env = { A = 'x', B_2 = '' }", "");
    tier("vllm", "env = { '' = 'x' }", "4:9: \"\" is no name of a variable; write a name without =");
    tier("vllm", "env = { 'A=B' = 'x' }", "4:9: \"A=B\" is no name of a variable; write a name without =");
    tier(
        "vllm",
        "env = { MAINSTAY_RUN = 'x' }",
        "4:9: mainstay sets the variable `MAINSTAY_RUN` by itself; remove it",
    );
    tier(
        "ollama",
        "env = { OLLAMA_HOST = 'x' }",
        "4:9: mainstay sets the variable `OLLAMA_HOST` by itself; remove it",
    );
    tier("vllm", "env = { OLLAMA_HOST = 'x' }", "");
    tier(
        "vllm",
        "env = { A = 3 }",
        "4:13: `A` is an integer; write a string in quotes, or { file = \"/…\" } or { credential = \"…\" }",
    );
    tier("vllm", "env = 'A=b'", "4:7: `env` is a string; write a table, env = { … }");
}
