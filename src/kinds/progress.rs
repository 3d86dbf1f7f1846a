//! What a starting engine is doing, read from its log. For people only: no decision hangs on a stage, because any
//! line at all is a sign of life.
use super::Kind;

/// Where a start stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// A phrase that completes "is …".
    pub stage: &'static str,
    /// Of this stage, 0–100; `None` when the line does not say.
    pub percent: Option<u8>,
}

/// A stage is recognised by the first needle that its line contains. Order matters: the more telling one first.
type Stages = &'static [(&'static str, &'static str)];

const VLLM: Stages = &[
    ("Application startup complete", "ready"),
    ("Starting vLLM", "opening its endpoint"),
    ("init engine (", "opening its endpoint"),
    ("Capturing CUDA graph", "capturing CUDA graphs"),
    ("Graph capturing finished", "capturing CUDA graphs"),
    ("Available KV cache memory", "allocating the KV cache"),
    ("GPU KV cache size", "allocating the KV cache"),
    ("Maximum concurrency for", "allocating the KV cache"),
    ("Dynamo bytecode transform time", "compiling"),
    ("Compiling a graph for", "compiling"),
    ("torch.compile t", "compiling"),
    ("Time spent downloading weights", "loading weights"),
    ("checkpoint shards:", "loading weights"),
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "loading weights"),
    ("Model loading took", "loading weights"),
    ("Downloading", "downloading weights"),
    ("Fetching", "downloading weights"),
    ("LLM engine (v", "starting its engine core"),
    ("server version", "reading its configuration"),
    ("non-default args:", "reading its configuration"),
];

const LLAMA_SERVER: Stages = &[
    ("listening on", "ready"),
    ("model loaded", "opening its endpoint"),
    ("KV buffer size", "allocating the KV cache"),
    ("compute buffer size", "allocating the KV cache"),
    ("llama_context", "allocating the KV cache"),
    ("layers to GPU", "loading weights"),
    ("model buffer size", "loading weights"),
    ("load_tensors:", "loading weights"),
    ("loading model", "loading weights"),
    ("download", "downloading weights"),
];

const OLLAMA: Stages = &[
    ("llama-server started in", "ready"),
    ("runner started in", "ready"),
    ("KV buffer size", "allocating the KV cache"),
    ("compute buffer size", "allocating the KV cache"),
    ("layers to GPU", "loading weights"),
    ("load_tensors:", "loading weights"),
    ("to become available", "loading weights"),
    ("waiting for llama", "loading weights"),
    ("msg=\"starting llama-server", "loading weights"),
    ("msg=\"starting runner", "loading weights"),
    ("pulling", "downloading weights"),
    ("downloading", "downloading weights"),
    ("inference compute", "looking for GPUs"),
    ("Listening on", "looking for GPUs"),
    ("server config", "reading its configuration"),
];

/// What this line of a starting engine's log tells; `None` when nothing.
pub fn progress(kind: Kind, line: &str) -> Option<Progress> {
    let stages = match kind {
        Kind::Vllm => VLLM,
        Kind::LlamaServer => LLAMA_SERVER,
        Kind::Ollama => OLLAMA,
        Kind::Remote(_) => return None,
    };
    // tqdm redraws its bar after a carriage return: only the last drawing is news.
    let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line);
    let (_, stage) = stages.iter().find(|(needle, _)| line.contains(needle))?;
    Some(Progress { stage, percent: percent(line) })
}

/// The last `N%` of a line.
fn percent(line: &str) -> Option<u8> {
    let before = &line[..line.rfind('%')?];
    let digits = before.rfind(|c: char| !c.is_ascii_digit()).map_or(before, |at| &before[at + 1..]);
    digits.parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Api;

    #[track_caller]
    fn check(kind: Kind, line: &str, stage: &str, percent: Option<u8>) {
        let found = progress(kind, line).unwrap_or_else(|| panic!("nothing in: {line}"));
        assert_eq!((found.stage, found.percent), (stage, percent), "{line}");
    }

    #[test]
    fn vllm_says_where_it_stands() {
        let check = |line, stage, percent| check(Kind::Vllm, line, stage, percent);
        check(
            "(APIServer pid=7) INFO 11-22 12:00:00 [api_server.py:1] vLLM API server version 0.32.0",
            "reading its configuration",
            None,
        );
        check(
            "INFO 11-22 [core.py:77] Initializing a V1 LLM engine (v0.32.0) with config: model='x'",
            "starting its engine core",
            None,
        );
        check("INFO 11-22 [gpu_model_runner.py:1] Starting to load model tiny...", "loading weights", None);
        check(
            "Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:01<00:02,  1.5it/s]",
            "loading weights",
            Some(40),
        );
        check(
            "\rLoading safetensors checkpoint shards:   0%\rLoading safetensors checkpoint shards: 100%\r",
            "loading weights",
            Some(100),
        );
        check("INFO [backends.py:1] Dynamo bytecode transform time: 5.91 s", "compiling", None);
        check("INFO [gpu_worker.py:1] Available KV cache memory: 12.01 GiB", "allocating the KV cache", None);
        check(
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  55%|#####5    | 37/67",
            "capturing CUDA graphs",
            Some(55),
        );
        check(
            "INFO [core.py:1] init engine (profile, create kv cache, warmup model) took 22.11 s",
            "opening its endpoint",
            None,
        );
        check("INFO:     Application startup complete.", "ready", None);
    }

    #[test]
    fn llama_server_and_ollama_say_where_they_stand() {
        check(Kind::LlamaServer, "srv    load_model: loading model '/m/x.gguf'", "loading weights", None);
        check(Kind::LlamaServer, "load_tensors: offloaded 33/33 layers to GPU", "loading weights", None);
        check(
            Kind::LlamaServer,
            "llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB",
            "allocating the KV cache",
            None,
        );
        check(
            Kind::LlamaServer,
            "main: server is listening on http://127.0.0.1:8080 - starting the main loop",
            "ready",
            None,
        );
        check(
            Kind::Ollama,
            "level=INFO source=routes.go:1 msg=\"Listening on 127.0.0.1:11434 (version 0.33.0)\"",
            "looking for GPUs",
            None,
        );
        check(
            Kind::Ollama,
            "level=INFO msg=\"starting llama-server\" cmd=\"/usr/lib/ollama/llama-server --model x\"",
            "loading weights",
            None,
        );
        check(Kind::Ollama, "level=INFO msg=\"llama-server started in 0.27 seconds\"", "ready", None);
    }

    #[test]
    fn a_line_that_tells_nothing_is_nothing() {
        assert_eq!(progress(Kind::Vllm, "INFO 11-22 [x.py:1] hello 40%"), None);
        assert_eq!(progress(Kind::Remote(Api::OpenAi), "Application startup complete"), None);
        check(Kind::Vllm, "Capturing CUDA graphs: 900%", "capturing CUDA graphs", None);
        check(Kind::Vllm, "Capturing CUDA graphs: %", "capturing CUDA graphs", None);
    }
}
