//! The GPUs as text: pure, so that a test can show every line of it.
use crate::cli::status::paint::{Colour, bytes, fit, instant, paint, span};
use crate::control::wire::{Gpu, GpuHolder, GpuProbe, GpuProbeState, GpuVerdict};

const NAME_WIDTH: usize = 16;
/// Processes that are shown of each GPU; `--json` has all.
const HOLDERS_MAX: usize = 8;

/// The whole picture. `now_ms` is the wall clock in milliseconds since 1970, `width` is in columns.
pub fn render(probe: &GpuProbe, gpus: &[Gpu], now_ms: i64, width: usize, colour: bool) -> String {
    let (fact, mark) = sentence(probe, now_ms);
    let mut text = paint(&fit(&format!("GPU probe: {fact}"), width), mark, colour);
    text.push('\n');
    if gpus.is_empty() {
        return text;
    }
    let heading = format!(
        "\n  {:<3}  {:<NAME_WIDTH$}  {:>6}  {:<22}  {:>5}  {:>6}  {}",
        "GPU", "NAME", "TEMP", "MEMORY", "BUSY", "POWER", "VERDICT"
    );
    text.push_str(&paint(&heading, Colour::Dim, colour));
    text.push('\n');
    for gpu in gpus {
        text.push_str(&row(gpu, colour));
        text.push('\n');
        for (fact, mark) in details(gpu, now_ms) {
            text.push_str(&paint(&fit(&format!("    {fact}"), width), mark, colour));
            text.push('\n');
        }
    }
    text
}

/// How the probe is, in one sentence.
pub fn sentence(probe: &GpuProbe, now_ms: i64) -> (String, Colour) {
    let age = probe.since.as_deref().and_then(instant).map(|at| span(now_ms - at));
    let age = age.map_or_else(String::new, |age| format!(" for {age}"));
    let why = probe.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    match probe.state {
        GpuProbeState::Ok => {
            let driver = probe.driver.as_deref().unwrap_or("of unknown version");
            (format!("answers{age}, driver {driver}"), Colour::Plain)
        }
        GpuProbeState::NoDriver => (format!("no driver{why}"), Colour::Plain),
        GpuProbeState::Starting => ("starting: nothing is known yet".to_owned(), Colour::Plain),
        GpuProbeState::Off => {
            ("off, by `probe = false` in [gpu]: nothing is known".to_owned(), Colour::Plain)
        }
        GpuProbeState::Unresponsive => (format!("unresponsive{age}{why}"), Colour::Yellow),
        GpuProbeState::Wedged => (format!("wedged{age}{why}"), Colour::Red),
    }
}

fn row(gpu: &Gpu, colour: bool) -> String {
    let (mark, hue) = match gpu.verdict {
        GpuVerdict::Ok => ("●", Colour::Green),
        GpuVerdict::Note | GpuVerdict::Degraded | GpuVerdict::Draining => ("●", Colour::Yellow),
        GpuVerdict::Fenced => ("×", Colour::Red),
        GpuVerdict::Unknown => ("?", Colour::Yellow),
    };
    let known = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
    // Every name begins like that, and there is no room to say it.
    let name = gpu.name.as_deref().map_or("-", |name| name.trim_start_matches("NVIDIA "));
    let name = fit(name, NAME_WIDTH);
    let temperature = known(gpu.temperature_c.map(|c| format!("{c:.0} °C")));
    let memory = match (gpu.memory_used, gpu.memory_total) {
        (Some(used), Some(total)) => format!("{} of {}", bytes(used), bytes(total)),
        (Some(used), None) => format!("{} used", bytes(used)),
        (None, Some(total)) => format!("? of {}", bytes(total)),
        (None, None) => "-".to_owned(),
    };
    let busy = known(gpu.utilization.map(|share| format!("{:.0} %", share * 100.0)));
    let power = known(gpu.power_w.map(|watts| format!("{watts:.0} W")));
    format!(
        "{} {:<3}  {name:<NAME_WIDTH$}  {temperature:>6}  {memory:<22}  {busy:>5}  {power:>6}  {}",
        paint(mark, hue, colour),
        gpu.index,
        paint(gpu.verdict.name(), hue, colour)
    )
}

/// The lines below a GPU's own, in the order in which one would ask.
fn details(gpu: &Gpu, now_ms: i64) -> Vec<(String, Colour)> {
    let identity: Vec<&str> = gpu.pci.iter().chain(&gpu.uuid).map(String::as_str).collect();
    let mut lines = Vec::new();
    if !identity.is_empty() {
        lines.push((identity.join(" "), Colour::Dim));
    }
    if gpu.verdict != GpuVerdict::Ok {
        let age = instant(&gpu.since).map_or_else(String::new, |at| format!(" for {}", span(now_ms - at)));
        lines.push((format!("{}{age}: {}", gpu.verdict.name(), gpu.reason), Colour::Plain));
    }
    if let Some(reasons) = gpu.throttle.as_ref().filter(|reasons| !reasons.is_empty()) {
        lines.push((format!("slowed down now: {}", reasons.join(", ")), Colour::Yellow));
    }
    if let Some(ecc) = &gpu.ecc {
        let count = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let (corrected, uncorrected) = (count(ecc.corrected), count(ecc.uncorrected));
        let sentence = format!("memory errors: {corrected} corrected, {uncorrected} uncorrected");
        lines.push((sentence, Colour::Dim));
    }
    let holders = gpu.processes.as_deref().unwrap_or_default();
    lines.extend(holders.iter().take(HOLDERS_MAX).map(|it| (holder(it), Colour::Dim)));
    if holders.len() > HOLDERS_MAX {
        lines.push((
            format!("and {} more processes; --json has all", holders.len() - HOLDERS_MAX),
            Colour::Dim,
        ));
    }
    lines
}

fn holder(process: &GpuHolder) -> String {
    let memory = process.memory.map_or_else(|| "an unknown amount".to_owned(), bytes);
    let tier = process.tier.as_deref().unwrap_or("not ours");
    format!("{memory} held by pid {} ({tier})", process.pid)
}

#[cfg(test)]
mod tests;
