//! `mainstay help [TOPIC]`: pages that are built in, so that they are there when nothing else is.
use super::exit::Exit;
use super::screen::{complain, show};
use clap::CommandFactory;

/// Name, one line for the index, text.
const PAGES: &[(&str, &str, &str)] = &[
    ("alerts", "what is mailed when, and what to do when no mail comes", include_str!("help/alerts.md")),
    ("causes", "why engines end, and how to have a log explained", include_str!("help/causes.md")),
    ("clients", "what clients of the endpoint see: headers, marks, errors", include_str!("help/clients.md")),
    ("configuration", "every key of the configuration file", include_str!("help/configuration.md")),
    ("failover", "when a request, and when traffic, moves to another tier", include_str!("help/failover.md")),
    ("gpus", "what is known of the GPUs, and what the words mean", include_str!("help/gpus.md")),
    ("metrics", "what `GET /metrics` says, for Prometheus", include_str!("help/metrics.md")),
];

/// Prints the index, a page, or the options of a subcommand.
pub fn main(topic: Option<&str>) -> Exit {
    let Some(topic) = topic else { return show(index()).into() };
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

fn index() -> String {
    let mut text = super::Arguments::command().render_long_help().to_string();
    text.push_str("\nTopics of `mainstay help TOPIC`:\n");
    for (name, line, _) in PAGES {
        text.push_str(&format!("  {name:<14} {line}\n"));
    }
    text
}

/// A remedy for a typo, or the list.
fn nearest(topic: &str, program: &clap::Command) -> String {
    let names: Vec<&str> = PAGES
        .iter()
        .map(|(name, _, _)| *name)
        .chain(program.get_subcommands().map(clap::Command::get_name))
        .collect();
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
