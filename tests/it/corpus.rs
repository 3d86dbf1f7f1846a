//! How often `mainstay explain` is right, over the excerpts in tests/corpus: what real engines wrote when they were
//! provoked, and what others are documented to write. Prints the figure; nothing benign may be called a fault.
use mainstay::kinds::{Device, Kind, device};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One row of tests/corpus/TABLE.
struct Excerpt {
    name: String,
    engine: Option<String>,
    exit: Option<String>,
    cause: String,
    /// Part of the line that tells. `None`: the exit tells, or there is nothing to tell.
    evidence: Option<String>,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn excerpts() -> Vec<Excerpt> {
    let table = fs::read_to_string(corpus().join("TABLE")).expect("the corpus has a table");
    let rows = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, engine, exit, cause, evidence, _origin] = cells[..] else { panic!("six cells: {row}") };
        let some = |cell: &str| (cell != "-").then(|| cell.to_owned());
        Excerpt {
            name: name.to_owned(),
            engine: some(engine),
            exit: some(exit),
            cause: cause.to_owned(),
            evidence: some(evidence),
        }
    })
    .collect()
}

/// What the product says of an excerpt; `with_engine` false: it has to guess whose it is.
fn explain(excerpt: &Excerpt, with_engine: bool) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["explain", "--json"]);
    if let Some(engine) = excerpt.engine.as_ref().filter(|_| with_engine) {
        command.args(["--engine", engine]);
    }
    if let Some(exit) = &excerpt.exit {
        command.args(["--exit", exit]);
    }
    let output =
        command.arg(corpus().join(format!("{}.log", excerpt.name))).output().expect("the product runs");
    assert!(output.status.success(), "{}: {}", excerpt.name, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// What is wrong about the answer, if anything.
fn wrong(excerpt: &Excerpt, said: &serde_json::Value) -> Option<String> {
    if said["cause"] != excerpt.cause.as_str() {
        return Some(format!("{}, not {}: {}", said["cause"], excerpt.cause, said["evidence"]));
    }
    let text = fs::read(corpus().join(format!("{}.log", excerpt.name))).expect("the excerpt");
    let text = String::from_utf8_lossy(&text).into_owned();
    let at = said["line"].as_u64().and_then(|line| usize::try_from(line - 1).ok());
    let line = at.and_then(|at| text.split('\n').nth(at));
    match (&excerpt.evidence, line) {
        (Some(expected), Some(line)) if line.contains(expected.as_str()) => None,
        (Some(expected), line) => Some(format!("the evidence is not {expected:?} but {line:?}")),
        (None, None) => None,
        (None, Some(line)) => Some(format!("there is no line that tells, but this was taken: {line:?}")),
    }
}

fn is_benign(excerpt: &Excerpt) -> bool {
    excerpt.cause == "none"
}

/// Right and all, by expected cause; and everything that is wrong.
fn count(with_engine: bool) -> (BTreeMap<String, (usize, usize)>, Vec<String>) {
    let mut figures = BTreeMap::new();
    let mut mistakes = Vec::new();
    for excerpt in excerpts() {
        let (right, all): &mut (usize, usize) = figures.entry(excerpt.cause.clone()).or_default();
        *all += 1;
        match wrong(&excerpt, &explain(&excerpt, with_engine)) {
            None => *right += 1,
            Some(why) => mistakes.push(format!("{}: {why}", excerpt.name)),
        }
    }
    (figures, mistakes)
}

fn report(title: &str, figures: &BTreeMap<String, (usize, usize)>) {
    let (right, all) = figures.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{title}: {right} of {all} right");
    for (cause, (right, all)) in figures {
        println!("  {cause:<20} {right} of {all}");
    }
}

#[test]
fn every_excerpt_is_explained_and_nothing_benign_is_called_a_fault() {
    let (figures, mistakes) = count(true);
    report("the corpus, engine given", &figures);
    assert!(mistakes.is_empty(), "{} wrong:\n{}", mistakes.len(), mistakes.join("\n"));
}

#[test]
fn the_engine_can_be_left_out() {
    let (figures, mistakes) = count(false);
    report("the corpus, engine guessed", &figures);
    assert!(mistakes.is_empty(), "{} wrong:\n{}", mistakes.len(), mistakes.join("\n"));
}

/// A living engine is looked at with the same knowledge as a dead one.
#[test]
fn what_is_called_a_fallback_is_seen_in_the_log_of_a_ready_run() {
    let seen = |excerpt: &Excerpt| {
        let kind = match excerpt.engine.as_deref()? {
            "vllm" => Kind::Vllm,
            "ollama" => Kind::Ollama,
            _ => Kind::LlamaServer,
        };
        let log = fs::read(corpus().join(format!("{}.log", excerpt.name))).expect("an excerpt");
        let log = String::from_utf8_lossy(&log);
        device(kind, &log.lines().collect::<Vec<_>>())
    };
    for excerpt in excerpts() {
        let found = seen(&excerpt);
        if excerpt.cause == "cpu-fallback" {
            assert!(matches!(found, Some(Device::Cpu { .. })), "{}: {found:?}", excerpt.name);
        } else if excerpt.name.ends_with("-gpu-start") {
            assert_eq!(found, Some(Device::Gpu), "{}", excerpt.name);
        }
    }
}

#[test]
fn the_table_and_the_excerpts_are_the_same() {
    let mut named: Vec<String> = excerpts().iter().map(|excerpt| format!("{}.log", excerpt.name)).collect();
    named.push("TABLE".to_owned());
    named.sort();
    let files = fs::read_dir(corpus()).expect("the corpus").flatten();
    let mut found: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    found.sort();
    assert_eq!(named, found);
    assert!(named.len() > 80 && excerpts().iter().filter(|one| is_benign(one)).count() > 20);
}
