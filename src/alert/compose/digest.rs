//! Many incidents in one mail: grouped by tier, and true about how many there were.
use super::page::{Page, clock, duration, plural};
use crate::alert::post::Post;
use crate::alert::record::Record;
use std::collections::BTreeMap;

/// Incidents of one tier that are shown one by one: this many of the first, and of the last.
const SHOWN_ENDS: usize = 4;

pub(super) fn write(post: &Post, records: &[Record]) -> (String, Page) {
    let count = post.ids.len() as u64 + post.more;
    let mut records: Vec<&Record> = records.iter().collect();
    records.sort_by_key(|record| record.id);
    let first = records.iter().map(|record| record.opened.as_str()).min();
    let since = first.and_then(|at| at.get(11..16)).map_or_else(String::new, |time| format!(" since {time}"));
    let outage =
        if records.iter().any(|record| record.kind == "all-down") { ", no tier answered" } else { "" };
    let subject = format!("[ALERT] LLM digest: {}{since}{outage}", plural(count, "incident"));
    (subject, page(post, &records, count, first))
}

fn page(post: &Post, records: &[&Record], count: u64, first: Option<&str>) -> Page {
    let mut page = Page::default();
    let since = first.map_or_else(String::new, |at| format!(" since {}", clock(at)));
    page.words(&format!(
        "{}{since}, told in one mail because at_most_every limits how many are sent.",
        plural(count, "incident")
    ));
    let open = records.iter().filter(|record| record.is_open()).count();
    page.words(&match open {
        0 => "All of them are over.".to_owned(),
        open => format!("{open} of them not over yet."),
    });
    let mut tiers: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        tiers.entry(&record.tier).or_default().push(record);
    }
    for (tier, records) in tiers {
        group(&mut page, tier, &records);
    }
    let unlisted = count - records.len() as u64;
    if unlisted > 0 {
        let lost = post.ids.len() - records.len();
        page.title("Not listed");
        page.item(&format!(
            "{} without a name in this mail, of which {lost} have no readable record any more",
            plural(unlisted, "more incident")
        ));
    }
    page.title("To look further");
    page.commands(&["mainstay status", "mainstay incidents", "mainstay incident ID"]);
    page
}

fn group(page: &mut Page, tier: &str, records: &[&Record]) {
    page.title(&format!("{tier}, {}", plural(records.len() as u64, "incident")));
    if records.len() > 1 {
        page.item(&format!("came to: {}", counted(records.iter().map(|record| record.kind.as_str()))));
        page.item(&format!("causes: {}", counted(records.iter().map(|record| record.cause.as_str()))));
    }
    let middle = records.len().saturating_sub(2 * SHOWN_ENDS);
    for (index, record) in records.iter().enumerate() {
        let in_middle = middle > 0 && (SHOWN_ENDS..SHOWN_ENDS + middle).contains(&index);
        if !in_middle {
            page.item(&line(record));
        } else if index == SHOWN_ENDS {
            let (from, to) = (record.id, records[SHOWN_ENDS + middle - 1].id);
            page.item(&format!("... {middle} more between, {from} to {to}"));
        }
    }
}

/// `17: 03:12:04 failover to cpu, gpu-oom, over after 47 s`.
fn line(record: &Record) -> String {
    let time = record.opened.get(11..19).unwrap_or("?");
    let to = record.to.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
    let end = match (record.is_open(), record.lasted_s) {
        (true, _) => "not over".to_owned(),
        (false, Some(seconds)) => format!("over after {}", duration(seconds)),
        (false, None) => "over".to_owned(),
    };
    format!("{}: {time} {}{to}, {}, {end}", record.id, record.kind, record.cause)
}

/// "gpu-oom 90, hang 7": the most frequent first.
fn counted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let told: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
    told.join(", ")
}
