//! Does an engine that has started compute on the CPU? Its log says what it found and where it put its layers.
use super::{client, line, readable};
use crate::kinds::Kind;

/// What a model is computed on, as far as its engine shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    Gpu,
    /// With what shows that.
    Cpu {
        evidence: String,
    },
}

impl Device {
    /// `used` of `all` layers or bytes are on a GPU. With less than a tenth there, it is the CPU that works.
    pub(in crate::kinds) fn of_share(used: u64, all: u64, evidence: impl FnOnce() -> String) -> Self {
        if u128::from(used) * 10 < u128::from(all) { Self::Cpu { evidence: evidence() } } else { Self::Gpu }
    }
}

/// What the log of a start tells of that; `None`: nothing.
pub fn device(kind: Kind, lines: &[&str]) -> Option<Device> {
    let mut reading = client::Continuation::default();
    let mut seen = Seen::default();
    for whole in lines {
        let plain = client::without_requests(line::bare(whole));
        if !reading.take(&plain) {
            seen.take(kind, without_clock(&plain), whole);
        }
    }
    seen.device()
}

/// What a log has said so far. The more exact kind of line decides, among those of a kind the last: a model may be loaded
/// twice, first to measure it.
#[derive(Default)]
struct Seen {
    /// How many layers were put on a GPU.
    layers: Option<Device>,
    /// A GPU was found, or given memory.
    gpu: bool,
    /// The engine says itself that it has none.
    refusal: Option<String>,
    /// Weights went into the host's memory, and then the rest was allocated: no GPU was given any.
    weights: Option<String>,
    allocated: bool,
}

impl Seen {
    fn take(&mut self, kind: Kind, said: &str, whole: &str) {
        match kind {
            Kind::LlamaServer => self.take_ggml(said, whole),
            Kind::Ollama => {
                self.take_ggml(said, whole);
                if let Some((_, library)) = said
                    .split_once("msg=\"inference compute\"")
                    .and_then(|(_, rest)| rest.split_once(" library="))
                {
                    self.found(library.split(' ').next().unwrap_or_default(), whole);
                }
            }
            Kind::Vllm => {
                if let Some((_, platform)) = said.split_once("] Automatically detected platform ") {
                    self.found(platform.trim_end_matches('.'), whole);
                } else if let Some((_, config)) = said.split_once(" LLM engine (v")
                    && let Some((_, device)) = config.split_once(" device_config=")
                {
                    self.found(device.split([',', ' ']).next().unwrap_or_default(), whole);
                }
            }
            Kind::Remote(_) => {}
        }
    }

    fn found(&mut self, device: &str, whole: &str) {
        if device.eq_ignore_ascii_case("cpu") {
            self.refusal.get_or_insert_with(|| readable(whole));
        } else {
            self.gpu = true;
        }
    }

    /// llama.cpp's lines, which Ollama's runner prints too.
    fn take_ggml(&mut self, said: &str, whole: &str) {
        if let Some((on_gpu, all)) = offloaded(said) {
            self.layers = Some(Device::of_share(on_gpu, all, || readable(whole)));
        } else if says_none(said) {
            self.refusal.get_or_insert_with(|| readable(whole));
        } else if let Some(buffer) = buffer(said, " model buffer size ") {
            if is_of_host(buffer) {
                self.weights.get_or_insert_with(|| readable(whole));
            } else {
                self.gpu = true;
            }
        } else if buffer(said, " compute buffer size ").is_some() {
            self.allocated = true;
        }
    }

    fn device(self) -> Option<Device> {
        let cpu = |evidence| Device::Cpu { evidence };
        let gpu = self.gpu.then_some(Device::Gpu);
        self.layers.or(gpu).or(self.refusal.map(cpu)).or(self.weights.filter(|_| self.allocated).map(cpu))
    }
}

/// `load_tensors: offloaded 33/33 layers to GPU`, or the same in Ollama's `msg="…"`.
fn offloaded(said: &str) -> Option<(u64, u64)> {
    let (before, rest) = said.split_once("offloaded ")?;
    let is_message = before.ends_with("load_tensors: ") || before.ends_with("msg=\"");
    let (count, _) = rest.split_once(" layers to GPU").filter(|_| is_message)?;
    let (on_gpu, all) = count.split_once('/')?;
    Some((on_gpu.parse().ok()?, all.parse().ok()?))
}

fn says_none(said: &str) -> bool {
    (said.starts_with("warning: ") && said.contains("gpu-layers option will be ignored"))
        || said.starts_with("ggml_cuda_init: failed to initialize ")
}

/// `load_tensors:   CPU_Mapped model buffer size =     2.75 MiB` → "CPU_Mapped".
fn buffer<'a>(said: &'a str, what: &str) -> Option<&'a str> {
    let (speaker, rest) = said.split_once(": ")?;
    let (name, _) = rest.split_once(what)?;
    let name = name.trim();
    let is_word = |text: &str| !text.is_empty() && !text.contains(' ');
    (is_word(speaker) && is_word(name)).then_some(name)
}

/// Is this buffer in the host's memory? (Memory that a GPU can reach as well is none of the weights' that it computes.)
fn is_of_host(buffer: &str) -> bool {
    ["CPU", "AMX", "BLAS", "Host"].iter().any(|name| buffer.starts_with(name)) || buffer.ends_with("_Host")
}

