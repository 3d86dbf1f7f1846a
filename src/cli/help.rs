//! `mainstay help [TOPIC]`: pages that are built in, so that they are there when nothing else is; and what a package
//! installs beside the program: the man page and the shells' completions.
mod man;

use super::exit::Exit;
use super::screen::{complain, show};
use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

/// Name, one line for the index, text.
const PAGES: &[(&str, &str, &str)] = &[
    ("alerts", "what is mailed when, and what to do when no mail comes", include_str!("help/alerts.md")),
    ("causes", "why engines end, and how to have a log explained", include_str!("help/causes.md")),
    ("clients", "what clients of the endpoint see: headers, marks, errors", include_str!("help/clients.md")),
    ("configuration", "every key of the configuration file", include_str!("help/configuration.md")),
    ("failover", "when a request, and when traffic, moves to another tier", include_str!("help/failover.md")),
    ("gpus", "what is known of the GPUs, and what the words mean", include_str!("help/gpus.md")),
    ("metrics", "what `GET /metrics` says, for Prometheus", include_str!("help/metrics.md")),
    ("troubleshooting", "symptom, what to look at, what to do", include_str!("help/troubleshooting.md")),
];

/// What is printed for a program to read, and how it is asked for.
const FOR_PROGRAMS: &[(&str, &str)] = &[
    ("man", "the man page: `| man -l -`"),
    ("completions", "then `bash`, `zsh` or `fish`: what completes command lines"),
];

/// Prints the index, a page, the options of a subcommand, or what `FOR_PROGRAMS` names.
pub fn main(topic: Option<&str>, shell: Option<&str>) -> Exit {
    match (topic, shell.map(str::parse::<Shell>)) {
        (None, _) => show(index()).into(),
        (Some("completions"), Some(Ok(shell))) => show(completions(shell)).into(),
        (Some("completions"), _) => {
            complain("completions of which shell? `mainstay help completions bash`, `zsh` or `fish`");
            Exit::Usage
        }
        (Some(topic), Some(_)) => {
            complain(format_args!("a shell stands after `completions` only; try `mainstay help {topic}`"));
            Exit::Usage
        }
        (Some("man"), None) => man_page().map_or(Exit::Failed, |page| show(page).into()),
        (Some(topic), None) => page(topic),
    }
}

fn page(topic: &str) -> Exit {
    if let Some((_, _, text)) = PAGES.iter().find(|(name, _, _)| *name == topic) {
        return show(text).into();
    }
    let mut program = super::Arguments::command();
    program.build();
    if let Some(subcommand) = program.find_subcommand_mut(topic) {
        return show(subcommand.render_long_help().to_string()).into();
    }
    complain(format_args!("there is no help on {topic:?}{}", nearest(topic, &program)));
    Exit::Usage
}

fn man_page() -> std::io::Result<Vec<u8>> {
    let topics: Vec<(&str, &str)> = PAGES.iter().map(|(name, line, _)| (*name, *line)).collect();
    let mut text = Vec::new();
    man::write(super::Arguments::command(), &topics, &mut text)?;
    Ok(text)
}

fn completions(shell: Shell) -> Vec<u8> {
    let program = super::Arguments::command();
    // A topic may be misspelt, and is then answered better than by clap; but only these are offered.
    let topics: Vec<String> = names(&program).map(str::to_owned).collect();
    let mut program = program.mut_subcommand("help", |help| {
        help.mut_arg("topic", |topic| topic.value_parser(PossibleValuesParser::new(topics)))
    });
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, "mainstay", &mut text);
    text
}

fn index() -> String {
    let mut text = super::Arguments::command().render_long_help().to_string();
    text.push_str("\nTopics of `mainstay help TOPIC`:\n");
    for (name, line, _) in PAGES {
        text.push_str(&format!("  {name:<16} {line}\n"));
    }
    text.push_str("\nFor other programs, also of `mainstay help`:\n");
    for (name, line) in FOR_PROGRAMS {
        text.push_str(&format!("  {name:<16} {line}\n"));
    }
    text
}

fn is_page(name: &str) -> bool {
    PAGES.iter().any(|(page, _, _)| *page == name)
}

/// Everything that can stand after `mainstay help`.
fn names(program: &Command) -> impl Iterator<Item = &str> {
    let pages = PAGES.iter().map(|(name, _, _)| *name);
    pages
        .chain(FOR_PROGRAMS.iter().map(|(name, _)| *name))
        .chain(program.get_subcommands().map(Command::get_name).filter(|name| !is_page(name)))
}

/// A remedy for a typo, or the list.
fn nearest(topic: &str, program: &Command) -> String {
    let names: Vec<&str> = names(program).collect();
    let close = names.iter().filter(|name| strsim::damerau_levenshtein(topic, name) <= 2).min();
    match close {
        Some(name) => format!("; did you mean {name:?}?"),
        None => format!("; there is: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use crate::policy::Cause;

    /// One space where the page has a line's end.
    fn flowing(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_page_on_causes_says_what_the_program_does() {
        let (_, _, page) = PAGES.iter().find(|(name, _, _)| *name == "causes").expect("the page is there");
        let page = flowing(page);
        for cause in Cause::ALL {
            let (action, advice) = kinds::counsel(*cause);
            let (name, meaning) = (cause.name(), cause.meaning());
            let entry = format!("{name}: {meaning} mainstay {action} to do {advice}");
            assert!(page.contains(&flowing(&entry)), "help/causes.md does not say: {entry}");
        }
    }
}
