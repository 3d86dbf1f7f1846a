use super::*;

mod clients;
mod totality;

pub(super) fn diagnosis(kind: Option<Kind>, exit: Option<Exit>, log: &str) -> Diagnosis {
    let lines: Vec<&str> = log.lines().collect();
    diagnose(&evidence(kind, exit, &lines))
}

/// A run of which it is known that nobody asked for its end.
fn evidence<'a>(kind: Option<Kind>, exit: Option<Exit>, lines: &'a [&'a str]) -> Evidence<'a> {
    Evidence { kind, exit, asked: Some(false), was_ready: false, out_of_memory: None, survived: 0, lines }
}

#[track_caller]
fn check(kind: Kind, exit: Exit, log: &str, cause: Cause, deterministic: Option<bool>, holds: &str) {
    let found = diagnosis(Some(kind), Some(exit), log);
    assert_eq!((found.cause, found.deterministic), (cause, deterministic), "{found:#?}");
    assert!(found.evidence.as_deref().unwrap_or_default().contains(holds), "{found:#?}");
    if let Some(line) = found.line {
        assert!(log.lines().nth(line).unwrap().contains(holds), "{found:#?}");
    }
}

/// A kind whose logs this entry is looked for in.
fn kind_of(entry: &Entry) -> Kind {
    let kinds = [Kind::Vllm, Kind::LlamaServer, Kind::Ollama];
    kinds.into_iter().find(|kind| entry.engines.hold(Some(*kind))).unwrap()
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    catalogue().parts.iter().flat_map(|part| part.entries.iter().copied())
}

#[test]
fn every_entry_is_reached_by_its_sample() {
    for entry in entries() {
        let found = catalogue().first(Some(kind_of(entry)), entry.sample);
        let found = found.unwrap_or_else(|| panic!("nothing known about: {}", entry.sample));
        assert_eq!(found.patterns, entry.patterns, "another entry takes: {}", entry.sample);
    }
}

#[test]
fn every_sample_alone_is_diagnosed_as_its_cause() {
    for entry in entries() {
        let found = diagnosis(Some(kind_of(entry)), None, entry.sample);
        assert_eq!(found.cause, entry.cause, "{}: {found:#?}", entry.sample);
    }
}

#[test]
fn every_cause_that_a_log_can_show_has_an_entry() {
    for cause in Cause::ALL {
        let has_one = entries().any(|entry| entry.cause == *cause && entry.weight != Weight::Benign);
        let needs_none = matches!(cause, Cause::Asked | Cause::None | Cause::Unknown);
        assert_ne!(has_one, needs_none, "{cause:?}");
    }
}

#[test]
fn every_cause_has_something_to_do_about_it() {
    for cause in Cause::ALL {
        let counsel = advice::on(*cause);
        assert!(!counsel.action.is_empty() && !counsel.advice.is_empty(), "{cause:?}");
        assert!(counsel.advice.len() < 160, "{cause:?}");
    }
}

/// facts/real-engines.md: what the real llama-server said.
#[test]
fn llama_servers_failures_are_told_apart_by_their_lines() {
    let check = |log, cause, holds| check(Kind::LlamaServer, Exit::Code(1), log, cause, Some(true), holds);
    check(
        "gguf_init_from_file: failed to open GGUF file 'models/nope.gguf' (No such file or directory)\n\
         llama_model_load: error loading model: llama_model_loader: failed to load model from models/nope.gguf\n\
         llama_model_load_from_file_impl: failed to load model\n\
         cmn  common_init_: failed to load model 'models/nope.gguf'\n\
         srv    load_model: failed to load model, 'models/nope.gguf'\n\
         srv  llama_server: exiting due to model loading error",
        Cause::ModelMissing,
        "failed to open GGUF file",
    );
    check(
        "gguf_init_from_file_impl: invalid magic characters: 'this', expected 'GGUF'\n\
         llama_model_load: error loading model: llama_model_loader: failed to load model from x.gguf\n\
         srv  llama_server: exiting due to model loading error",
        Cause::ModelCorrupt,
        "invalid magic",
    );
    check(
        "llama_model_load: error loading model: tensor 'blk.0.ffn_down.weight' data is not within the file bounds, model is corrupted or incomplete\n\
         srv  llama_server: exiting due to model loading error",
        Cause::ModelCorrupt,
        "not within the file bounds",
    );
    check("error: invalid argument: --no-such-flag", Cause::BadArgument, "--no-such-flag");
    check(
        "error while handling argument \"-c\": stoi\n\nusage:\n-c, --ctx-size N",
        Cause::BadArgument,
        "stoi",
    );
    check(
        "failed to initialize router models: subprocess is not enabled on this build",
        Cause::BadArgument,
        "router models",
    );
    super::tests::check(
        Kind::LlamaServer,
        Exit::Code(1),
        "srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18201\n\
         srv  llama_server: exiting due to HTTP server error",
        Cause::PortInUse,
        Some(false),
        "18201",
    );
}

/// facts/real-engines.md: what the real vLLM said.
#[test]
fn vllms_failures_to_start_are_told_apart() {
    let start = "(APIServer pid=7) INFO 11-22 12:00:00 [api_server.py:1] vLLM API server version 0.32.0\nTraceback (most recent call last):\n  File \"/v/bin/vllm\", line 8, in <module>\n";
    let check = |code, line: &str, cause, deterministic, holds| {
        check(Kind::Vllm, Exit::Code(code), &format!("{start}{line}"), cause, deterministic, holds);
    };
    check(
        2,
        "usage: vllm serve [model_tag] [options]\nvllm: error: unrecognized arguments: --no-such-flag",
        Cause::BadArgument,
        Some(true),
        "--no-such-flag",
    );
    check(2, "usage: vllm serve [model_tag] [options]", Cause::BadArgument, Some(true), "exit 2");
    check(
        1,
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': 'models/nope'. Use `repo_type`",
        Cause::ModelMissing,
        Some(true),
        "models/nope",
    );
    check(
        1,
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified revision",
        Cause::ModelMissing,
        Some(true),
        "cached snapshot",
    );
    check(
        1,
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len",
        Cause::BadArgument,
        Some(true),
        "max_model_len",
    );
    check(1, "OSError: [Errno 98] Address already in use", Cause::PortInUse, Some(false), "Errno 98");
    check(
        1,
        "(Worker pid=9) ERROR 11-22 12:00:00 [multiproc_executor.py:1] WorkerProc failed to start.\n\
         (Worker pid=9) ERROR 11-22 12:00:00 [multiproc_executor.py:1] safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered\n\
         (EngineCore pid=8) ERROR 11-22 12:00:00 [core.py:1] EngineCore failed to start.\n\
         RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
        Cause::ModelCorrupt,
        Some(true),
        "SafetensorError",
    );
    check(
        1,
        "(Worker pid=9) ERROR 11-22 [x.py:1] Available memory on node 0 (20.1/24.0 GiB) on kv cache allocation is less than requested memory for kv (400.0 GiB).\n\
         RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        Cause::HostOom,
        None,
        "Available memory on node",
    );
}

/// vLLM 0.32 after `kill -9` of its EngineCore, without the frames of its tracebacks.
const CORE_KILLED: &str = "\
(APIServer pid=7) INFO 11-23 01:25:56 [utils.py:628] [shutdown] Process manager: send sigterm to process EngineCore
(APIServer pid=7) WARNING 11-23 01:25:56 [core_client.py:817] [shutdown] MPClient: engine core exited unexpectedly; starting cleanup
(APIServer pid=7) INFO 11-23 01:25:56 [core_client.py:777] [shutdown] MPClient: complete
(APIServer pid=7) ERROR 11-23 01:25:56 [async_llm.py:906] AsyncLLM output_handler failed.
(APIServer pid=7) ERROR 11-23 01:25:56 [async_llm.py:906] Traceback (most recent call last):
(APIServer pid=7) ERROR 11-23 01:25:56 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
(APIServer pid=7) ERROR 11-23 01:25:56 [serving.py:500] Error in completion stream generator.
INFO:     Shutting down
INFO:     Application shutdown complete.
INFO:     Finished server process [7]
/v/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects to clean up at shutdown";

#[test]
fn the_end_of_vllms_core_is_a_failure_although_it_exits_with_0() {
    check(Kind::Vllm, Exit::Code(0), CORE_KILLED, Cause::KilledFromOutside, None, "exited unexpectedly");
    let own_fault = format!(
        "(EngineCore pid=8) ERROR 11-22 12:00:00 [core.py:1] EngineCore encountered a fatal error.\n\
         (EngineCore pid=8) ERROR 11-22 12:00:00 [core.py:1] KeyError: 'x'\n{CORE_KILLED}"
    );
    check(Kind::Vllm, Exit::Code(0), &own_fault, Cause::EngineBug, None, "KeyError");
    let gpu = format!(
        "(EngineCore pid=8) ERROR 11-22 12:00:00 [core.py:1] EngineCore encountered a fatal error.\n\
         (EngineCore pid=8) ERROR 11-22 12:00:00 [core.py:1] torch.AcceleratorError: CUDA error: an illegal memory access was encountered\n\
         Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n{CORE_KILLED}"
    );
    check(Kind::Vllm, Exit::Code(0), &gpu, Cause::CudaFault, Some(false), "illegal memory access");
}

#[test]
fn ollamas_failures_to_start_are_told_apart() {
    let check = |line, cause, deterministic, holds| {
        check(Kind::Ollama, Exit::Code(1), line, cause, deterministic, holds)
    };
    check(
        "Error: listen tcp 127.0.0.1:18434: bind: address already in use",
        Cause::PortInUse,
        Some(false),
        "18434",
    );
    check(
        "Error: listen tcp 10.9.9.9:18434: bind: cannot assign requested address",
        Cause::BadArgument,
        Some(true),
        "10.9.9.9",
    );
    check("Error: $HOME is not defined", Cause::BadArgument, Some(true), "HOME");
    check(
        "Error: could not create directory mkdir /x/.ollama: permission denied",
        Cause::Permission,
        Some(true),
        "mkdir",
    );
    check(
        "Error: mkdir /x: permission denied: ensure path elements are traversable",
        Cause::Permission,
        Some(true),
        "traversable",
    );
    check("Error: unknown flag: --nope", Cause::BadArgument, Some(true), "--nope");
}

#[test]
fn a_signal_that_nothing_explains_came_from_outside() {
    let serving = "(APIServer pid=7) INFO:     127.0.0.1:5 - \"POST /v1/completions HTTP/1.1\" 200 OK";
    check(Kind::Vllm, Exit::Signal(9), serving, Cause::KilledFromOutside, None, "SIGKILL");
    check(
        Kind::LlamaServer,
        Exit::Signal(15),
        "main: server is listening on http://127.0.0.1:1",
        Cause::KilledFromOutside,
        None,
        "SIGTERM",
    );
    check(
        Kind::LlamaServer,
        Exit::Code(0),
        "srv    operator(): cleaning up before exit...",
        Cause::KilledFromOutside,
        None,
        "cleaning up",
    );
    check(
        Kind::Vllm,
        Exit::Code(0),
        "INFO:     Shutting down\nINFO:     Finished server process [7]",
        Cause::KilledFromOutside,
        None,
        "Shutting down",
    );
    check(
        Kind::LlamaServer,
        Exit::Signal(6),
        "ggml.c:1: GGML_ASSERT(x) failed",
        Cause::EngineBug,
        None,
        "GGML_ASSERT",
    );
    let oom = "kernel: Out of memory: Killed process 4711 (llama-server) total-vm:1kB";
    check(Kind::LlamaServer, Exit::Signal(9), oom, Cause::HostOom, None, "Killed process");
}

#[test]
fn what_was_asked_for_needs_no_explanation() {
    let lines = ["torch.OutOfMemoryError: CUDA out of memory."];
    let killed = evidence(Some(Kind::Vllm), Some(Exit::Signal(9)), &lines);
    assert_eq!(diagnose(&Evidence { asked: Some(true), ..killed }).cause, Cause::Asked);
}

#[test]
fn a_run_that_was_ready_proves_that_the_start_can_work() {
    let lines = ["ModuleNotFoundError: No module named 'x'"];
    let evidence = evidence(Some(Kind::Vllm), Some(Exit::Code(1)), &lines);
    assert_eq!(diagnose(&evidence).deterministic, Some(true));
    assert_eq!(diagnose(&Evidence { was_ready: true, ..evidence }).deterministic, None);
}

#[test]
fn the_earliest_specific_line_of_the_last_burst_wins() {
    let quiet = "llama_perf: nothing to see\n".repeat(BURST_GAP + 1);
    let log = format!(
        "cudaMalloc failed: out of memory\n{quiet}CUDA error: an illegal memory access was encountered\nGGML_ASSERT(x) failed"
    );
    check(Kind::LlamaServer, Exit::Signal(6), &log, Cause::CudaFault, Some(false), "illegal memory access");
    let recovered = format!("CUDA error: an illegal memory access was encountered\n{quiet}");
    check(Kind::LlamaServer, Exit::Signal(9), &recovered, Cause::KilledFromOutside, None, "SIGKILL");
}

#[test]
fn only_the_last_run_of_a_log_counts() {
    let log = "INFO [x] vLLM API server version 0.32.0\nModuleNotFoundError: No module named 'x'\n\
               INFO [x] vLLM API server version 0.32.0\nOSError: [Errno 98] Address already in use";
    check(Kind::Vllm, Exit::Code(1), log, Cause::PortInUse, Some(false), "Errno 98");
}

#[test]
fn errors_stand_before_warnings() {
    let log = "WARNING 11-22 [x.py:1] Failed to import from vllm._C with ImportError('libcudart.so.12: cannot open shared object file')\n\
               ValueError: Free memory on device (5.03/23.64 GiB) on startup is less than desired GPU memory utilization (0.9, 21.27 GiB).";
    check(Kind::Vllm, Exit::Code(1), log, Cause::GpuOom, Some(false), "Free memory");
}

#[test]
fn a_generic_401_does_not_hide_what_the_hub_meant() {
    let generic = "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/org/m/resolve/main/config.json\n";
    let missing = format!(
        "{generic}huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1)"
    );
    check(Kind::Vllm, Exit::Code(1), &missing, Cause::ModelMissing, Some(true), "RepositoryNotFoundError");
    let gated =
        format!("{generic}huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1)");
    check(Kind::Vllm, Exit::Code(1), &gated, Cause::AuthGated, Some(true), "GatedRepoError");
    check(Kind::Vllm, Exit::Code(1), generic, Cause::AuthGated, Some(true), "401");
}

/// Excerpts of healthy engines, with everything in them that looks bad.
#[test]
fn nothing_is_wrong_in_these_lines() {
    for log in [
        "host:71:71 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net.so. Using internal net plugin.\nhost:71:71 [0] NCCL INFO cudaDriverVersion 13000\nhost:71:71 [0] NCCL INFO Call to connect returned Connection refused, retrying",
        "INFO:     Finished server process [7]\n[rank0]:[W1122 12:00:00.1 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not called before program exit, which can leak resources. (function operator())",
        "warning: failed to mlock 1073741824-byte buffer (after previously locking 0 bytes): Cannot allocate memory\nTry increasing RLIMIT_MEMLOCK ('ulimit -l' as root).",
        "llama_params_fit_impl: projected to use 9000 MiB of device memory vs. 8000 MiB of free device memory\nllama_params_fit: failed to fit params to free device memory: n_gpu_layers already set by user to 99, abort\nmain: model loaded",
        "(APIServer pid=7) INFO:     127.0.0.1:5 - \"POST /v1/chat/completions HTTP/1.1\" 500 Internal Server Error\nINFO 11-22 [loggers.py:1] Engine 000: Avg prompt throughput: 0.0 tokens/s, error rate 0",
        "(APIServer pid=7) INFO 11-22 [x.py:1] non-default args: {'error': 'CUDA out of memory'}",
        "srv  update_slots: all slots are idle\nsrv    stop: cancel task, id_task = 0\nsrv    operator(): cleaning up before exit...",
        "time=2026-11-22T12:00:00Z level=INFO source=routes.go:1 msg=\"Listening on 127.0.0.1:11434 (version 0.33.0)\"\n[GIN] 2026/11/22 - 12:00:00 | 500 |  1.2ms | 127.0.0.1 | POST \"/api/chat\"",
        "",
    ] {
        for kind in [None, Some(Kind::Vllm), Some(Kind::LlamaServer), Some(Kind::Ollama)] {
            let found = diagnosis(kind, None, log);
            assert_eq!(found.cause, Cause::None, "{kind:?} {log}\n{found:#?}");
        }
    }
}

#[test]
fn trouble_in_unknown_words_is_unknown() {
    let found = diagnosis(Some(Kind::LlamaServer), None, "fine\nthe flux capacitor failed");
    assert_eq!((found.cause, found.line), (Cause::Unknown, Some(1)));
    let found = diagnosis(Some(Kind::LlamaServer), Some(Exit::Code(1)), "fine");
    assert_eq!((found.cause, found.line), (Cause::Unknown, None));
}

#[test]
fn evidence_is_short_and_plain() {
    let long = format!("\x1b[31mGGML_ASSERT(x) {}\x1b[0m", "ü".repeat(20_000));
    let found = diagnosis(Some(Kind::LlamaServer), Some(Exit::Signal(6)), &long);
    let evidence = found.evidence.unwrap();
    assert!(evidence.starts_with("GGML_ASSERT") && evidence.chars().count() == EVIDENCE_MAX + 1);
}

#[test]
fn an_orderly_end_is_a_fault_only_to_who_knows_that_nobody_asked() {
    for (kind, log) in [
        (Kind::LlamaServer, "srv    operator(): cleaning up before exit..."),
        (Kind::Vllm, "INFO:     Shutting down\nINFO:     Finished server process [7]"),
        (Kind::Ollama, ""),
    ] {
        let lines: Vec<&str> = log.lines().collect();
        let known = evidence(Some(kind), Some(Exit::Code(0)), &lines);
        assert_eq!(diagnose(&known).cause, Cause::KilledFromOutside, "{kind:?}");
        assert_eq!(diagnose(&Evidence { asked: None, ..known }).cause, Cause::None, "{kind:?}");
    }
}

#[test]
fn the_kernels_word_explains_a_kill_and_nothing_else() {
    let word = "memory.events: oom_kill 3 → 4";
    let check = |exit, log: &str, expected| {
        let lines: Vec<&str> = log.lines().collect();
        let heard = Evidence { out_of_memory: Some(word), ..evidence(Some(Kind::Vllm), Some(exit), &lines) };
        let found = diagnose(&heard);
        assert_eq!(found.cause, expected, "{exit:?} {log}");
        assert_eq!(found.evidence.as_deref() == Some(word), expected == Cause::HostOom, "{found:#?}");
    };
    check(Exit::Signal(9), "", Cause::HostOom);
    check(Exit::Code(137), "", Cause::HostOom);
    check(Exit::Code(0), CORE_KILLED, Cause::HostOom);
    check(Exit::Signal(15), "", Cause::KilledFromOutside);
    check(Exit::Code(1), "OSError: [Errno 98] Address already in use", Cause::PortInUse);
    check(Exit::Signal(9), "kernel: NVRM: Xid (PCI:0000:65:00): 79, GPU lost", Cause::GpuHwFault);
}

#[test]
fn frames_and_usage_between_two_lines_do_not_part_them() {
    let usage = "-c,    --ctx-size N        size of the prompt context\n".repeat(4 * BURST_GAP);
    let log = format!("error while handling argument \"-c\": stoi\n{usage}");
    check(Kind::LlamaServer, Exit::Code(1), &log, Cause::BadArgument, Some(true), "stoi");
    let frames =
        "(EngineCore pid=8) ERROR 11-22 [core.py:1]   File \"x.py\", line 1, in f\n".repeat(4 * BURST_GAP);
    let log = format!(
        "torch.OutOfMemoryError: CUDA out of memory.\n{frames}RuntimeError: Engine core initialization failed."
    );
    check(Kind::Vllm, Exit::Code(1), &log, Cause::GpuOom, None, "CUDA out of memory");
}

#[test]
fn what_an_engine_survived_until_it_served_did_not_end_it() {
    let start = "ERROR 11-22 12:00:00 [x.py:1] ModuleNotFoundError: No module named 'triton.x'\n\
                 INFO:     Application startup complete.\n";
    assert_eq!(diagnosis(Some(Kind::Vllm), None, start).cause, Cause::None);
    let broken = "kernel: NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus.\n";
    assert_eq!(diagnosis(None, None, &format!("{broken}{start}")).cause, Cause::GpuHwFault);
    // Ollama serves all the while, and each of its runners says that it does.
    let ollama = "time=x level=WARN source=llama_server.go:1196 msg=\"llama-server process no longer running\" \
                  sys=9 string=\"signal: killed\"\nsrv  llama_server: listening on http://127.0.0.1:1";
    assert_eq!(diagnosis(Some(Kind::Ollama), None, ollama).cause, Cause::KilledFromOutside);
    assert_eq!(diagnosis(None, None, ollama).cause, Cause::KilledFromOutside);
}

#[test]
fn the_error_of_a_request_is_no_fault_of_the_engine() {
    let refused = "(APIServer pid=1) ERROR 11-22 12:05:00 [serving_chat.py:190] Error in preprocessing prompt inputs\n\
        (APIServer pid=1) ERROR 11-22 12:05:00 [serving_chat.py:190] jinja2.exceptions.TemplateError: Roles must alternate";
    assert_eq!(diagnosis(Some(Kind::Vllm), None, refused).cause, Cause::None);
}

#[test]
fn the_kernels_small_troubles_are_nobodys() {
    let boot = "[    2.2] nvidia: module verification failed: signature and/or required key missing\n\
                Nov 22 12:00:00 host1 kernel: ACPI: _OSC evaluation failed: AE_NOT_FOUND";
    assert_eq!(diagnosis(None, None, boot).cause, Cause::None);
}
