//! What a mail says. Pure: records in, subject and text out.
//!
//! Read at 3 a.m. on a telephone: what happened and what to do come first, what it was read from after it. Words are
//! wrapped; log lines are not, so that they can be searched for.
mod digest;
mod page;
#[cfg(test)]
mod tests;

use super::message::Text;
use super::post::{Post, PostKind};
use super::record::{Felt, Record, Scene, Standing};
use crate::policy::Cause;
use page::{Page, bytes, clock, duration, one_line, plural};

/// Of the engine's last lines.
const LOG_LINES_MAX: usize = 20;
/// Of the timeline: this many from its beginning, and from its end.
const TIMELINE_ENDS: usize = 7;
const PROCESSES_MAX: usize = 4;

/// The mail that a post asks for. Records that are not kept any more are missing from `records`; the text says so.
pub fn write(host: &str, post: &Post, records: &[Record]) -> Text {
    let (subject, page) = match (post.kind, records.first()) {
        // One that had to wait is told whole, as if it had not.
        (PostKind::Digest, Some(record)) if post.ids.len() == 1 && post.more == 0 => {
            let mut page = alert(record);
            page.blank();
            page.words("This mail had to wait: at_most_every limits how many are sent.");
            (alert_subject(record), page)
        }
        (PostKind::Digest, _) => digest::write(post, records),
        (PostKind::Alert, Some(record)) => (alert_subject(record), alert(record)),
        (PostKind::Return, Some(record)) => (return_subject(record), over(record)),
        (PostKind::Alert, None) => ("[ALERT] LLM incident".to_owned(), lost(post)),
        (PostKind::Return, None) => ("[OK] LLM return".to_owned(), lost(post)),
    };
    Text { subject: one_line(&format!("{subject} ({host})")), body: page.text() }
}

/// A mail that only shows that mail arrives.
pub fn test_mail(host: &str, at: &str) -> Text {
    let mut page = Page::default();
    page.words(&format!(
        "This is a test from mainstay on {host}, sent at {}. Alerts will come this way.",
        clock(at)
    ));
    page.blank();
    page.words("`mainstay help alerts` says what is mailed when.");
    Text { subject: one_line(&format!("[TEST] LLM alerts reach you ({host})")), body: page.text() }
}

/// What the incident has just come to: the last thing that was to be told, which may be less grave than its worst. A
/// failover to nobody is none: the other tier went down as well before this was written.
fn news(record: &Record) -> &str {
    match record.mail.told.last().unwrap_or(&record.kind).as_str() {
        "failover" if record.to.is_none() => "all-down",
        news => news,
    }
}

fn alert_subject(record: &Record) -> String {
    let tier = &record.tier;
    match news(record) {
        "failover" => format!("[ALERT] LLM failover: {tier} -> {}", record.to.as_deref().unwrap_or_default()),
        "held" => format!("[ALERT] LLM held: {tier}"),
        "gpu" => format!("[ALERT] LLM on the CPU: {tier}"),
        "all-down" => "[ALERT] LLM down: no tier answers".to_owned(),
        kind => format!("[ALERT] LLM {kind}: {tier}"),
    }
}

fn return_subject(record: &Record) -> String {
    match &record.to {
        Some(to) => format!("[OK] LLM return: {to} -> {}", record.tier),
        None => format!("[OK] LLM return: {}", record.tier),
    }
}

fn alert(record: &Record) -> Page {
    let mut page = Page::default();
    let tier = &record.tier;
    page.words(&match news(record) {
        "failover" => {
            format!("{tier} failed, and {} answers in its place.", record.to.as_deref().unwrap_or_default())
        }
        "held" => format!("mainstay does not count on {tier} for now, and goes on trying."),
        "gpu" => format!("{tier} was to use a GPU and runs on the CPU. It answers, but slowly."),
        "all-down" => "No tier answers. Clients get 503 with Retry-After until one does.".to_owned(),
        _ => format!("{tier} failed."),
    });
    if let Some(lasted) = record.lasted_s {
        page.words(&format!("It is over by now; it lasted {}.", duration(lasted)));
    }
    page.blank();
    head(&mut page, record);
    page.row("Clients", &format!("so far: {}", felt(&record.clients)));
    let action = page.once(record.action.as_deref().unwrap_or("see the timeline"));
    page.row("mainstay", &action);
    page.row("Action", advice(record));
    tiers(&mut page, record);
    scene(&mut page, record);
    timeline(&mut page, record);
    look_further(&mut page, record);
    page
}

fn tiers(page: &mut Page, record: &Record) {
    if !record.tiers.is_empty() {
        page.title("The tiers, best first");
    }
    for Standing { name, state, reason } in &record.tiers {
        // Of an engine that starts the reason may be that it starts.
        if state.ends_with(reason.as_str()) {
            page.item(&format!("{name}: {state}"));
        } else {
            let reason = page.once(reason);
            page.item(&format!("{name}: {state}, {reason}"));
        }
    }
}

