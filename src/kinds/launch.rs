//! How an engine is started: argv and environment.
//!
//! Only flags that the oldest supported version has are passed; everything else goes by environment, which a version
//! that does not know it ignores. An unknown flag would end the start (vLLM: exit 2), an unknown variable never does.
use super::Kind;
use std::collections::BTreeMap;
use std::time::Duration;

/// One start of a local engine.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub kind: Kind,
    /// Program and leading arguments; empty for [`default_command`].
    pub command: &'a [String],
    /// The tier's `model`, as typed.
    pub model: &'a str,
    pub port: u16,
    /// As CUDA names them: indices or UUIDs. `Some` and empty: none, run on the CPU. `None`: whatever the engine sees.
    pub gpus: Option<&'a [String]>,
    /// The operator's own arguments. They come last, because in all three engines the last one wins.
    pub args: &'a [String],
    /// The operator's own variables. They win over ours.
    pub env: &'a BTreeMap<String, String>,
    /// The run's own temporary directory.
    pub tmp_dir: &'a str,
    /// A home directory to give the engine, where it would otherwise have none: Ollama does not start without.
    pub home: Option<&'a str>,
    /// The tier's limits of a start. vLLM and Ollama have limits of their own, which must not be shorter.
    pub start_stall: Duration,
    pub start_cap: Duration,
}

/// Program and leading arguments when the tier names none. Empty for a remote tier, which is never started.
pub const fn default_command(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Vllm => &["vllm", "serve"],
        Kind::Ollama => &["ollama", "serve"],
        Kind::LlamaServer => &["llama-server"],
        Kind::Remote(_) => &[],
    }
}

/// The flag of this argument, and what to do instead, where mainstay itself says it to the engine or could not work with
/// it. The configuration refuses such `args`: the last one would win.
pub fn owned_flag(kind: Kind, argument: &str) -> Option<(&str, &'static str)> {
    const PORT: &str = "set `port` of the tier instead";
    const HOST: &str = "leave it out: engines listen on 127.0.0.1 only";
    const KEY: &str = "leave it out: only mainstay reaches the engine, and asks it without a key";
    const TLS: &str = "leave it out: mainstay asks the engine without TLS, on 127.0.0.1";
    const PREFIX: &str = "leave it out: mainstay asks for the engine's own paths";
    const MODEL: &str = "set `model` of the tier instead";
    let owned: &[(&[&str], &str)] = match kind {
        Kind::Vllm => &[
            (&["--port"], PORT),
            (&["--host", "--uds"], HOST),
            (&["--api-key"], KEY),
            (&["--ssl-keyfile", "--ssl-certfile"], TLS),
            (&["--model"], MODEL),
        ],
        Kind::LlamaServer => &[
            (&["--port"], PORT),
            (&["--host"], HOST),
            (&["--api-key", "--api-key-file"], KEY),
            (&["--ssl-key-file", "--ssl-cert-file"], TLS),
            (&["--api-prefix"], PREFIX),
            (&["-m", "--model"], MODEL),
        ],
        Kind::Ollama | Kind::Remote(_) => &[],
    };
    let flag = flag_of(argument);
    // Both engines read a long flag with underscores as the one with dashes.
    let spelled = if flag.starts_with("--") { flag.replace('_', "-") } else { flag.to_owned() };
    owned.iter().find(|(flags, _)| flags.contains(&spelled.as_str())).map(|(_, remedy)| (flag, *remedy))
}

/// The name under which the engine knows its model, which every request to it must carry: the tier's `model`, unless
/// the operator's arguments give another. (llama-server takes any name.)
pub fn served_name<'a>(kind: Kind, model: &'a str, args: &'a [String]) -> &'a str {
    match kind {
        Kind::Vllm => value_of(args, &["--served-model-name", "--served_model_name"]).unwrap_or(model),
        Kind::Ollama | Kind::LlamaServer | Kind::Remote(_) => model,
    }
}

/// The flag of an argument that holds a flag and, behind a blank, its value. No engine understands that.
pub fn flag_with_value(argument: &str) -> Option<&str> {
    let flag = flag_of(argument);
    let is_flag = flag.trim_start_matches('-').starts_with(|first: char| first.is_ascii_alphabetic())
        && flag.starts_with('-')
        && argument[flag.len()..].starts_with(char::is_whitespace);
    is_flag.then_some(flag)
}

