//! Wordings about the machine and the installation. Within a line the first entry wins.
use super::entry::*;
use crate::policy::Cause::*;

/// Limits of the machine. They stand before everything else: what ran into one also says what it could not do then.
#[rustfmt::skip]
pub(super) const LIMITS: &[Entry] = &[
    // Shared memory before disk: both say "no space left".
    specific(ALL, ShmFull, AGAIN, &[
        r"No space left on device.*(/dev/shm|shared memory|\bshm)",
        r"(/dev/shm|shared memory|posix_fallocate).*No space left on device", r"failed to extend /dev/shm",
        r"unable to (open|allocate) shared memory", r"insufficient shared memory",
        r"(insufficient|not enough|no) (free )?space (left )?(in|on) /dev/shm", r"shared memory limit",
        r"unable to (write to|mmap \d+ bytes from) file </torch_",
        r"Error while creating shared memory segment", r"shared memory .*\(shm\)",
        r"(^|: +)(\d+ +)?Bus error\b",
        r"NCCL WARN .*(create|creating|extend) .*shared memory segment",
    ],
        "host:71:71 [0] misc/shmutils.cc:72 NCCL WARN Error: failed to extend /dev/shm/nccl-tYtN5g to \
        33030532 bytes, error: No space left on device (28)"),
    specific(ALL, DiskFull, OPEN, &[
        r"No space left on device", r"Too many open files", r"Disk quota exceeded", r"ENOSPC",
        r"not enough (free )?disk space", r"insufficient disk space", r"os error 28\b",
    ], "OSError: [Errno 28] No space left on device: '/var/cache/hub'"),
    // Ray says it of every disk, whatever its size.
    note(VLLM, DiskFull, OPEN, &[r"is over \d+% full, available space"],
        "(raylet) file_system_monitor.cc:111: /tmp/ray/session_1 is over 95% full, available space: 4972191744; capacity: \
        103865303040. Object creation will fail if spilling is required."),
    decisive(OLLAMA, Permission, AGAIN, &[r"fork/exec \S*(llama|runner)\S*: permission denied"],
        "level=WARN source=server.go:160 msg=\"starting llama server failed\" error=\"fork/exec \
        /tmp/ollama1/runners/cuda_v11/ollama_llama_server: permission denied\""),
    specific(ALL, Permission, AGAIN, &[r"Permission denied", r"PermissionError", r"EACCES"],
        "PermissionError: [Errno 13] Permission denied: '/models/m/config.json'"),

    decisive(ALL, HostOom, OPEN, &[
        r"Out of memory: Kill(ed)? process", r"Memory cgroup out of memory", r"killed by the OOM",
        r"result 'oom-kill'", r"\bOOMKilled\b", r"killed due to memory pressure",
        r"Killed \S+ due to memory (used|pressure)",
    ], "kernel: Out of memory: Killed process 4711 (VLLM::EngineCor) total-vm:71234567kB"),
    specific(ALL, HostOom, OPEN, &[
        r"oom-kill:constraint", r"oom_reaper", r"invoked oom-killer", r"oom_kill_process",
    ], "kernel: VLLM::EngineCor invoked oom-killer: gfp_mask=0x140cca, order=0, oom_score_adj=0"),
    specific(ALL, HostOom, PASSES, &[r"requires more system memory"],
        "Error: model requires more system memory (5.5 GiB) than is available (3.9 GiB)"),
    specific(ALL, HostOom, OPEN, &[
        r"std::bad_alloc", r"Cannot allocate memory", r"\bMemoryError\b", r"DefaultCPUAllocator",
        r"can't allocate memory", r"insufficient memory \(attempted", r"node running low on memory",
        r"ray\.exceptions\.OutOfMemoryError", r"errno 12\b", r"ENOMEM",
        r"Available memory on node .* (on startup|on kv cache)", r"desired CPU memory utilization",
        r"out of host memory",
    ], "terminate called after throwing an instance of 'std::bad_alloc'"),

    specific(ALL, PortInUse, PASSES, &[
        r"Errno 98", r"address already in use", r"couldn't bind (HTTP|to) server socket",
        r"couldn't start HTTP listener", r"EADDRINUSE", r"only one usage of each socket address",
        r"port \d+ is (already )?(in use|used|occupied)", r"port is already allocated",
        // A container's name is such a place too.
        r"container name \S+ is already in use", r"that name is already in use", r"name \S+ is already used by ID",
    ], "OSError: [Errno 98] Address already in use"),
    specific(ALL, BadArgument, AGAIN, &[r"cannot assign requested address", r"Errno 99\b"],
        "Error: listen tcp 10.9.9.9:11434: bind: cannot assign requested address"),
];

