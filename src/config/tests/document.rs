//! Keys, sections and syntax.
use super::*;

#[test]
fn unknown_keys_are_told_where_they_belong() {
    let known = "known here: `cap`, `stall`";
    check(
        &format!("servr.drain = '1s'\n{FIRST}"),
        "1:1: unknown key `servr` in the file; did you mean `server`?",
    );
    check(&format!("[Agent]\n{FIRST}"), "1:2: unknown key `Agent` in the file; did you mean `agent`?");
    check(
        &format!("listen = []\n{FIRST}"),
        "1:1: unknown key `listen` in the file; `listen` belongs in [server]",
    );
    server("max-body = '1MiB'", "1:8: unknown key `max-body` in [server]; did you mean `max_body`?");
    server("log = 'info'", "1:8: unknown key `log` in [server]; `log` belongs in [agent]");
    tier("vllm", "modle = 'm'", "4:1: unknown key `modle` in [[tier]]; did you mean `model`?");
    tier(
        "vllm",
        "max_tokens = 1",
        "4:1: unknown key `max_tokens` in [[tier]]; `max_tokens` belongs in `degrade`",
    );
    tier("vllm", "startup.zzz = 1", &format!("4:9: unknown key `zzz` in `startup`; remove it, {known}"));
    tier(
        "vllm",
        "quantisation = 'x'",
        "4:1: unknown key `quantisation` in [[tier]]; remove it, or see `mainstay help configuration` for the keys there are",
    );
    tier(
        "vllm",
        "\"a\\nb\" = 1",
        "4:1: unknown key `a\\nb` in [[tier]]; remove it, or see `mainstay help configuration` for the keys there are",
    );
}

#[test]
fn sections_have_their_form() {
    let none = "there is no [[tier]]; write [[tier]] with name, engine and model";
    check("", &format!("1:1: {none}"));
    check("tier = []", &format!("1:8: {none}"));
    check("tier = 3", "1:8: `tier` is an integer; write [[tier]] with name, engine and model");
    check("tier = [3]", "1:9: `tier` has an integer; write [[tier]] with name, engine and model");
    check(&FIRST.replace("[[tier]]", "[tier]"), "1:1: [tier] is a single table; write [[tier]]");
    check(&format!("server = 3\n{FIRST}"), "1:10: `server` is an integer; write a section [server]");
    check(&format!("[[server]]\n{FIRST}"), "1:1: `server` is a list; write [server], once");
    tier("vllm", "health = '10s'", "4:10: `health` is a string; write a table, health = { … }");
    tier("vllm", "degrade = true", "4:11: `degrade` is a boolean; write a table, degrade = { … }");
}

#[test]
fn parts_that_are_not_built_are_refused() {
    let fence = "`fence` is not supported yet; remove it";
    let log = "`kernel_log` is not supported yet; remove it";
    check(&format!("{FIRST}[gpu]\nfence = 3\nkernel_log = ''"), &format!("6:1: {fence}\n7:1: {log}"));
    check(&format!("gpu.fence = true\n{FIRST}"), &format!("1:5: {fence}"));
}

#[test]
fn what_may_have_been_lost_is_not_called_missing() {
    let quotes = "a value without quotes; write text, durations and sizes in \"…\"";
    check("[[tier]]\nname = a\nengine = 'vllm'\nmodel = 'm'", &format!("2:8: {quotes}"));
    check("[[tier]\nname = 'a'", "1:8: unclosed array table; expected `]`");
    check(
        "[[tier]]\nname = 'a'\nengine = vllm\n[[tier]]",
        &format!(
            "3:10: {quotes}\n4:1: [[tier]] has no `engine`; write engine = \"vllm\", \"ollama\", \"llama-server\" or \"remote\"\n\
         4:1: [[tier]] has no `name`; write name = \"…\", of a-z, 0-9 and -"
        ),
    );
    check(
        &format!("[server]\ndrain = '1s'\n[server]\nmax_body = '1MiB'\n{FIRST}"),
        "3:2: the section `server` is here a second time; put its keys into one section",
    );
}

#[test]
fn a_lost_section_has_no_missing_keys() {
    let text = format!("[agent\nrun_dir = '/r'\nstate_dir = '/s'\n{FIRST}");
    assert_eq!(said_in(&text, &Environment::empty()), "1:7: unclosed table; expected `]`");
}

#[test]
fn long_lists_stay_whole_while_something_else_is_broken() {
    let list: String = (0..200).map(|number| format!("  '--option={number}',\n")).collect();
    let text = format!("server.drain = 30s\n{FIRST}args = [\n{list}]\nnice = 30\n");
    let expected = "1:16: a value without quotes; write text, durations and sizes in \"…\"\n\
                    208:8: `nice` is 30, which is out of range; write a whole number from -20 to 19";
    assert_eq!(said_in(&text, &unit()), expected);
}

#[test]
fn a_file_that_is_no_configuration_is_not_echoed_in_full() {
    let lines = said_in(&"what is this\n".repeat(500), &unit()).lines().count();
    assert!((1..=50).contains(&lines), "{lines} lines");
}