/// Up to the first `=` or blank.
fn flag_of(argument: &str) -> &str {
    argument.split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or_default()
}

/// The flag among the operator's arguments that says where llama-server gets its model from, which is then not given the
/// tier's `model` as a file.
pub fn source_flag(kind: Kind, args: &[String]) -> Option<&str> {
    const SOURCES: [&str; 9] = [
        "-mu",
        "--model-url",
        "-hf",
        "-hfr",
        "--hf-repo",
        "-dr",
        "--docker-repo",
        "--models-dir",
        "--models-preset",
    ];
    let mut flags = args.iter().map(|arg| flag_of(arg)).filter(|_| kind == Kind::LlamaServer);
    flags.find(|flag| SOURCES.contains(&flag.replace('_', "-").as_str()))
}

/// Do the operator's own arguments or variables keep the engine off every GPU? `words` are those of `command` and `args`, in
/// their order.
pub fn asks_for_cpu<'a>(kind: Kind, words: &[String], env: impl Fn(&str) -> Option<&'a str>) -> bool {
    let said = |flags: &[&str], variable: &str| value_of(words, flags).or_else(|| env(variable));
    let by_its_own_words = match kind {
        Kind::Vllm => said(&["--device"], "VLLM_TARGET_DEVICE") == Some("cpu"),
        Kind::LlamaServer => {
            let layers = said(&["-ngl", "--gpu-layers", "--n-gpu-layers"], "LLAMA_ARG_N_GPU_LAYERS");
            layers == Some("0") || said(&["-dev", "--device"], "LLAMA_ARG_DEVICE") == Some("none")
        }
        Kind::Ollama => env("OLLAMA_LLM_LIBRARY").is_some_and(|library| library.starts_with("cpu")),
        Kind::Remote(_) => false,
    };
    let list = env("CUDA_VISIBLE_DEVICES").map(str::trim);
    // Ollama reads an empty list as none given.
    let is_none = |list: &str| list.starts_with("-1") || (list.is_empty() && kind != Kind::Ollama);
    by_its_own_words || list.is_some_and(is_none)
}

/// Program and arguments. Empty for a remote tier.
pub fn argv(launch: &Launch) -> Vec<String> {
    let mut argv: Vec<String> = match launch.command {
        [] => default_command(launch.kind).iter().map(|&word| word.to_owned()).collect(),
        command => command.to_vec(),
    };
    match launch.kind {
        Kind::Vllm => vllm_arguments(launch, &mut argv),
        Kind::LlamaServer => llama_arguments(launch, &mut argv),
        // `ollama serve` is told everything by environment.
        Kind::Ollama => {}
        Kind::Remote(_) => return Vec::new(),
    }
    argv.extend_from_slice(launch.args);
    argv
}

fn vllm_arguments(launch: &Launch, argv: &mut Vec<String>) {
    // `vllm serve` takes the model by position; the module that people ran before it existed only by flag.
    if argv.iter().any(|word| word == "vllm.entrypoints.openai.api_server") {
        argv.push("--model".to_owned());
    }
    argv.push(launch.model.to_owned());
    if served_name(launch.kind, launch.model, launch.args) == launch.model {
        argv.extend(["--served-model-name".to_owned(), launch.model.to_owned()]);
    }
    argv.extend(address(launch.port));
}

fn llama_arguments(launch: &Launch, argv: &mut Vec<String>) {
    // An operator who names a source of the model means that one. With none at all llama-server would start without
    // a model, as a router, and look healthy.
    if source_flag(launch.kind, launch.args).is_none() {
        argv.extend(["-m".to_owned(), launch.model.to_owned()]);
    }
    if value_of(launch.args, &["-a", "--alias"]).is_none() {
        argv.extend(["--alias".to_owned(), launch.model.to_owned()]);
    }
    argv.extend(address(launch.port));
}

fn address(port: u16) -> [String; 4] {
    ["--host".to_owned(), "127.0.0.1".to_owned(), "--port".to_owned(), port.to_string()]
}

