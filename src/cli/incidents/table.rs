//! All incidents, one line each.
use super::lasted;
use crate::alert::Record;
use crate::cli::screen::Screen;
use crate::cli::status::paint::{Colour, fit, paint};
use std::path::Path;

pub fn table(records: &[Record], screen: Screen, dir: &Path) -> String {
    if records.is_empty() {
        return format!("no incident is kept in {}\n", dir.display());
    }
    let tiers: Vec<String> = records.iter().map(tier).collect();
    let widest = tiers.iter().map(|tier| tier.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:>4}  {:<16}  {:<8}  {:<9}  {:<widest$}  {}\n",
        "ID", "OPENED (UTC)", "KIND", "LASTED", "TIER", "CAUSE"
    );
    for (record, tier) in records.iter().zip(tiers) {
        // Minutes are enough to find it again.
        let opened = record.opened.get(..16).unwrap_or(&record.opened).replace('T', " ");
        let kind = paint(&format!("{:<8}", record.kind), colour(record), screen.colour);
        let lasted = lasted(record);
        let cause = fit(&record.cause, screen.width.saturating_sub(47 + widest).max(7));
        text.push_str(&format!(
            "{:>4}  {opened}  {kind}  {lasted:<9}  {tier:<widest$}  {cause}\n",
            record.id
        ));
    }
    text
}

/// The tier, and where serving went.
fn tier(record: &Record) -> String {
    let moved = record.to.as_ref().map(|to| format!("{} -> {to}", record.tier));
    fit(&moved.unwrap_or_else(|| record.tier.clone()), 22)
}

fn colour(record: &Record) -> Colour {
    match (record.is_open(), record.kind.as_str()) {
        (true, _) => Colour::Red,
        (false, "all-down" | "held") => Colour::Yellow,
        (false, _) => Colour::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_columns_hold_what_tells_incidents_apart() {
        let screen = Screen { terminal: true, width: 80, colour: false };
        let record = Record {
            id: 17,
            opened: "2026-11-23T03:00:00.123Z".to_owned(),
            closed: Some("2026-11-23T03:04:12.123Z".to_owned()),
            lasted_s: Some(252.0),
            kind: "failover".to_owned(),
            tier: "primary".to_owned(),
            to: Some("cpu".to_owned()),
            cause: "killed-from-outside".to_owned(),
            ..Record::default()
        };
        let open = Record { id: 18, closed: None, lasted_s: None, to: None, ..record.clone() };
        let text = table(&[record, open], screen, Path::new("/s"));
        insta::assert_snapshot!(text, @r"
          ID  OPENED (UTC)      KIND      LASTED     TIER            CAUSE
          17  2026-11-23 03:00  failover  4min 12s   primary -> cpu  killed-from-outside
          18  2026-11-23 03:00  failover  goes on    primary         killed-from-outside
        ");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
