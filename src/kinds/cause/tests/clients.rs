//! A prompt may say anything. In an engine that logs requests it explains no end, and hides none.
use super::*;

const PROMPT: &str = "Explain: torch.OutOfMemoryError: CUDA out of memory; NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off \
    the bus; model is corrupted; Memory cgroup out of memory: Killed process 7";

struct Talk {
    kind: Kind,
    /// The engine is ready, and has logged the prompt and its answer.
    log: String,
    /// What it says when it really dies, and of what.
    end: (&'static str, Cause, &'static str),
}

fn talks() -> Vec<Talk> {
    let kind = Kind::Vllm;
    let ready = "INFO:     Application startup complete.\n";
    let cuda = "(EngineCore pid=9) ERROR 11-23 04:15:25 [core.py:1] torch.AcceleratorError: CUDA error: an illegal memory \
                access was encountered";
    let vllm = [
        format!(
            "(APIServer pid=7) INFO 11-23 04:15:20 [logger.py:43] Received request cmpl-1: prompt: '{PROMPT}', params: \
             SamplingParams(n=1), prompt_token_ids: [1, 2], lora_request: None.\n"
        ),
        format!(
            "(APIServer pid=7) DEBUG 11-23 04:15:20 [logger.py:51] Request chatcmpl-1 details: prompt: \"{PROMPT}\"\n\
             (APIServer pid=7) INFO 11-23 04:15:21 [logger.py:71] Generated response chatcmpl-1: output: '{PROMPT}'\n"
        ),
        format!(
            "{{\"timestamp\":\"x\",\"level\":\"INFO\",\"message\":\"Received request cmpl-1: prompt: '{PROMPT}'\"}}\n"
        ),
        format!("{{'model': 'm', 'messages': [{{'role': 'user', 'content': '{PROMPT}'}}]}}\n"),
    ];
    let llama = "srv  llama_server: listening on http://127.0.0.1:1\n";
    let assert = "/src/ggml/src/ggml-backend.cpp:1723: GGML_ASSERT(n_inputs < 30) failed";
    let quoted =
        format!("0.10.929.937 D srv  params: request:  {{\"messages\":[{{\"content\":\"{PROMPT}\"}}]}}\n");
    let lines = PROMPT.replace("; ", "\n");
    let raw =
        format!("0.10.929.937 D srv  format: <|user|>\n{lines}\n0.10.930.000 I slot launch_slot_: id 0\n");
    let raw_last = format!("0.10.929.937 D srv  format: <|user|>\n{lines}\n");
    let ollama =
        "time=x level=INFO source=routes.go:1 msg=\"Listening on 127.0.0.1:11434 (version 0.33.0)\"\n";
    let panic = "panic: runtime error: invalid memory address or nil pointer dereference";
    let chat =
        format!("time=x level=DEBUG source=routes.go:1 msg=\"chat request\" images=0 prompt=\"{PROMPT}\"\n");
    let served = "[GIN] 2026/11/22 - 12:00:00 | 200 |  1.2ms | 127.0.0.1 | POST \"/api/chat\"\n";

    let talk = |kind, log, end| Talk { kind, log, end };
    let vllm = vllm
        .into_iter()
        .map(|log| talk(kind, format!("{ready}{log}"), (cuda, Cause::CudaFault, "illegal memory")));
    let llama = [quoted, raw, raw_last].map(|log| {
        talk(Kind::LlamaServer, format!("{llama}{log}"), (assert, Cause::EngineBug, "GGML_ASSERT"))
    });
    let ollama = talk(Kind::Ollama, format!("{ollama}{chat}{served}"), (panic, Cause::EngineBug, "panic"));
    vllm.chain(llama).chain([ollama]).collect()
}

fn of_run(kind: Kind, exit: Exit, log: &str) -> Diagnosis {
    let lines: Vec<&str> = log.lines().collect();
    diagnose(&Evidence { was_ready: true, ..evidence(Some(kind), Some(exit), &lines) })
}

#[test]
fn a_prompt_is_no_cause_of_a_kill() {
    for Talk { kind, log, .. } in talks() {
        let killed = of_run(kind, Exit::Signal(9), &log);
        assert_eq!(
            (killed.cause, killed.deterministic),
            (Cause::KilledFromOutside, None),
            "{log}\n{killed:#?}"
        );
        let failed = of_run(kind, Exit::Code(1), &log);
        assert_eq!((failed.cause, failed.deterministic), (Cause::Unknown, None), "{log}\n{failed:#?}");
    }
}

#[test]
fn a_prompt_hides_no_cause() {
    for Talk { kind, log, end: (line, cause, holds) } in talks() {
        let found = of_run(kind, Exit::Signal(6), &format!("{log}{line}"));
        assert_eq!(found.cause, cause, "{log}\n{found:#?}");
        assert!(found.evidence.as_deref().unwrap_or_default().contains(holds), "{found:#?}");
    }
}

/// Where the log does not tell whose words they are, their form does.
#[test]
fn words_in_no_form_of_a_message_explain_no_kill_and_stand_behind_a_message() {
    let said = "my GPU says CUDA out of memory all day";
    assert_eq!(of_run(Kind::Vllm, Exit::Signal(9), said).cause, Cause::KilledFromOutside);
    let both = format!(
        "{said}\nValueError: max_num_seqs\nRuntimeError: CUDA error: an illegal memory access was encountered"
    );
    assert_eq!(of_run(Kind::Vllm, Exit::Code(1), &both).cause, Cause::CudaFault);
    assert_eq!(of_run(Kind::Vllm, Exit::Code(1), said).cause, Cause::GpuOom);
}

/// The engine lived on after it, so it did not die of it; and not of what it says again.
#[test]
fn what_was_said_before_a_healthy_while_explains_nothing() {
    let said = "ERROR 11-23 04:15:25 [x.py:1] RuntimeError: CUDA out of memory";
    let life = "INFO 11-23 04:16:00 [loggers.py:1] Engine 000: Running: 1 reqs\n".repeat(2 * BURST_GAP);
    let again = format!("INFO:     Application startup complete.\n{said}\n{life}{said}");
    assert_eq!(of_run(Kind::Vllm, Exit::Signal(9), &again).cause, Cause::KilledFromOutside);
    let once = format!("INFO:     Application startup complete.\n{life}{said}");
    assert_eq!(of_run(Kind::Vllm, Exit::Signal(9), &once).cause, Cause::GpuOom);
    let broken = format!("NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus.\n{again}");
    assert_eq!(
        of_run(Kind::Vllm, Exit::Signal(9), &broken).cause,
        Cause::KilledFromOutside,
        "a run long healthy"
    );
}