#[rustfmt::skip]
pub(super) const ENTRIES: &[Entry] = &[
    // Arguments, as the parsers of the three say it.
    specific(VLLM, BadArgument, AGAIN, &[
        r"error: (unrecognized arguments|argument |the following arguments|ambiguous option)",
        r"expected one argument", r"invalid choice:",
    ], "vllm: error: unrecognized arguments: --no-such-flag"),
    specific(VLLM, BadArgument, AGAIN, &[
        r"greater than the derived max_model_len", r"trust_remote_code", r"requires --\S+",
        r"contains custom code which must be executed",
        r"must be divisible by", r"is not divisible by",
        r"larger than the number of available GPUs", r"number of required GPUs exceeds",
        r"ensure that world.size", r"group bundle cannot have",
        r"Cannot provide a placement group", r"parser could not locate",
        // What a flag switches on and this model does not have.
        r"does not (yet )?support (LoRA|\w+ parallel\w*|prefix caching|chunked prefill|speculative|prompt embeds|cpu offload)",
        r"is smaller than max_model_len", r"not supported for quantization method",
        r"does not match the quantization method", r"invalid tool call parser", r"invalid reasoning parser",
        r"Unknown (dtype|backend|attention backend)", r"Invalid attention backend", r"Config override",
        r"The chat template .*(not found|does not exist)",
        r"chat template .*(looks like a file path|appears path-like)",
        r"^\s*Value error, ",
    ],
        "  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len \
        (max_position_embeddings=4096.0)"),
    symptom(VLLM, BadArgument, AGAIN, &[r"\bValidationError: "],
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"),
    specific(GGML, BadArgument, AGAIN, &[
        r"error: (invalid|unknown) argument", r"error while handling argument", r"error: unknown value for",
        r"invalid parameter for argument", r"the argument has been removed", r"invalid device: ",
        r"invalid value for main_gpu", r"V cache quantization requires", r"quantized V cache",
        r"chat template is not supported", r"error: --\S+", r"expected value for argument",
        r"requires? --flash-attn", r"invalid HF repo format", r"unknown buffer type",
        r"failed to initialize router models", r"what\(\):\s+failed to parse grammar",
    ], "error: invalid argument: --no-such-flag"),
    symptom(GGML, BadArgument, OPEN, &[r"failed to initialize the context: "],
        "llama_init_from_model: failed to initialize the context: dflash requires ctx_other to be set"),
    specific(OLLAMA, BadArgument, AGAIN, &[
        r"Error: unknown (flag|command|shorthand)", r"\$HOME is not defined",
        r"accepts \d+ arg", r"flag needs an argument",
        r"command must be one of", r"neither 'from' or 'files'", r"invalid argument \x22",
    ], "Error: unknown flag: --nope"),

    // Installation. Compilers are found missing only when something is compiled.
    specific(VLLM, BrokenInstall, AGAIN, &[
        r"Torch not compiled with CUDA", r"compiled with different CUDA",
        r"operator torchvision::nms does not exist", r"NameError: name '\w*(_ops|_C)' is not defined",
        r"has no attribute '?(rms_norm|all_special_tokens_extended|_C\w*|silu_and_mul)\b",
        r"\bmodule '[\w.]+' has no attribute", r"'_OpNamespace' '\w+' object has no attribute",
        r"headers are incompatible", r"/ld: cannot find -l", r"collect2: error: ld returned",
        r"failed to find C compiler", r"Could not find nvcc", r"CUDA_HOME environment variable is not set",
        r"Python\.h: No such file", r"ninja: build stopped", r"\d errors? detected in the compilation of",
        r"ninja: not found", r"PackageNotFoundError",
        r"numpy\.dtype size changed", r"No module named", r"nvcc fatal", r"SUBLIBRARY_VERSION_MISMATCH",
        r"cannot import name", r"C\+\+ compiler not found", r"InvalidCxxCompiler",
        r"not in the PATH.*(gcc|nvcc|cl)", r"nvcc:? (command )?not found",
        r"No such file or directory: '\S*(nvcc|ninja|gcc)'",
        r"Ninja build failed", r"Command '\['\S*(gcc|g\+\+|cc|nvcc|ninja)'.* returned non-zero",
        r"fatal error: \S+\.h: No such file", r"detected CUDA version .*mismatches",
        r"flashinfer\S* version .*does not match", r"returned non-zero exit status 127\b",
        // What asks to be installed, and libraries that do not know each other's classes.
        r"Error: .*\bpip3? install\b", r"Error: .*\b(is|are) not installed\b",
        r"'\w*(Processor|Tokenizer\w*)' object has no attribute", r"\b\w*(Processor|Tokenizer\w*)\.__init__\(\) (got|missing)",
    ],
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set \
        triton.knobs.build.impl."),
    symptom(VLLM, BrokenInstall, AGAIN, &[r"\bPTXASError\b"],
        "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error"),
    specific(ALL, BrokenInstall, AGAIN, &[
        r"ModuleNotFoundError", r"\bImportError\b", r"cannot open shared object file", r"undefined symbol",
        r"version .GLIBC\w*_[\d.]+. not found", r"Illegal instruction", r"exec format error",
        r"binary not found", r"command not found", r"executable file not found",
        r"process has terminated: exit status 127\b", r"error while loading shared libraries",
        r"bad interpreter", r"symbol lookup error", r"invalid ELF header",
        r"\blib[\w+-]+\.(so|dylib|dll)\S* not found",
        r"OCI runtime create failed: .*\bno such file", r"(unknown|invalid) runtime (name|specified)",
        r"(Error|not available): .*\b(re)?(buil[dt]|compiled?) with(out)?\b",
    ],
        "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object \
        file: No such file or directory"),

    specific(ALL, Permission, AGAIN, &[
        r"getpwuid\(\): uid not found", r"Operation not permitted",
        r"path elements are traversable", r"could not create directory", r"Read-only file system",
        r"Insufficient Permissions",
        r"NoPermission\b", r"forbidden by its access permissions",
    ], "KeyError: 'getpwuid(): uid not found: 1000860000'"),

    // The service that runs containers is not up.
    specific(ALL, Network, PASSES, &[
        r"Cannot connect to the Docker daemon", r"failed to connect to the docker API",
        r"unable to connect to Podman", r"dial unix \S+: connect: ",
    ], "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"),
    // Ollama's own runner, on the same machine.
    consequence(OLLAMA, EngineBug, OPEN, &[r"127\.0\.0\.1:\d+/(load|completion|health|embedding|tokenize|v1)"],
        "level=ERROR source=server.go:1471 msg=\"post predict\" error=\"Post \\\"http://127.0.0.1:37371/completion\\\": EOF\""),
    specific(ALL, Network, PASSES, &[
        r"MaxRetryError", r"NameResolutionError", r"Temporary failure in name resolution",
        r"Name or service not known", r"no such host", r"couldn't connect to", r"could not connect to",
        r"Read timed out", r"ReadTimeout", r"ConnectTimeout", r"TLS handshake timeout", r"\b(tls|x509): [a-z]",
        r"CERTIFICATE_VERIFY_FAILED", r"certificate signed by unknown authority", r"SSLError",
        r"\b(dial|read|write) tcp\b", r"pull model manifest: (429|5\d\d)", r"429 Client Error", r"50[0234] Server Error",
        r"HfHubHTTPError",
        r"(Connection|ConnectError|ProtocolError).*(huggingface|hf\.co|modelscope)",
        r"(ConnectionError|ProtocolError)\b.*(aborted|reset|refused|timed out)",
        r"Network is unreachable", r"No route to host", r"registry\.ollama\.ai.*(timeout|refused|EOF)",
        r"failed to download model", r"part stalled", r"max retries exceeded",
        r"failed after \d+ (retries|attempts)", r"get_repo_\w+: error",
        r"error from HF API", r"Failed to connect to \S+:\d+$", r"download failed with status",
        r"curl_easy_perform", r"Connection reset by peer.*(hub|hf)", r"\[Errno (110|111|113)\]",
        r"could ?n[o']t resolve host", r"too many requests",
        r"(exceeded|hit|reached) .*rate.?limit|rate.?limit(ed| exceeded| reached)", r"Tunnel connection failed",
        r"ProxyError",
        r"proxyconnect tcp", r"i/o timeout", r"RemoteDisconnected", r"failed to get model from hugging ?face",
    ],
        "urllib3.exceptions.MaxRetryError: HTTPSConnectionPool(host='huggingface.co', port=443): Max \
        retries exceeded with url: /api/models/org/m"),
];
