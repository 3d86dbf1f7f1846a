//! One incident, whole.
use super::lasted;
use crate::alert::{Record, Said, Scene};
use crate::cli::screen::Screen;
use crate::cli::status::paint::{Colour, bytes, fit, paint};
use crate::policy::Cause;

pub fn page(record: &Record, screen: Screen) -> String {
    let mut page = Page { text: String::new(), screen, said: Said::default() };
    let title = format!("incident {} on {}: {} of {}", record.id, record.host, record.kind, record.tier);
    page.line(&paint(&title, Colour::Bold, screen.colour));
    page.fact("opened", &record.opened);
    let closed = record.closed.as_deref().unwrap_or("-");
    page.fact("closed", &format!("{closed} (lasted: {})", lasted(record)));
    page.fact("tier", &format!("{} ({}, {})", record.tier, record.engine, record.model));
    if let Some(to) = &record.to {
        page.fact("serving", &format!("{} -> {to}", record.tier));
    }
    let meaning = page.said.once(meaning(&record.cause));
    page.fact("cause", &format!("{}: {meaning}", record.cause));
    if let Some(evidence) = &record.evidence {
        page.fact_once("evidence", evidence);
    }
    if let Some(exit) = exit(record) {
        page.fact("exit", &exit);
    }
    if let Some(action) = &record.action {
        page.fact_once("mainstay", action);
    }
    if let Some(advice) = &record.advice {
        page.fact("action", advice);
    }
    let felt = record.clients;
    page.fact(
        "clients",
        &format!(
            "{} moved unseen, {} cut, {} weakened, {} refused",
            felt.moved, felt.cut, felt.weakened, felt.refused
        ),
    );
    page.fact("mail", &mail(record));
    page.timeline(record);
    page.scene(&record.scene);
    page.line("\nLook further: mainstay status; mainstay events; mainstay help causes");
    if !record.is_of_remote() {
        page.line(&format!("              mainstay logs {} -n 200", record.tier));
    }
    page.text
}

fn meaning(cause: &str) -> &'static str {
    Cause::ALL
        .iter()
        .find(|known| known.name() == cause)
        .map_or("a cause of a later version", |c| c.meaning())
}

fn exit(record: &Record) -> Option<String> {
    let run = record.run?;
    match (record.code, &record.signal) {
        (Some(code), _) => Some(format!("run {run} ended with status {code}")),
        (None, Some(signal)) => Some(format!("run {run} was ended by {signal}")),
        (None, None) => None,
    }
}

fn mail(record: &Record) -> String {
    let mail = &record.mail;
    match (mail.told.is_empty(), mail.mailed, mail.waiting) {
        (true, _, _) => "none".to_owned(),
        (false, true, _) => {
            format!("written ({}); whether it was sent: mainstay events", mail.told.join(", "))
        }
        (false, false, true) => "waits for the next digest".to_owned(),
        (false, false, false) => format!("about to be written ({})", mail.told.join(", ")),
    }
}

struct Page {
    text: String,
    screen: Screen,
    said: Said,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A name and what is known; what is too long for a terminal goes on below.
    fn fact(&mut self, name: &str, value: &str) {
        const INDENT: usize = 11;
        let room = self.screen.width.saturating_sub(INDENT).max(30);
        for (place, part) in wrapped(value, room).iter().enumerate() {
            let name = if place == 0 { format!("{name:>9}: ") } else { " ".repeat(INDENT) };
            self.line(&format!("{name}{}", fit(part, room)));
        }
    }

    /// As [`Page::fact`], without what the page has said before.
    fn fact_once(&mut self, name: &str, value: &str) {
        let value = self.said.once(value);
        self.fact(name, &value);
    }

    fn heading(&mut self, heading: &str) {
        self.line(&format!("\n{}", paint(heading, Colour::Bold, self.screen.colour)));
    }

    fn timeline(&mut self, record: &Record) {
        if record.timeline.is_empty() {
            return;
        }
        self.heading("Timeline");
        for (place, line) in record.timeline.iter().enumerate() {
            if place == Record::FIRST_LINES && record.timeline_skipped > 0 {
                self.line(&format!("  … {} lines left out …", record.timeline_skipped));
            }
            let at = line.at.get(11..23).unwrap_or(&line.at);
            let room = self.screen.width.saturating_sub(2 + at.len() + 2 + 8 + 2).max(30);
            let text = self.said.once(&line.text);
            self.line(&format!("  {at}  {:<8}  {}", line.kind, fit(&text, room)));
        }
    }

    fn scene(&mut self, scene: &Scene) {
        let Some(at) = &scene.at else { return };
        self.heading(&format!("The machine at {at}"));
        let of = |part: Option<u64>, whole: Option<u64>| match (part, whole) {
            (Some(part), Some(whole)) => format!("{} of {} free", bytes(part), bytes(whole)),
            (Some(part), None) => format!("{} free", bytes(part)),
            (None, _) => "unknown".to_owned(),
        };
        let load = scene.load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
        let swap = scene.swap_used.map_or_else(|| "none".to_owned(), |used| format!("{} used", bytes(used)));
        self.fact("memory", &of(scene.memory_available, scene.memory_total));
        self.fact("swap", &swap);
        self.fact("/dev/shm", &of(scene.shm_free, scene.shm_total));
        self.fact("disk", &of(scene.disk_free, None));
        self.fact("load", &load);
        for process in &scene.processes {
            self.fact(
                "process",
                &format!("{:>9}  {} (pid {})", bytes(process.rss), process.name, process.pid),
            );
        }
        if !scene.last_lines.is_empty() {
            self.heading("The engine's last lines");
            for line in &scene.last_lines {
                let room = self.screen.width.saturating_sub(2).max(30);
                self.line(&format!("  {}", fit(line, room)));
            }
        }
    }
}

/// Words in lines of at most `room` characters; one that is longer has a line of its own.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}
