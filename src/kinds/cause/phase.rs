//! What vLLM was doing when it raised an exception that says little by itself: the frames above it tell. `AssertionError`
//! while weights are loaded is a checkpoint that this build does not fit, and so is a `KeyError` in a model's
//! configuration; at run the same words are a bug.
use super::entry::{AGAIN, Entry, VLLM, Weight};
use super::line;
use crate::policy::Cause;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::sync::OnceLock;

/// Lines of a traceback that are looked at: several workers may print theirs into each other.
const LINES_MAX: usize = 200;

struct Frame<'a> {
    file: &'a str,
    function: &'a str,
}

/// The cause of an exception of the engine's start, where its frames name one; `at` is its line.
pub(super) fn cause(entry: &Entry, lines: &[Cow<'_, str>], at: usize) -> Option<(Cause, Option<bool>)> {
    // Only what is called a bug for want of a better word.
    let open = entry.engines == VLLM
        && entry.cause == Cause::EngineBug
        && matches!(entry.weight, Weight::Symptom | Weight::Specific);
    if !open || lines[..at].iter().any(|line| line::says_ready(line)) {
        return None;
    }
    let (frames, code) = traceback(&lines[at.saturating_sub(LINES_MAX)..at]);
    read(&frames, code, &lines[at]).map(|cause| (cause, AGAIN))
}

fn read(frames: &[Frame], code: &str, exception: &str) -> Option<Cause> {
    let is = |pattern: &'static Wording, text: &str| pattern.get().is_match(text.as_bytes());
    let any = |file: &'static Wording, function: &'static Wording| {
        frames.iter().any(|frame| is(file, frame.file) || is(function, frame.function))
    };
    let inner = |place: &'static Wording| frames.first().is_some_and(|frame| is(place, frame.file));
    let refused = is(&RAISE, code) && is(&REFUSAL, exception);
    if is(&SHARES, code) || (is(&VALUE, exception) && is(&OPTION, exception)) {
        Some(Cause::BadArgument)
    } else if inner(&COLLECTIVE) {
        Some(Cause::Nccl)
    } else if is(&CAPABILITY, code) || refused && inner(&KERNELS) {
        Some(Cause::GpuUnsupported)
    } else if frames.first().is_some_and(|frame| frame.function == "<module>" || is(&IMPORT, frame.file)) {
        Some(Cause::BrokenInstall)
    } else if any(&MODEL_FILES, &MODEL_FUNCTIONS) && is(&LOGIC, exception) || refused && inner(&MODEL_CODE) {
        Some(Cause::ModelUnsupported)
    } else if inner(&SETTINGS) && is(&VALUE, exception) || refused && inner(&BACKENDS) {
        Some(Cause::BadArgument)
    } else {
        None
    }
}

/// The frames above an exception, the innermost first, and the code of that one.
fn traceback<'a>(above: &'a [Cow<'_, str>]) -> (Vec<Frame<'a>>, &'a str) {
    static FRAME: OnceLock<Regex> = OnceLock::new();
    let frame = FRAME.get_or_init(|| line::compiled(r#"File "([^"]+)", line \d+, in (\S+)"#));
    let (mut frames, mut code) = (Vec::new(), "");
    for line in above.iter().rev() {
        if let Some(found) = frame.captures(line.as_bytes()) {
            let part =
                |n| found.get(n).and_then(|part| line.get(part.start()..part.end())).unwrap_or_default();
            frames.push(Frame { file: part(1), function: part(2) });
        } else if line.contains("Traceback (most recent call last)") {
            break;
        } else if frames.is_empty() && code.is_empty() && !line.trim_end().ends_with('^') {
            code = line;
        }
    }
    (frames, code)
}

/// Which lines are source code that a traceback quotes, below the frame that it belongs to: what they say is not said of
/// this failure.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The last line was a frame's, or code.
    inside: bool,
}

impl Frames {
    /// The next line of a log. True: it is code.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let text = match line.split_once("] ") {
            Some((level, text)) if !level.starts_with(' ') => text,
            _ => line,
        };
        let is_frame = text.trim_start().starts_with("File \"") && text.contains(", line ");
        let is_code = self.inside && !is_frame && text.starts_with("    ");
        self.inside = is_frame || is_code;
        is_code
    }
}

