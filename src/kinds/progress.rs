//! What a starting engine is doing, read from its log. For people only: no decision hangs on a stage. Whether a start
//! still moves is decided by [`super::Novelty`] and the figures of its processes.
use super::Kind;

/// What one line tells of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// A phrase that completes "is …".
    pub stage: &'static str,
    /// The stage's place on the kind's ladder, from 0: a start climbs, and skips rungs, but does not come back.
    pub rung: usize,
    /// How much of this stage is done; `None` when the line does not say.
    pub done: Option<Done>,
}

/// How far a stage has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// 0–100.
    Percent(u8),
    /// `n` of `of` files, shards or graphs.
    Count { percent: u8, n: u64, of: u64 },
    /// So many per cent more than before, at least: llama.cpp writes a dot whenever its figure has grown.
    Dots(u8),
}

/// The stages of a kind, the earliest first, each with what its lines contain. A line is looked up from the top: what is
/// said last in a start is said only then.
type Ladder = &'static [(&'static str, &'static [&'static str])];

const DOWNLOADING: &str = "downloading weights";
const LOADING: &str = "loading weights";

const VLLM: Ladder = &[
    ("reading its configuration", &["server version", "non-default args:", "Resolved architecture"]),
    ("starting its engine core", &["LLM engine (v"]),
    ("starting its workers", &["distributed_init_method=", "is assigned as DP rank"]),
    ("preparing the model", &["Starting to load model"]),
    (
        DOWNLOADING,
        &["Time spent downloading weights", "Downloading shards", "Fetching ", ".safetensors:", ".bin:"],
    ),
    (LOADING, &["checkpoint shards:", "Loading weights took", "Model loading took"]),
    (
        "compiling",
        &[
            "Dynamo bytecode transform time",
            "Compiling a graph for",
            "compiled graph",
            "torch.compile t",
            "from the cache, took",
        ],
    ),
    (
        "allocating the KV cache",
        &["Available KV cache memory", "KV cache size", "GiB for KV cache", "Maximum concurrency for"],
    ),
    ("warming up", &["Warming up model"]),
    ("capturing CUDA graphs", &["Capturing CUDA graph", "Graph capturing finished"]),
    ("opening its endpoint", &["init engine (", "Starting vLLM"]),
    ("listening", &["Application startup complete"]),
];

const LLAMA_SERVER: Ladder = &[
    ("reading its configuration", &["llama_server: initializing", "system info:", "system_info:"]),
    (DOWNLOADING, &["downloading", "Downloading", "trying to download"]),
    (LOADING, &["loading model", "load_tensors:", "model buffer size", "layers to GPU"]),
    ("allocating the KV cache", &["KV buffer size", "compute buffer size", "llama_context:"]),
    ("warming up", &["warming up the model"]),
    ("opening its endpoint", &["initializing, n_slots", "model loaded"]),
    ("listening", &["listening on"]),
];

const OLLAMA: Ladder = &[
    ("reading its configuration", &["server config"]),
    ("looking for GPUs", &["Listening on", "discovering available GPUs", "inference compute"]),
    (DOWNLOADING, &["msg=\"downloading ", "msg=\"pulling "]),
    (
        LOADING,
        &[
            "msg=\"starting llama-server",
            "msg=\"starting runner",
            "loading model",
            "waiting for llama",
            "to become available",
            "load_tensors:",
            "model buffer size",
            "layers to GPU",
        ],
    ),
    ("allocating the KV cache", &["KV buffer size", "compute buffer size", "llama_context:"]),
    ("warming up", &["warming up the model"]),
    ("opening its endpoint", &["initializing, n_slots", "model loaded"]),
    ("listening", &["llama-server started in", "runner started in"]),
];

const fn ladder(kind: Kind) -> Ladder {
    match kind {
        Kind::Vllm => VLLM,
        Kind::LlamaServer => LLAMA_SERVER,
        Kind::Ollama => OLLAMA,
        Kind::Remote(_) => &[],
    }
}

/// The stages of a kind, the earliest first.
pub fn stages(kind: Kind) -> impl Iterator<Item = &'static str> {
    ladder(kind).iter().map(|(stage, _)| *stage)
}

/// What this line of a starting engine's log tells; `None` when nothing.
pub fn progress(kind: Kind, line: &str) -> Option<Progress> {
    let line = last_drawing(line);
    if let Some(dots) = dots(line) {
        return of_stage(kind, LOADING, Some(Done::Dots(dots))).filter(|_| kind != Kind::Vllm);
    }
    let has = |needles: &[&str]| needles.iter().any(|needle| line.contains(needle));
    let (rung, (stage, _)) = ladder(kind).iter().enumerate().rfind(|(_, (_, needles))| has(needles))?;
    Some(Progress { stage, rung, done: done(line) })
}

/// The weights are being fetched through the engine's API, which tells of it in its answer, not in its log.
pub fn fetching(kind: Kind, percent: Option<u8>) -> Option<Progress> {
    of_stage(kind, DOWNLOADING, percent.map(Done::Percent))
}

fn of_stage(kind: Kind, stage: &'static str, done: Option<Done>) -> Option<Progress> {
    let rung = stages(kind).position(|known| known == stage)?;
    Some(Progress { stage, rung, done })
}

/// tqdm redraws its bar after a carriage return: only the last drawing is news.
pub(super) fn last_drawing(line: &str) -> &str {
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line)
}

/// A line of nothing but dots, and how many.
fn dots(line: &str) -> Option<u8> {
    let line = line.trim();
    let all = !line.is_empty() && line.bytes().all(|b| b == b'.');
    all.then(|| u8::try_from(line.len()).unwrap_or(100).min(100))
}

/// The last `N%` of a line, and the `n/m` that a progress bar has behind it.
fn done(line: &str) -> Option<Done> {
    let (before, after) = line.split_at(line.rfind('%')?);
    let digits = before.rfind(|c: char| !c.is_ascii_digit()).map_or(before, |at| &before[at + 1..]);
    let percent = digits.parse().ok().filter(|percent| *percent <= 100)?;
    let words = after.split(|c: char| c.is_whitespace() || "%|[],()".contains(c));
    // "2/4" is a count, "2.25G/4.97G" is none.
    let mut count = words.filter_map(|word| {
        let (n, of) = word.split_once('/')?;
        Some((n.parse::<u64>().ok()?, of.parse::<u64>().ok()?))
    });
    Some(match count.rfind(|(n, of)| n <= of) {
        Some((n, of)) => Done::Count { percent, n, of },
        None => Done::Percent(percent),
    })
}

#[cfg(test)]
mod tests;