/// The value that the last of these flags has in `args`, as `--flag value` or `--flag=value`.
fn value_of<'a>(args: &'a [String], flags: &[&str]) -> Option<&'a str> {
    let mut found = None;
    for (at, arg) in args.iter().enumerate() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (arg.as_str(), None),
        };
        if flags.contains(&name) {
            found = inline.or_else(|| args.get(at + 1).map(String::as_str)).or(found);
        }
    }
    found
}

/// Variables to set, over whatever the agent itself was started with: ours first, then the operator's, which win.
pub fn environment(launch: &Launch) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    set("TMPDIR", launch.tmp_dir);
    set("NO_COLOR", "1");
    if let Some(home) = launch.home {
        set("HOME", home);
    }
    match launch.kind {
        Kind::Vllm => vllm_environment(launch, &mut set),
        Kind::LlamaServer => llama_environment(launch, &mut set),
        Kind::Ollama => ollama_environment(launch, &mut set),
        Kind::Remote(_) => return BTreeMap::new(),
    }
    if let Some(gpus) = launch.gpus.filter(|gpus| !gpus.is_empty()) {
        // Without this CUDA numbers GPUs by speed, and `gpus = [1]` would be another card than nvidia-smi's.
        set("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
        set("CUDA_VISIBLE_DEVICES", &gpus.join(","));
    }
    env.extend(launch.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env
}

/// Is this tier confined to the CPU by its own `gpus = []`?
fn on_cpu(launch: &Launch) -> bool {
    launch.gpus.is_some_and(<[String]>::is_empty)
}

/// Sets one variable.
type Set<'a> = &'a mut dyn FnMut(&str, &str) -> Option<String>;

fn vllm_environment(launch: &Launch, set: Set) {
    // setproctitle would write its titles over /proc/PID/environ, where the run's nonce is looked for.
    set("SPT_NOENV", "1");
    set("PYTHONUNBUFFERED", "1");
    // A segfault leaves the name of its thread and frame in the log.
    set("PYTHONFAULTHANDLER", "1");
    set("VLLM_LOGGING_COLOR", "0");
    set("VLLM_NO_USAGE_STATS", "1");
    set("DO_NOT_TRACK", "1");
    // An engine that is dead must exit, so that it is started again.
    set("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", "0");
    // Longer than the proxy keeps an idle connection, so that the proxy is the one that closes it. 5 s by default.
    set("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "75");
    set("VLLM_ENGINE_READY_TIMEOUT_S", &launch.start_cap.as_secs().max(1).to_string());
    if on_cpu(launch) {
        set("CUDA_VISIBLE_DEVICES", "");
    }
}

fn llama_environment(launch: &Launch, set: Set) {
    // Where progress is read; off by default (metrics), or in versions before 2025 (slots).
    set("LLAMA_ARG_ENDPOINT_METRICS", "1");
    set("LLAMA_ARG_ENDPOINT_SLOTS", "1");
    // Otherwise an abort forks a debugger for a backtrace, and the process lingers on with its memory.
    set("GGML_NO_BACKTRACE", "1");
    if on_cpu(launch) {
        // Both: the first is for any kind of GPU, but with a full CUDA device it still fails to initialise that.
        set("LLAMA_ARG_DEVICE", "none");
        set("CUDA_VISIBLE_DEVICES", "");
    }
}

fn ollama_environment(launch: &Launch, set: Set) {
    set("OLLAMA_HOST", &format!("127.0.0.1:{}", launch.port));
    // A loaded model stays.
    set("OLLAMA_KEEP_ALIVE", "-1");
    // A fallback that quietly asks somebody's cloud is none.
    set("OLLAMA_NO_CLOUD", "1");
    // Do not delete blobs that look unused: it slows the start down, and they are not ours.
    set("OLLAMA_NOPRUNE", "1");
    // Like ours, Ollama's limit counts time without progress.
    set("OLLAMA_LOAD_TIMEOUT", &format!("{}s", launch.start_stall.as_secs().max(1)));
    set("GIN_MODE", "release");
    set("GGML_NO_BACKTRACE", "1");
    if on_cpu(launch) {
        // Ollama reads an empty list as none given, so a device that cannot exist is named to each driver.
        for list in ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"] {
            set(list, "-1");
        }
    }
}

#[cfg(test)]
mod tests;