/// A pattern that is compiled when it is first needed.
struct Wording(&'static str, OnceLock<Regex>);

impl Wording {
    const fn new(pattern: &'static str) -> Self {
        Self(pattern, OnceLock::new())
    }

    fn get(&self) -> &Regex {
        self.1.get_or_init(|| line::compiled(self.0))
    }
}

/// The model, its configuration or its tokenizer is being read, or the model is being built from them.
static MODEL_FILES: Wording = Wording::new(concat!(
    r"/(weight_utils|parameter|modeling_rope_utils|model_loader/utils)\.py$",
    r"|/configuration_\w+\.py$|/tokeniz\w+[/.]|/transformers_utils/",
));
static MODEL_FUNCTIONS: Wording = Wording::new(concat!(
    r"^_?load_(weights|w13|w2|module|param)|weight_loader$|^initialize_model$|^get_quant_(method|config)$",
    r"|^_get_and_verify_max_len$|^get_(hf_|tokenizer|rope)",
));
/// Code that knows models and number formats, and code that knows ways to run them.
static MODEL_CODE: Wording = Wording::new(concat!(
    r"/vllm/model_executor/(models|model_loader|kernels|layers/(quantization|fused_moe))/|/vllm/(models|lora)/",
    r"|/(transformers|mistral_common|compressed_tensors)/",
));
static BACKENDS: Wording = Wording::new(concat!(
    r"/vllm/(v1/)?(attention|worker|executor|spec_decode|core|structured_output|engine)/",
    r"|/vllm/(platforms|distributed|entrypoints|reasoning|tool_parsers|plugins)/",
));
static COLLECTIVE: Wording = Wording::new(r"/torch/distributed/\w+\.py$");
/// What asks whether this GPU can do something.
static CAPABILITY: Wording = Wording::new(r"assert .*(capability|is_fa_version_supported)");
/// Libraries of GPU kernels: what they refuse, they have no kernel for.
static KERNELS: Wording =
    Wording::new(r"/(flashinfer|(vllm_)?flash_attn\w*|flash_mla|deep_gemm|xformers|triton_kernels)/");
/// Raised on purpose, as one refuses something.
static RAISE: Wording = Wording::new(r"\braise \w");
static REFUSAL: Wording = Wording::new(r"\b(Value|NotImplemented|Runtime)Error: ");
static IMPORT: Wording = Wording::new(r"^<frozen importlib");
static SETTINGS: Wording = Wording::new(r"/vllm/(engine/arg_utils|config(/\w+)?)\.py$");
/// One count has to be a multiple of how many GPUs share the work.
static SHARES: Wording = Wording::new(r"assert .*% *\w*(tp|pp|ep|dp|world|parallel)\w*(\.\w+)? *== *0");
/// Exceptions that speak of values, and those that code raises which was written for other data.
static VALUE: Wording = Wording::new(r"\b(ValueError|NotImplementedError|AssertionError): ");
static LOGIC: Wording = Wording::new(
    r"(^|[ .])(Assertion|Key|Attribute|Value|Type|NotImplemented|Index|Runtime)Error\b|Tokenizer\w*Exception: ",
);
/// A flag, or a setting by its name.
static OPTION: Wording = Wording::new(concat!(
    r"(^|[\s`'(])--[a-z][a-z-]+",
    r"|(tensor|pipeline|data|expert|sequence|context) parallel(ism)?\b|\b\w+_parallel_size\b|\blimit_mm_per_prompt\b",
    r"|\b(max_num_\w+|max_model_len|max_(lora_rank|loras|cpu_loras)|gpu_memory_utilization|block_size|kv_cache_dtype)\b",
    r"|\b(VLLM|RAY|NCCL|CUDA)_[A-Z0-9_]{3,}\b|'(MIG|GPU)-[0-9a-f]",
));

#[cfg(test)]
mod tests {
    use super::super::{engine, tests::diagnosis};
    use super::*;
    use crate::kinds::Kind;
    use crate::policy::Exit;

    #[track_caller]
    fn check(file: &str, function: &str, code: &str, exception: &str, expected: Cause) {
        let start = format!(
            "INFO vLLM API server version 1\nTraceback (most recent call last):\n  \
             File \"/v/vllm/v1/engine/core.py\", line 1, in run\n    \
             run()\n  File \"{file}\", line 7, in {function}\n    {code}\n    ^^^^\n{exception}"
        );
        let found = diagnosis(Some(Kind::Vllm), Some(Exit::Code(1)), &start);
        assert_eq!(found.cause, expected, "{start}\n{found:#?}");
        let at_run = start.replace("Traceback", "INFO:     Application startup complete.\nTraceback");
        let found = diagnosis(Some(Kind::Vllm), Some(Exit::Code(1)), &at_run);
        assert_eq!((found.cause, found.deterministic), (Cause::EngineBug, None), "{at_run}\n{found:#?}");
    }

    #[test]
    fn an_exception_of_the_start_is_read_by_what_was_being_done() {
        use Cause::{BadArgument, BrokenInstall, EngineBug, ModelUnsupported};
        check(
            "/v/l/linear.py",
            "weight_loader",
            "assert a.shape == b.shape",
            "AssertionError",
            ModelUnsupported,
        );
        check(
            "/v/m/llama.py",
            "load_weights",
            "param = params[name]",
            "KeyError: 'x.bias'",
            ModelUnsupported,
        );
        check(
            "/v/transformers/models/x/configuration_x.py",
            "f",
            "raise ValueError(",
            "ValueError: new",
            ModelUnsupported,
        );
        check("/v/m/llama.py", "__init__", "assert self.kv % tp_size == 0", "AssertionError", BadArgument);
        check(
            "/v/vllm/v1/core/s.py",
            "f",
            "raise ValueError(",
            "ValueError: max_num_seqs is too small",
            BadArgument,
        );
        check("/v/fa.py", "f", "assert has_device_capability(90)", "AssertionError", Cause::GpuUnsupported);
        let unfit = "NotImplementedError: int3 is new";
        check(
            "/v/vllm/model_executor/layers/quantization/x.py",
            "f",
            "raise NotImplementedError(",
            unfit,
            ModelUnsupported,
        );
        check("/v/vllm/v1/attention/backends/x.py", "f", "raise NotImplementedError(", unfit, BadArgument);
        check("/v/vllm/v1/attention/backends/x.py", "f", "self.kernel()", "RuntimeError: new", EngineBug);
        check("/v/torch/distributed/store.py", "f", "raise RuntimeError(", "RuntimeError: new", Cause::Nccl);
        check(
            "/v/flashinfer/jit/x.py",
            "f",
            "raise RuntimeError(",
            "RuntimeError: new",
            Cause::GpuUnsupported,
        );
        check("/v/x/y.py", "<module>", "torch.int1", "AttributeError: 'x' has no 'int1'", BrokenInstall);
        check("/v/l/layernorm.py", "forward", "x.activation", "AttributeError: 'X' has no 'y'", EngineBug);
    }

    #[test]
    fn code_below_a_frame_is_quoted() {
        let log = [
            ("Traceback (most recent call last):", false),
            ("  File \"/v/config.py\", line 9, in get_config", false),
            ("    f(self.model, trust_remote_code, revision,", true),
            ("      x[0] = ^^^^^^^", true),
            ("  File \"/v/config.py\", line 10, in g", false),
            ("ValueError: trust_remote_code", false),
            ("    indented, but below no frame", false),
            ("ERROR 11-22 12:00:00 [core.py:1]   File \"/v/x.py\", line 9, in f", false),
            ("ERROR 11-22 12:00:00 [core.py:1]     trust_remote_code", true),
            ("ERROR 11-22 12:00:00 [core.py:1] ValueError: x", false),
        ];
        let mut frames = Frames::default();
        for (line, expected) in log {
            assert_eq!(frames.take(line), expected, "{line}");
        }
    }

    #[test]
    fn only_what_says_little_is_read_by_its_frames() {
        let named = engine::ENTRIES.iter().find(|entry| entry.cause == Cause::Hang).expect("one");
        let lines = [Cow::Borrowed("File \"x\", line 1, in load_weights"), Cow::Borrowed("TimeoutError")];
        assert_eq!(cause(named, &lines, 1), None);
    }
}
