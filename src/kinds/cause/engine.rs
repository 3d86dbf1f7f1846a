//! Wordings about the engine's own life: hangs, bugs, deaths noticed by others, and lines that only look bad.
use super::entry::*;
use crate::policy::Cause::*;

/// Looked at before every other entry: such a line is never evidence.
#[rustfmt::skip]
pub(super) const BENIGN: &[Entry] = &[
    benign(&[r"NVRM: Xid .*: (45|106|107|154|162|164)\b"],
        "NVRM: Xid (PCI:0000:65:00): 45, pid=4711, name=VLLM::EngineCor, Ch 00000008"),
    benign(&[r"(^|\])\s+(raise |File \x22|except |assert )", r"^raise "],
        "(EngineCore pid=8) ERROR 11-22 12:00:00 [core.py:1]     raise ImportError("),
    benign(&[r"Found ulimit of"],
        "WARNING 11-23 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase. \
        This can cause fd limit errors like `OSError: [Errno 24] Too many open files`."),
    benign(&[r"NCCL INFO"],
        "host:71:71 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net.so. Using internal net plugin."),
    benign(&[r"NCCL WARN .*(NET/Plugin|Plugin: |Failed to find CUDA library)", r"libnccl-net\.so", r"libnccl-tuner"],
        "host:71:71 [0] NCCL WARN NET/Plugin: Failed to load libnccl-net.so"),
    benign(&[r"destroy_process_group"],
        "[rank0]:[W1122 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not \
        called before program exit, which can leak resources."),
    benign(&[r"ProcessGroupNCCL.*(Guessing device|using GPU .* (to perform|as device))"],
        "[W1122 ProcessGroupNCCL.cpp:4718] [PG ID 0] using GPU 0 as device used by this process is \
        currently unknown. Guessing device ID based on global rank."),
    benign(&[
        r"(^|\] )Compile with .TORCH_USE_CUDA_DSA", r"(^|\] )For debugging consider passing",
        r"(^|\] )CUDA kernel errors might be",
    ], "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."),
    benign(&[r"(^|\] )If reserved but unallocated memory"],
        "If reserved but unallocated memory is large try setting \
        PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."),
    benign(&[r"leaked (shared_memory|semaphore)"],
        "resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 2 leaked \
        shared_memory objects to clean up at shutdown"),
    benign(&[r"Error retrieving (safetensors|file list)"],
        "ERROR 11-22 12:00:00 [repo_utils.py:63] Error retrieving safetensors: Repo id must be in the \
        form 'repo_name', retrying 1 of 2"),
    benign(&[r"errno: 97", r"client socket cannot be initialized to connect"],
        "[W1122 socket.cpp:755] [c10d] The client socket cannot be initialized to connect to [host]:29500 \
        (errno: 97 - Address family not supported by protocol)."),
    benign(&[r"Unknown vLLM environment variable", r"CancelledError", r"RuntimeError: cancelled$",
        r"\[\w*(tool|reasoning)_parser\w*\.py:\d+\]",
        // A client that went away, in Go.
        r"\bcontext canceled\b"],
        "WARNING 11-22 [envs.py:1] Unknown vLLM environment variable detected: VLLM_FOO"),
    benign(&[r"mlock"],
        "warning: failed to mlock 1073741824-byte buffer (after previously locking 0 bytes): Cannot \
        allocate memory"),
    benign(&[r"failed to fit params to free device memory"],
        "llama_params_fit: failed to fit params to free device memory: n_gpu_layers already set by user \
        to 99, abort"),
    benign(&[r"fit.*already set by user", r"already set by user.*abort"],
        "common_fit_params: model_params::tensor_split already set by user, abort"),
    benign(&[r"pinned memory", r"retrying without pipeline"],
        "ggml_cuda_host_malloc: failed to allocate 512.00 MiB of pinned memory: out of memory"),
    benign(&[
        r"failed to (initialize samplers|launch slot with task)", r"grammar does not contain",
        r"^([\d.]+ E )?(parse: error parsing|failed to parse) grammar", r"^got exception: \{",
        r"log_server_r: ",
    ], "srv    send_error: task id = 39, error: Failed to initialize samplers: failed to parse grammar"),
    benign(&[r"cancel task", r"failed to find free space in the KV cache, retrying"],
        "srv  update_slots: failed to find free space in the KV cache, retrying with smaller batch size, \
        off = 0, n_batch = 512, ret = 1"),
    benign(&[
        r"amdgpu version file missing", r"VRAM usage didn't recover", r"\[GIN\]",
        r"Failed to import (Triton kernels|version|from)\b", r"failed to find ggml_backend_init",
        r"Custom allreduce is disabled", r"invalid option provided", r"Unable to register cu\w+ factory",
        r"^Failed to get device capability", r"rocblaslt error: (Cannot read|Could not load)",
        r"hipBLASLt error: Heuristic Fetch Failed",
    ],
        "level=WARN source=amd_linux.go:61 msg=\"ollama recommends running the https://www.amd.com/... \
        driver\" error=\"amdgpu version file missing: /sys/module/amdgpu/version\""),
];

