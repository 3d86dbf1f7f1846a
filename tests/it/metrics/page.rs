//! Help page, alert rules and dashboard name metrics and labels that exist, and all of them.
use mainstay::control::metrics::families::{self, Family, Kind};
use regex::Regex;
use std::collections::BTreeSet;
use std::path::Path;

const HELP: &str = "src/cli/help/metrics.md";
const RULES: &str = "config/alerts.yml";
const CASES: &str = "tests/clients/alerts_test.yml";
const DASHBOARD: &str = "config/grafana.json";

fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path).expect("a file that is shipped")
}

fn family(name: &str) -> Option<&'static Family> {
    families::ALL.iter().find(|family| {
        let own = family.sample_name();
        let of_histogram = |suffix| name.strip_suffix(suffix) == Some(own.as_str());
        name == own
            || (family.kind == Kind::Histogram && ["_bucket", "_sum", "_count"].into_iter().any(of_histogram))
    })
}

/// Names of metrics in a text, each with what stands between braces behind it.
fn named(text: &str) -> Vec<(String, String)> {
    let metric = Regex::new(r"\bmainstay_[a-z_]+(\{[^}]*\})?").expect("a pattern");
    let found = metric.find_iter(text).map(|found| found.as_str());
    found
        .map(|found| {
            let (name, labels) = found.split_once('{').unwrap_or((found, ""));
            (name.to_owned(), labels.trim_end_matches('}').to_owned())
        })
        .collect()
}

/// Everything that is wrong with the metrics that a text names.
fn wrong(text: &str) -> Vec<String> {
    let label = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\\?""#).expect("a pattern");
    let of_prometheus = ["job", "instance", "le"];
    let mut wrong = Vec::new();
    for (name, labels) in named(text) {
        let Some(family) = family(&name) else {
            wrong.push(format!("there is no {name}"));
            continue;
        };
        let labels = label.captures_iter(&labels).map(|found| found[1].to_owned());
        let strange =
            labels.filter(|l| !family.labels.contains(&l.as_str()) && !of_prometheus.contains(&l.as_str()));
        wrong.extend(strange.map(|label| format!("{name} has no label {label}")));
    }
    wrong
}

#[test]
fn the_help_page_lists_every_family_as_it_is() {
    let help = shipped(HELP);
    let page = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let missing: Vec<String> = families::ALL
        .iter()
        .map(|family| {
            let labels = if family.labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", family.labels.join(","))
            };
            format!("{}{labels} {} {}.", family.sample_name(), family.kind.name(), family.help)
        })
        .filter(|entry| !page.contains(entry))
        .collect();
    assert!(missing.is_empty(), "{HELP} lacks:\n{}", missing.join("\n"));
    let unknown: BTreeSet<String> =
        named(&help).into_iter().map(|(name, _)| name).filter(|name| family(name).is_none()).collect();
    assert!(unknown.is_empty(), "{HELP} invents {unknown:?}");
}

#[test]
fn alert_rules_and_dashboard_name_what_exists() {
    for file in [RULES, DASHBOARD] {
        let text = shipped(file);
        assert!(named(&text).len() > 20, "{file} was read");
        assert_eq!(wrong(&text), Vec::<String>::new(), "{file}");
    }
    serde_json::from_str::<serde_json::Value>(&shipped(DASHBOARD)).expect("a dashboard is JSON");
}

/// Each rule says since when, how bad, what, and what to do, and has a case in which promtool sees it fire.
#[test]
fn every_alert_rule_is_complete_and_tested() {
    let (text, cases) = (shipped(RULES), shipped(CASES));
    let rules: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(rules.len() >= 15, "{} rules", rules.len());
    for rule in rules {
        let name = rule.lines().next().unwrap_or_default().trim();
        for key in ["expr:", "for:", "severity:", "summary:", "description:"] {
            assert_eq!(rule.matches(key).count(), 1, "{name}: {key}");
        }
        assert!(cases.contains(&format!("alertname: {name}\n")), "{CASES} does not provoke {name}");
    }
}

#[test]
fn the_check_itself_sees_what_does_not_exist() {
    let given = r#"mainstay_tier_rank{tier="a"} mainstay_first_content_seconds_bucket{le="1"} mainstay_tier_rank_sum
        mainstay_nothing mainstay_tier_rank{cause=\"x\"}"#;
    let found = wrong(given);
    assert_eq!(
        found,
        [
            "there is no mainstay_tier_rank_sum",
            "there is no mainstay_nothing",
            "mainstay_tier_rank has no label cause"
        ]
    );
}