/// The answer: how long it took and what clients noticed, and no more of the cause than is needed to recognise it.
fn over(record: &Record) -> Page {
    let mut page = Page::default();
    page.words(&match record.kind.as_str() {
        "all-down" => "It is over: clients are answered again.".to_owned(),
        "gpu" => format!("It is over: {} no longer runs on the CPU.", record.tier),
        _ => format!("It is over: {} or a better tier answers again.", record.tier),
    });
    page.blank();
    let lasted = record.lasted_s.map_or_else(|| "for an unknown time".to_owned(), duration);
    page.row("Lasted", &lasted);
    let until = record.closed.as_deref().map_or_else(|| "?".to_owned(), clock);
    page.row("When", &format!("{} to {until}", clock(&record.opened)));
    page.row("Worst", &format!("{} of {}", record.kind, record.tier));
    if let Some(to) = &record.to {
        page.row("Meanwhile", &format!("{to} answered"));
    }
    let Felt { moved, cut, weakened, refused } = record.clients;
    page.row(
        "Clients",
        &format!(
            "{moved} moved to another tier unseen, {cut} cut in the middle of an answer, \
             {weakened} answered weaker and marked so, {refused} refused"
        ),
    );
    cause(&mut page, record);
    if record.deterministic == Some(true) {
        page.row("Action", advice(record));
    }
    timeline(&mut page, record);
    look_further(&mut page, record);
    page
}

fn lost(post: &Post) -> Page {
    let mut page = Page::default();
    let ids: Vec<String> = post.ids.iter().map(u64::to_string).collect();
    page.words(&format!("Incident {}: its record could not be read when this was written.", ids.join(", ")));
    page.blank();
    page.commands(&["mainstay status", "mainstay incidents"]);
    page
}

fn head(page: &mut Page, record: &Record) {
    let run = record.run.map_or_else(String::new, |run| format!(", run {run}"));
    page.row("From", &format!("{} ({}, {}{run})", record.tier, record.engine, record.model));
    let nobody = if news(record) == "all-down" || record.kind == "all-down" {
        "nobody"
    } else {
        "serving did not move"
    };
    page.row("To", record.to.as_deref().unwrap_or(nobody));
    page.row("When", &clock(&record.opened));
    cause(page, record);
}

fn cause(page: &mut Page, record: &Record) {
    let known = Cause::ALL.iter().find(|cause| cause.name() == record.cause);
    let meaning = known.map_or_else(String::new, |cause| format!(": {}", page.once(cause.meaning())));
    let ending = match (record.code, &record.signal) {
        (_, Some(signal)) => format!(" (ended by {signal})"),
        (Some(code), None) => format!(" (exit code {code})"),
        (None, None) => String::new(),
    };
    page.row("Cause", &format!("{}{meaning}{ending}", record.cause));
    if let Some(evidence) = &record.evidence {
        let evidence = page.once(evidence);
        page.raw_row("Evidence", &evidence);
    }
}

fn advice(record: &Record) -> &str {
    let unknown =
        "nothing is known to do for this cause; the engine's last lines and the commands below may tell more";
    record.advice.as_deref().unwrap_or(unknown)
}

/// "3 moved to another tier unseen, 1 refused"; "nothing".
fn felt(felt: &Felt) -> String {
    let parts = [
        (felt.moved, "moved to another tier unseen"),
        (felt.cut, "cut in the middle of an answer"),
        (felt.weakened, "answered weaker and marked so"),
        (felt.refused, "refused"),
    ];
    let told: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if told.is_empty() { "they noticed nothing".to_owned() } else { told.join(", ") }
}

fn scene(page: &mut Page, record: &Record) {
    let Scene { at, last_lines, processes, .. } = &record.scene;
    if !last_lines.is_empty() {
        page.title("The engine's last lines");
        let skipped = last_lines.len().saturating_sub(LOG_LINES_MAX);
        last_lines[skipped..].iter().for_each(|line| page.raw(line));
    }
    let figures = figures(&record.scene);
    if figures.is_empty() && processes.is_empty() {
        return;
    }
    page.title(&format!(
        "The machine{}",
        at.as_ref().map_or_else(String::new, |at| format!(", {}", clock(at)))
    ));
    page.item(&figures.join(", "));
    for process in processes.iter().take(PROCESSES_MAX) {
        page.item(&format!("{} for pid {}, {}", bytes(process.rss), process.pid, process.name));
    }
}

/// What is not known is left out.
fn figures(scene: &Scene) -> Vec<String> {
    let memory = scene.memory_available.map(|free| {
        let of = scene.memory_total.map_or_else(String::new, |total| format!(" of {}", bytes(total)));
        format!("{}{of} memory available", bytes(free))
    });
    let shm = scene.shm_free.map(|free| {
        let of = scene.shm_total.map_or_else(String::new, |total| format!(" of {}", bytes(total)));
        format!("{}{of} of /dev/shm free", bytes(free))
    });
    [
        memory,
        scene.swap_used.map(|used| format!("{} swap used", bytes(used))),
        scene.load.map(|load| format!("load {load:.1}")),
        shm,
        scene.disk_free.map(|free| format!("{} disk free", bytes(free))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn timeline(page: &mut Page, record: &Record) {
    let lines = &record.timeline;
    if lines.is_empty() {
        return;
    }
    page.title("What happened (UTC)");
    let middle = lines.len().saturating_sub(2 * TIMELINE_ENDS);
    for (index, line) in lines.iter().enumerate() {
        let in_middle = middle > 0 && (TIMELINE_ENDS..TIMELINE_ENDS + middle).contains(&index);
        if !in_middle {
            let text = page.once(&line.text);
            page.event(&line.at, &line.kind, &text);
        } else if index == TIMELINE_ENDS {
            let skipped = middle as u64 + record.timeline_skipped;
            page.item(&format!("... {} left out here", plural(skipped, "line")));
        }
    }
}

fn look_further(page: &mut Page, record: &Record) {
    page.title("To look further");
    let incident = format!("mainstay incident {}", record.id);
    if record.is_of_remote() {
        return page.commands(&[&incident, "mainstay status"]);
    }
    let logs = format!("mainstay logs {} -n 200", record.tier);
    let journal = format!("journalctl -t mainstay-{}", record.tier);
    page.commands(&[&incident, "mainstay status", &logs, &journal]);
}
