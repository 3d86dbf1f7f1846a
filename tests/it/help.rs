//! `mainstay help`: its pages, and what a package installs from it (the man page, the shells' completions).
use mainstay::proxy::Code;
use std::fs;
use std::process::{Command, Stdio};

const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");
const INTERNAL: [&str; 2] = ["shim", "gpu-probe"];

/// What it prints on the standard output, when it is content.
fn help(arguments: &[&str]) -> String {
    let output = Command::new(MAINSTAY).arg("help").args(arguments).output().expect("the program starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The names in a list of the index: its indented lines after `heading`.
fn listed(index: &str, heading: &str) -> Vec<String> {
    let names: Vec<String> = index
        .lines()
        .skip_while(|line| !line.starts_with(heading))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert!(!names.is_empty(), "nothing under {heading:?} in {index}");
    names
}

fn commands() -> Vec<String> {
    listed(&help(&[]), "Commands:")
}

fn topics() -> Vec<String> {
    listed(&help(&[]), "Topics of")
}

#[test]
fn the_index_and_the_options_of_commands_fit_a_terminal() {
    for asked in commands().iter().map(|name| vec![name.as_str()]).chain([vec![]]) {
        for line in help(&asked).lines() {
            assert!(line.chars().count() <= 80, "{asked:?}: {line}");
        }
    }
}

#[test]
fn the_pages_of_the_sources_are_the_topics_of_the_program_and_fit_a_terminal() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/help");
    let mut written: Vec<String> = fs::read_dir(sources)
        .expect("a readable directory")
        .filter_map(|entry| {
            entry.expect("an entry").file_name().to_str()?.strip_suffix(".md").map(str::to_owned)
        })
        .collect();
    written.sort();
    assert_eq!(topics(), written);
    for topic in written {
        for line in help(&[&topic]).lines() {
            assert!(line.chars().count() <= 80, "{topic}: {line}");
        }
    }
}

/// A page that sends somebody at night to a subcommand or a page that is not there is worse than none.
#[test]
fn every_command_that_a_page_names_is_there() {
    let (commands, topics) = (commands(), topics());
    let known = |word: &str| commands.iter().chain(&topics).any(|name| name == word);
    // In backticks, or where a line of an example begins; elsewhere the name is the subject of a sentence.
    let named =
        regex::Regex::new(r"(?m)(?:`|^ +(?:[0-9] +)?)mainstay(?: help)?\s([a-z-]+)").expect("a good pattern");
    let mut seen = 0;
    for topic in &topics {
        let page = help(&[topic]);
        for found in named.captures_iter(&page) {
            let word = &found[1];
            let internal = INTERNAL.contains(&word);
            assert!(
                known(word) || word == "help" || internal || word == "--version",
                "{topic}: {}",
                &found[0]
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "the pages name {seen} commands: is the pattern still right?");
}

#[test]
fn the_page_for_clients_names_every_error() {
    let page = help(&["clients"]);
    for code in Code::ALL {
        assert!(page.contains(&format!("\n  {} ", code.name())), "{}", code.name());
    }
}

#[test]
fn the_man_page_has_every_command_and_no_internal_one() {
    let page = help(&["man"]);
    assert!(page.contains("\n.TH mainstay 1 "), "{page}");
    for command in commands().iter().filter(|command| *command != "alert") {
        assert!(
            page.contains(&format!("\n.SS mainstay {}\n", command.replace('-', "\\-"))),
            "{command}: {page}"
        );
    }
    assert!(page.contains("\n.SS mainstay alert test\n"), "{page}");
    assert!(page.contains("\nmainstay run \\-\\-config <FILE>\n"), "the synopsis has values: {page}");
    for topic in topics() {
        assert!(page.contains(&format!("\\fB{topic}\\fR\n")), "{topic}: {page}");
    }
    for internal in INTERNAL {
        assert!(
            !page.contains(&format!(".SS mainstay {}", internal.replace('-', "\\-"))),
            "{internal}: {page}"
        );
    }
    // roff's own word, where there is one: every warning is an error.
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mainstay.1");
    fs::write(&file, &page).expect("a file");
    match Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&file).output() {
        Ok(checked) => assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}"),
        Err(_) => println!("there is no groff here: only the text was looked at"),
    }
}

/// What bash, which has loaded the completions, offers for a command line's last word.
fn offered(script: &str, words: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mainstay");
    fs::write(&file, script).expect("a file");
    let ask = r#"set -e; source "$1"; shift; complete -p mainstay >&2
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _mainstay mainstay "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || true
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["--norc", "-c", ask, "bash"])
        .arg(&file)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("bash is here");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("-F _mainstay"), "{told}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_topics() {
    let script = help(&["completions", "bash"]);
    let check =
        |words: &[&str], expected: &[&str]| assert_eq!(offered(&script, words), expected, "{words:?}");
    check(&["mainstay", "inc"], &["incidents", "incident"]);
    check(&["mainstay", "status", "--w"], &["--watch"]);
    check(&["mainstay", "help", "tr"], &["troubleshooting"]);
    check(&["mainstay", "alert", "t"], &["test"]);
    check(&["mainstay", "sh"], &[""]);
    check(&["mainstay", "gpu"], &["gpus"]);
}

#[test]
fn other_shells_get_completions_of_their_own() {
    let zsh = help(&["completions", "zsh"]);
    assert!(zsh.starts_with("#compdef mainstay") && zsh.contains("incidents"), "{zsh}");
    let fish = help(&["completions", "fish"]);
    assert!(fish.contains("complete -c mainstay") && fish.contains("incidents"), "{fish}");
    for internal in INTERNAL {
        assert!(!zsh.contains(&format!("'{internal}:")) && !fish.contains(&format!("-a \"{internal}\"")));
    }
    for wrong in [vec!["completions"], vec!["completions", "tcsh"], vec!["failover", "bash"]] {
        let output = Command::new(MAINSTAY).arg("help").args(&wrong).output().expect("the program starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(told.contains("bash") || told.contains("mainstay help failover"), "{wrong:?}: {told}");
    }
}