/// llama-server may put a clock and a level before its words.
fn without_clock(line: &str) -> &str {
    let is_clock = |word: &str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(clock), Some("D" | "I" | "W" | "E"), Some(rest)) if is_clock(clock) => rest,
        (Some("D" | "I" | "W" | "E"), Some(_), _) => &line[2..],
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, lines: &[&str], expected: Option<Option<&str>>) {
        let found = device(kind, lines).map(|device| match device {
            Device::Gpu => None,
            Device::Cpu { evidence } => Some(evidence),
        });
        assert_eq!(found.as_ref().map(Option::as_deref), expected, "{lines:?}");
    }

    const CPU_BUFFER: &str = "0.00.164.810 I load_tensors:   CPU_Mapped model buffer size =     2.75 MiB";
    const COMPUTE: &str = "0.00.200.111 I sched_reserve:        CPU compute buffer size =     8.01 MiB";

    #[test]
    fn llama_server_says_where_its_layers_went() {
        let kind = Kind::LlamaServer;
        for cpu in [
            "load_tensors: offloaded 0/33 layers to GPU",
            "0.00.038.593 I load_tensors: offloaded 0/13 layers to GPU",
            "llm_load_tensors: offloaded 3/33 layers to GPU",
            "warning: no usable GPU found, --gpu-layers option will be ignored",
            "warning: not compiled with GPU offload support, --gpu-layers option will be ignored",
            "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
            "E ggml_cuda_init: failed to initialize CUDA: unknown error",
        ] {
            check(kind, &[cpu], Some(Some(cpu)));
        }
        check(kind, &[CPU_BUFFER, COMPUTE], Some(Some(CPU_BUFFER)));
        for gpu in
            ["load_tensors: offloaded 33/33 layers to GPU", "load_tensors: offloaded 4/33 layers to GPU"]
        {
            check(kind, &[gpu, CPU_BUFFER, COMPUTE], Some(None));
        }
        // CUDA has failed, and Vulkan works.
        let [failed, works] = [
            "ggml_cuda_init: failed to initialize CUDA: unknown error",
            "load_tensors: offloaded 33/33 layers to GPU",
        ];
        check(kind, &[failed, works], Some(None));
        check(
            kind,
            &[CPU_BUFFER, "load_tensors:      Vulkan0 model buffer size = 934.69 MiB", COMPUTE],
            Some(None),
        );
    }

    #[test]
    fn what_is_still_being_loaded_or_said_by_a_client_shows_nothing() {
        check(Kind::LlamaServer, &[CPU_BUFFER], None);
        for line in [
            "srv  log: prompt: load_tensors: offloaded 0/33 layers to GPU",
            r#"srv  request: {"messages":[{"content":"warning: no usable GPU found, --gpu-layers option will be ignored"}]}"#,
            "people say: offloaded 0/33 layers to GPU",
            "why does it print no usable GPU found, --gpu-layers option will be ignored",
            "load_tensors: offloaded some layers to GPU",
            "load_tensors: offloading 0 repeating layers to GPU",
            "",
        ] {
            check(Kind::LlamaServer, &[line, COMPUTE], None);
            check(Kind::Ollama, &[line, COMPUTE], None);
        }
        check(Kind::Vllm, &["load_tensors: offloaded 0/33 layers to GPU"], None);
    }

    #[test]
    fn ollama_lists_what_it_has_found() {
        let compute = |id: &str, library: &str| {
            format!(
                "time=2026-11-23T03:50:22.194Z level=INFO source=types.go:50 msg=\"inference compute\" id={id} \
                 library={library} compute=\"\" name={library}"
            )
        };
        let (cpu, gpu) = (compute("cpu", "cpu"), compute("GPU-8f6e", "CUDA"));
        check(Kind::Ollama, &[&cpu], Some(Some(&cpu)));
        check(Kind::Ollama, &[&cpu, &gpu], Some(None));
        // It has found one, and the model has no room on it.
        let none = "load_tensors: offloaded 0/33 layers to GPU";
        check(Kind::Ollama, &[&gpu, none], Some(Some(none)));
        let go = "time=2026-11-23T03:50:22.194Z level=INFO source=ggml.go:494 msg=\"offloaded 0/29 layers to GPU\"";
        check(Kind::Ollama, &[&gpu, go], Some(Some(go)));
    }

    #[test]
    fn vllm_names_its_platform() {
        let platform = |name: &str| {
            format!("INFO 05-14 17:28:14 [__init__.py:239] Automatically detected platform {name}.")
        };
        check(Kind::Vllm, &[&platform("cpu")], Some(Some(&platform("cpu"))));
        check(Kind::Vllm, &[&platform("cuda")], Some(None));
        let engine = "(EngineCore pid=9) INFO 08-02 09:46:46 [core.py:77] Initializing a V1 LLM engine (v0.10.1) with config: \
                      model='m', kv_cache_dtype=auto, device_config=cpu, seed=0";
        check(Kind::Vllm, &[engine], Some(Some(engine)));
        check(Kind::Vllm, &[&engine.replace("=cpu", "=cuda")], Some(None));
    }
}