#[rustfmt::skip]
pub(super) const ENTRIES: &[Entry] = &[
    symptom(VLLM, Hang, PASSES, &[
        r"\[Watchdog\]Dumped stack .*timeout", r"(RPC call to \w+|Engine iteration) timed out", r"execute_model timed out",
        r"Timed out waiting for engine core", r"engine core processes? to start",
        r"Did not receive response from front-end", r"TimeoutError: .*(engine|worker|RPC)",
        r"Timeout waiting for .*(engine|worker)",
    ], "TimeoutError: RPC call to sample_tokens timed out."),
    symptom(VLLM, Hang, PASSES, &[r"No available (shared memory broadcast )?block found in"],
        "INFO 11-22 12:00:00 [shm_broadcast.py:466] No available shared memory broadcast block found in \
        60 seconds. This typically happens when some processes are hanging"),
    symptom(OLLAMA, Hang, PASSES, &[r"timed out waiting for (llama|runner)"],
        "timed out waiting for llama-server to start - "),
    symptom(ALL, Hang, PASSES, &[r"blocked for more than \d+ seconds", r"soft lockup"],
        "kernel: INFO: task VLLM::EngineCor:4711 blocked for more than 122 seconds."),

    // Ray lists what may have killed a worker, each signal by its name.
    consequence(VLLM, KilledFromOutside, OPEN, &[r"unexpected system error", r"worker process has died",
        r"\b(RayActorError|ActorDiedError|WorkerCrashedError)\b"],
        "(raylet) A worker died or was killed while executing a task by an unexpected system error. (1) The process is \
        killed by SIGKILL. (3) The worker is crashed unexpectedly due to SIGSEGV"),

    specific(ALL, EngineBug, OPEN, &[r"GGML_ASSERT", r"GGML_ABORT", r"fatal error - ABORT",
        r"\.(c|cpp|cu|cuh|h):\d+: (fatal error|pre-allocated)"],
        "/src/ggml/src/ggml-backend.cpp:1723: GGML_ASSERT(n_inputs < GGML_SCHED_MAX_SPLIT_INPUTS) failed"),
    specific(ALL, EngineBug, OPEN, &[
        r"Segmentation fault", r"Segfault encountered", r"SIGSEGV", r"Fatal Python error: (Segm|Ille|Floa|Bus|[a-z_]+:)",
        r"double free or corruption", r"free\(\): invalid", r"corrupted size vs", r"stack smashing",
        r"munmap_chunk", r"malloc\(\): ", r"core dumped", r"floating point exception",
    ], "Fatal Python error: Segmentation fault"),
    specific(GGML, EngineBug, OPEN, &[r"Assertion [`'].*' failed"],
        "/usr/include/c++/16/bits/stl_vector.h:1263: Assertion '__n < this->size()' failed."),
    specific(VLLM, EngineBug, OPEN, &[r"\bAssertionError\b"], "AssertionError: Expected size 8 but got 4"),
    specific(OLLAMA, EngineBug, OPEN, &[
        r"\b(panic|fatal error): ", r"^runtime error: ", r"goroutine \d+ \[running\]", r"signal arrived during cgo",
    ], "panic: runtime error: invalid memory address or nil pointer dereference"),

    specific(OLLAMA, KilledFromOutside, OPEN, &[r"^SIGQUIT: quit"], "SIGQUIT: quit"),
    // Its own last words, without a reason.
    symptom(ALL, EngineBug, OPEN, &[
        r"Worker failed with error", r"terminate called", r"^Aborted$", r"Fatal Python error",
        r"Compute error", r"decode\(\) failed", r"Invalid input batch",
    ], "terminate called after throwing an instance of 'std::runtime_error'"),
    // That something went wrong; what, stands around it.
    consequence(VLLM, EngineBug, OPEN, &[
        r"EngineCore (encountered a fatal error|failed to start|hit an exception)",
        r"WorkerProc (failed|hit an exception|initialization failed)", r"Executor failed",
    ], "ERROR 11-22 12:00:00 [core.py:700] EngineCore encountered a fatal error."),

    // Deaths that somebody else noticed.
    consequence(VLLM, ShmFull, OPEN, &[
        r"died(, | unexpectedly \()exit code: -7\b", r"Failed core proc\(s\):.*: -7\b",
    ],
        "ERROR 11-22 [multiproc_executor.py:260] Worker proc VllmWorker-1 died unexpectedly (exit code: \
        -7), shutting down executor."),
    consequence(VLLM, EngineBug, OPEN, &[
        r"died(, | unexpectedly \()exit code: -(6|8|11)\b", r"Failed core proc\(s\):.*: -(6|8|11)\b",
    ],
        "ERROR 11-22 [multiproc_executor.py:260] Worker proc VllmWorker-1 died unexpectedly (exit code: \
        -11), shutting down executor."),
    consequence(VLLM, BrokenInstall, OPEN, &[
        r"died(, | unexpectedly \()exit code: -4\b", r"Failed core proc\(s\):.*: -4\b",
    ], "Worker proc VllmWorker-0 died unexpectedly (exit code: -4), shutting down executor."),
    consequence(VLLM, KilledFromOutside, OPEN, &[
        r"died unexpectedly", r"died, exit code: -(9|15|2|1)\b",
        r"Failed core proc\(s\):.*: -(9|15|2|1)\b",
        r"engine core exited unexpectedly", r"Engine core proc(ess)? \S+ .*died",
    ],
        "ERROR 11-22 [core_client.py:600] Engine core proc EngineCore_DP0 died unexpectedly, shutting \
        down client."),
    consequence(OLLAMA, EngineBug, OPEN, &[r"terminated: signal: (abort|bus)"],
        "llama-server process has terminated: signal: aborted"),
    consequence(OLLAMA, KilledFromOutside, OPEN, &[
        r"terminated(: |\x22 error=\x22)signal: (killed|terminated)",
        r"no longer running.*signal: (killed|terminated)",
    ], "llama-server process has terminated: signal: killed"),
    consequence(OLLAMA, EngineBug, OPEN, &[
        r"(runner|llama-server) process (has terminated|no longer running)",
        r"runner has unexpectedly stopped", r"failed to start a llama runner",
        r"(llama runner|llama-server) terminated", r"error was encountered while running the model",
    ], "llama runner process has terminated: exit status 2"),
    consequence(ALL, KilledFromOutside, OPEN, &[
        r"KeyboardInterrupt", r"Received second interrupt", r"^Killed$", r"^Terminated$",
    ], "KeyboardInterrupt: terminated"),
    aftermath(VLLM, EngineBug, OPEN, &[
        r"EngineDeadError", r"EngineCore encountered an issue", r"MQLLMEngine is already dead",
        r"Background loop has errored", r"Engine core initialization failed", r"AsyncEngineDeadError",
        r"output_handler failed", r"engine process failed to start",
    ], "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. "),
    symptom(VLLM, Nccl, OPEN, &[r"NCCL WARN"],
        "host:71:71 [0] transport/net_socket.cc:110 NCCL WARN Net : Socket creation failed"),
    consequence(ALL, KilledFromOutside, OPEN, &[r"code=killed, status=9/KILL"],
        "systemd[1]: vllm.service: Main process exited, code=killed, status=9/KILL"),
    consequence(ALL, EngineBug, OPEN, &[r"code=dumped, status=\d+/(ABRT|SEGV|BUS|FPE)"],
        "systemd[1]: vllm.service: Main process exited, code=dumped, status=6/ABRT"),
    // One client's request was refused; the engine lives.
    benign(&[r"\[\w*(serving|protocol|chat_utils)\w*\.py:\d+\]", r"=ErrorInfo\("],
        "ERROR 11-22 12:05:00 [serving_chat.py:190] TemplateError: Conversation roles must alternate"),
    symptom(VLLM, Hang, PASSES, &[r"(^|[ .])TimeoutError(:|$)"], "asyncio.exceptions.TimeoutError"),
    // Any other exception.
    symptom(VLLM, EngineBug, OPEN, &[
        r"^(\(\S+ pid=\d+\) )?(ERROR \S+ \S+ \S+\] )?(\[rank\d+\]: )?([a-z_]\w*\.)*[A-Z]\w*(Error|Exception)(: |$)",
    ], "(EngineCore pid=71) ERROR 11-22 12:00:00 [core.py:700] RuntimeError: something new"),
];
