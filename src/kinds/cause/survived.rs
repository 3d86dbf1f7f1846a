//! What an engine lived on after explains no end: lines of earlier, healthy minutes of the same run, and lines that only
//! say again what was said then.
use super::{Evidence, Finding, line, signs_of_life};
use crate::kinds::novelty;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Lines that show that an engine went on, before a line a minute before the end is held to be survived.
const LIVED_ON: usize = 3;
/// Without times, this many show that it was healthy for a while.
const HEALTHY: usize = 120;

/// Takes the findings away that the run survived. `ready` is the line at which it said that it serves.
pub(super) fn drop(
    findings: &mut Vec<Finding>,
    evidence: &Evidence,
    lines: &[Cow<'_, str>],
    ready: Option<usize>,
) {
    let healthy = healthy(evidence, lines, ready);
    if healthy == 0 {
        return;
    }
    let is_old =
        |finding: &Finding| finding.line < healthy && signs_of_life(&lines[finding.line + 1..]) >= LIVED_ON;
    // The kernel speaks of the machine, and a broken one stays broken.
    let of_kernel = |finding: &Finding| line::is_of_kernel(evidence.lines[finding.line]);
    let form = |finding: &Finding| novelty::normal(&lines[finding.line]);
    let survived: BTreeSet<String> =
        findings.iter().filter(|it| is_old(it) && !of_kernel(it)).map(form).collect();
    findings.retain(|it| of_kernel(it) || !(is_old(it) && !it.lasts() || survived.contains(&form(it))));
}

/// How many of the first lines are of a time in which the engine was well: it served, and lived on.
fn healthy(evidence: &Evidence, lines: &[Cow<'_, str>], ready: Option<usize>) -> usize {
    let by_time = if evidence.was_ready { evidence.survived } else { 0 };
    let served = if evidence.was_ready { Some(ready.unwrap_or(0)) } else { ready };
    let by_lines = served.map_or(0, |served| {
        let mut alive = 0;
        let rest = (served..lines.len()).rev();
        rest.take_while(|at| {
            alive += usize::from(line::shows_life(&lines[*at]));
            alive <= HEALTHY
        })
        .last()
        .unwrap_or(0)
        .min(lines.len())
    });
    // Where the whole log is too short for that, the loop above ends at the line of readiness.
    let by_lines = if served == Some(by_lines) { 0 } else { by_lines };
    by_time.max(by_lines).min(lines.len())
}
