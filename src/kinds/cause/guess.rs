//! Which engine wrote a log, where its lines tell.
use crate::kinds::Kind;

const VLLM: &[&str] = &[
    "(EngineCore",
    "(APIServer pid=",
    "vLLM API server",
    "/vllm/",
    "vllm.",
    "vllm:",
    "VllmWorker",
    "vllm serve",
];
const OLLAMA: &[&str] = &[
    "[GIN]",
    " level=INFO source=",
    " level=WARN source=",
    " level=ERROR source=",
    " ollama[",
    "ollama.com/ollama",
    "llama runner process",
    "ollama serve",
];
const LLAMA: &[&str] = &[
    "llama-server",
    "llama_server",
    "llama_model_load",
    "srv  ",
    "slot launch_slot_",
    "main: server is listening",
    "gguf_init_from_",
    "common_init_",
];

/// The engine whose marks the lines carry; `None` when there are none, or those of several engines. A llama-server that
/// Ollama started writes into Ollama's log, so its marks count only where Ollama left none.
pub fn guess(lines: &[&str]) -> Option<Kind> {
    let carry = |marks: &[&str]| lines.iter().any(|line| marks.iter().any(|mark| line.contains(mark)));
    match (carry(VLLM), carry(OLLAMA), carry(LLAMA)) {
        (true, false, false) => Some(Kind::Vllm),
        (false, true, _) => Some(Kind::Ollama),
        (false, false, true) => Some(Kind::LlamaServer),
        (true, true, _) | (true, false, true) | (false, false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_known_by_its_marks() {
        let vllm = "(EngineCore_DP0 pid=7) INFO 11-22 12:00:00 [core.py:1] x";
        let ollama = "time=2026-11-22T12:00:00Z level=INFO source=routes.go:1 msg=x";
        let llama = "srv  llama_server: model loaded";
        assert_eq!(guess(&[vllm]), Some(Kind::Vllm));
        assert_eq!(guess(&[llama]), Some(Kind::LlamaServer));
        assert_eq!(guess(&[llama, ollama]), Some(Kind::Ollama));
        assert_eq!(guess(&[vllm, llama]), None);
        assert_eq!(guess(&["CUDA error: out of memory"]), None);
        assert_eq!(guess(&[]), None);
    }
}
