//! Wordings about GPUs, their driver and their memory. Within a line the first entry wins.
use super::entry::*;
use crate::policy::Cause::*;

/// Looked at before what is benign: the fate that a line tells stands above its number.
#[rustfmt::skip]
pub(super) const FATES: &[Entry] = &[
    // What the hardware has put right by itself, or what stays within one link or channel.
    benign(&[r"(Xid|SXid) .*\bnon-?fatal\b", r"severity=Correct(ed|able)", r"AER: .*Correct(ed|able) error",
        r"Corrected error, no action required", r"AER: Error of this agent"],
        "NVRM: Xid (PCI:0018:01:00): 145, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x00000008)"),
    // A channel that was torn down says why.
    decisive(ALL, GpuHwFault, OPEN, &[
        r"caused by previous Xid (46|48|54|62|63|64|74|79|92|9[45]|110|119|12[01]|136|14[03-9]|150|15[5-8])\b",
    ], "NVRM: Xid (PCI:0000:dc:00): 45, pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149"),
    decisive(ALL, GpuHwFault, OPEN, &[r"PCIe Bus Error: severity=Uncorrect\w+ \(Fatal\)"],
        "nvidia 0000:01:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer"),
];

#[rustfmt::skip]
pub(super) const ENTRIES: &[Entry] = &[
    // Hardware. The kernel's Xids: which number means what is in the GPU facts; these need more than a new process.
    decisive(ALL, GpuHwFault, OPEN, &[
        r"NVRM: Xid .*: (46|48|54|62|63|64|74|79|92|9[45]|110|119|12[01]|136|14[03-9]|150|15[5-8]|16[017-9]|17[0-2])\b",
    ], "NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
    decisive(ALL, GpuHwFault, OPEN, &[r"uncorrectable (ECC|NVLink) error", r"ECC_?Uncorrectable"],
        "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    decisive(ALL, GpuHwFault, OPEN, &[r"fallen off the bus"],
        "NVRM: GPU 0000:65:00.0: GPU has fallen off the bus."),
    decisive(ALL, GpuHwFault, OPEN, &[r"GPU is lost", r"NVML_?Error_?GpuIsLost", r"ERROR_GPU_IS_LOST"],
        "Unable to determine the device handle for GPU 0000:65:00.0: GPU is lost.  Reboot the system to \
        recover this GPU"),
    decisive(ALL, GpuHwFault, OPEN, &[
        r"hardware stack error", r"GPU requires reset", r"row.?remap\w* (failure|failed)",
        r"timeout waiting for RPC from GSP", r"GSP RM heartbeat timed out", r"contained ECC", r"uncontained ECC",
    ], "NVRM: Xid: Timeout waiting for RPC from GSP!"),
    decisive(ALL, GpuHwFault, OPEN, &[r"SXid", r"NVLink .*(fatal|uncorrectable)"],
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"),
    decisive(ALL, Thermal, OPEN, &[
        r"(HW|SW) thermal slowdown\s*: active", r"critical temperature reached", r"thermal shutdown",
        r"GPU .*over.?temperature", r"(hw|sw)_thermal_slowdown\s*[:,=]\s*active",
        r"shutting? ?down due to (high )?temperature",
    ], "thermal thermal_zone0: critical temperature reached, shutting down"),
    decisive(ALL, GpuInitFailed, OPEN, &[
        r"RmInitAdapter failed", r"rm_init_adapter failed", r"failed to start the adapter",
        r"RmInitAdapter: Cannot initialize", r"I/O region assigned to your NVIDIA device is invalid",
    ], "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x26:0xffff:1477)"),
    decisive(ALL, GpuUnsupported, AGAIN, &[r"installed in this system is not supported by"],
        "NVRM: installed in this system is not supported by open"),
    decisive(ALL, DriverTooOld, AGAIN, &[r"API mismatch: (the|this) client"],
        "NVRM: API mismatch: the client has the version 570.86.15, but this kernel module has the version \
        550.54.15."),
    specific(ALL, CudaFault, PASSES, &[r"NVRM: Xid .*: (\d+)\b"],
        "NVRM: Xid (PCI:0000:65:00): 31, pid=4711, name=VLLM::EngineCor, MMU Fault"),

    // Driver.
    specific(ALL, DriverTooOld, AGAIN, &[
        r"driver/library version mismatch", r"Version mismatch, kernel version", r"RmVersionMismatch", r"RM version mismatch",
        r"LIB_?RM_?VERSION_?MISMATCH",
    ], "Failed to initialize NVML: Driver/library version mismatch"),
    specific(ALL, DriverTooOld, AGAIN, &[
        r"driver version is insufficient", r"NVIDIA driver on your system is too old", r"driver is too old",
        r"unsupported display driver", r"forward compatibility was attempted",
        r"compiled with an unsupported toolchain", r"unsatisfied condition: (cuda|driver)",
        r"cudaErrorInsufficientDriver", r"not supported in the installed CUDA driver",
        r"cudaErrorUnsupportedPtxVersion", r"(cuInit|init failure|device context)\D+(35|803|804)\b",
    ], "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."),
    specific(ALL, DriverMissing, AGAIN, &[
        r"found no NVIDIA driver", r"libcuda\.so\S*: cannot open shared object",
        r"libnvidia-ml\.so\S*: cannot open", r"NVML shared library not found", r"NVMLError_LibraryNotFound",
        r"driver not loaded", r"DriverNotLoaded", r"couldn't communicate with the NVIDIA driver",
        r"load the kernel module 'nvidia", r"could not insert '?nvidia", r"NVIDIA driver is not loaded",
        r"could not select device driver", r"libnvidia-ml\.so\S*:? (not found|no such)",
        r"nvidia-smi: command not found", r"load library failed: libnvidia-ml",
        r"nvidia-container-cli: .*(load library failed|cannot open shared object|(library|driver) not found)",
        r"nvidia-container-cli: .*no adapters were found", r"unresolvable CDI devices",
        r"adding custom device \x22?/dev/(nvidia|dri|kfd)", r"stat /dev/(nvidia|dri|kfd)\S*: no such file",
    ], "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"),
    specific(ALL, GpuInitFailed, OPEN, &[
        r"system not yet initialized", r"CUDA unknown error",
        r"failed to initialize CUDA: (unknown error|initialization error)", r"cudaErrorInitializationError",
        r"CUDA error(:| \d+ at \S+:) initialization error", r"(cuInit|init failure|device context)\D+(3|802|999)\b",
        r"cudaErrorSystemNotReady", r"Error 304: OS call failed", r"CUDA_ERROR_OPERATING_SYSTEM",
        r"nvidia-container-cli(\.real)?: .*(driver error|nvml error|detection error)",
        r"Error 3: initialization error",
    ], "Error 802: system not yet initialized (Triggered internally at CUDAFunctions.cpp:109.)"),
    specific(ALL, GpuInitFailed, PASSES, &[
        r"CUDA-capable device\S* (is/)?are busy or unavailable", r"cudaErrorDevicesUnavailable",
    ], "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    specific(ALL, GpuInitFailed, OPEN, &[r"unable to determine the device handle for GPU"],
        "Unable to determine the device handle for GPU0: 0000:65:00.0: Unknown Error"),
    specific(ALL, NoGpu, OPEN, &[
        r"no CUDA-capable device", r"No CUDA GPUs are available", r"failed to infer device type",
        r"no HIP GPUs are available", r"no ROCm-capable device", r"invalid device ordinal",
        r"device < num_gpus",
        r"NVMLError_NotFound", r"cudaErrorNoDevice", r"hipErrorNoDevice", r"(cuInit|init failure)\D+100\b",
        r"CUDA_ERROR_NO_DEVICE", r"No devices? (were )?found", r"No NVIDIA (GPUs?|graphics adapter) found",
        r"no devices with (CUDA|dedicated)",
        r"GPU support is disabled", r"you might not have a CUDA gpu", r"Can't initialize NVML",
        r"Failed to initialize NVML: Unknown Error", r"device error: .*unknown device",
        r"CUDA (is|was) not available", r"(has|have) no GPUs?( available)?\b", r"cannot (start|run) without (a )?GPU",
    ], "RuntimeError: No CUDA GPUs are available"),
    specific(ALL, GpuUnsupported, AGAIN, &[
        r"no kernel image is available", r"device kernel image is invalid",
        r"is not compatible with the current PyTorch installation",
        r"no device code compatible with CUDA arch", r"cudaErrorNoKernelImageForDevice",
        r"invalid device function", r"InvalidDeviceFunction", r"Could not initialize Tensile",
        r"NoBinaryForGpu", r"named symbol not found",
        r"Unsupported gpu architecture", r"is not defined for option 'gpu-name'", r"for GPU arch\s*:",
        r"\x22\w+\x22 not implemented for '(Float8\w*|Float4\w*|BFloat16|Half)'",
        r"No compiled \w+ .*(capability|for (this|the current) GPU)", r"CUBLAS_STATUS_ARCH_MISMATCH",
        r"unsupported (AMD|GPU|CUDA) arch", r"CUDA GPU is too old", r"out of resource: shared memory",
    ], "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    specific(ALL, GpuUnsupported, AGAIN, &[
        r"only supported on GPUs with compute capability", r"not supported for the current GPU",
        r"not support(ed)? (the |by |on )*current (GPU|device)", r"not supported on \.target",
        r"is for sm[\w-]+, but was built for sm",
        r"min(imum)? capability", r"Error: .*\bnot supported\b.*\b(this|the current|current|your) (GPU|device|hardware|platform)",
        r"only supports (Ampere|Hopper|Turing|Blackwell)",
        r"(requires?|needs?) (a )?(GPU|device)s? with (compute )?capability",
        r"not supported on (this|your|the current) (GPU|device|hardware|platform)",
        r"does not support (bfloat16|fp8|bf16)",
        r"fp8\w* .*(not supported|unsupported) .*(arch|GPU|device|sm_?\d+)",
        r"Unsupported compute capability", r"only supports? (GPUs|devices) with", r"requires? sm_?\d+",
        r"is not supported .*sm_?\d+",
        // Any refusal that names a generation of GPUs.
        r"Error: .*\b(cuda|compute|device) capability\b.*\bnot (yet )?supported",
        concat!(r"Error: .*\b(not|no|un\w+|only|requires?|needs?|at least)\b.*",
            r"\b(Blackwell|Hopper|Ampere|Turing|Volta|(cuda|compute|device) capability|(cuda|gpu) arch\w*",
            r"|sm_?\d{2,3}\w?|gfx\d{3,4}\w?)\b"),
    ],
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your \
        Tesla T4 GPU has compute capability 7.5."),

    // What a kernel prints that was built for others, before it traps.
    decisive(ALL, GpuUnsupported, AGAIN, &[r"^This kernel only supports sm"], "This kernel only supports sm120."),

    // What was counted is not known, only that counting failed.
    specific(ALL, GpuInitFailed, OPEN, &[r"Unexpected error from cudaGetDeviceCount", r"driver library init failure"],
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 805: MPS client failed to connect to the MPS \
        control daemon or the MPS server"),

    // Memory. Not enough for the cache at all is the cache's cause, also where the line names memory.
    specific(VLLM, KvCacheTooSmall, AGAIN, &[
        r"no available memory for the cache blocks", r"larger than the available KV cache memory",
        r"larger than the maximum number of tokens that can be stored in KV cache",
        r"cannot auto-fit max_model_len", r"estimated maximum model length is",
        r"KV cache .*(is )?not (large )?enough", r"to serve at least one request with the model'?s",
    ],
        "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV \
        cache is needed, which is larger than the available KV cache memory (9.08 GiB)."),
    specific(VLLM, GpuOom, PASSES, &[
        r"free memory on device.*less than", r"less than desired GPU memory utilization",
        r"Free memory .*on startup.*(less than|insufficient)", r"Error in memory profiling",
        r"exceed the desired GPU memory utilization",
    ],
        "ValueError: Free memory on device (5.03/23.64 GiB) on startup is less than desired GPU memory \
        utilization (0.9, 21.27 GiB)."),
    specific(VLLM, GpuOom, OPEN, &[
        r"not enough GPU memory", r"CUDA out of memory occurred when warming up",
    ], "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization"),
    specific(ALL, GpuOom, OPEN, &[
        r"(CUDA|HIP|XPU|ROCm) out of memory", r"(CUDA|HIP|ROCm|CUBLAS) error(:| \d+ at \S+:)? .{0,20}out of memory",
        r"CUDA_ERROR_OUT_OF_MEMORY", r"(cuda|hip)ErrorMemoryAllocation", r"hipErrorOutOfMemory",
        r"Cuda failure.*out of memory", r"(cuda|hip)Malloc\w* failed", r"torch\.(cuda\.)?OutOfMemoryError",
        r"Triton Error \[(CUDA|HIP)\]: out of memory", r"(CUDA|HIP) driver error: out of memory",
        r"CUBLAS_STATUS_ALLOC_FAILED", r"CUDNN_STATUS_ALLOC_FAILED", r"Error 2: out of memory",
    ],
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total \
        capacity of 23.64 GiB"),
    specific(ALL, GpuOom, OPEN, &[
        r"CUBLAS_STATUS_NOT_INITIALIZED.*cublasCreate", r"CUDNN_STATUS_NOT_INITIALIZED",
    ], "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    specific(GGML, HostOom, OPEN, &[
        r"(unable to|failed to) allocate (CPU\w*|host) buffer", r"ggml_backend_cpu\w*: failed to allocate",
    ], "llama_model_load: error loading model: unable to allocate CPU buffer"),
    specific(GGML, GpuOom, OPEN, &[
        r"ErrorOutOfDeviceMemory", r"vk_error_out_of_device_memory",
        r"(unable to|failed to) allocate (CUDA|ROCm|Vulkan|SYCL|Metal|HIP)\w* buffer",
        r"reported out-of-memory", r"CallbackErrorOutOfMemory",
    ], "llama_model_load: error loading model: unable to allocate CUDA0 buffer"),
    specific(GGML, GpuOom, OPEN, &[
        r"failed to allocate (buffer for kv cache|buffer for rs cache|compute (pp|tg|buffers))",
        r"unable to allocate \S+ buffer", r"unable to load full model on GPU",
    ], "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"),

    // Kernels and channels.
    specific(ALL, CudaFault, PASSES, &[
        r"illegal memory access", r"unspecified launch failure", r"device-side assert",
        r"an illegal instruction was", r"misaligned address", r"the launch timed out",
        r"invalid program counter",
        r"cudaError(IllegalAddress|LaunchFailure|Assert|LaunchTimeout|IllegalInstruction)",
        r"CUDA_ERROR_(ILLEGAL|LAUNCH|ASSERT|MISALIGNED|HARDWARE_STACK)",
        r"CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED|MAPPING_ERROR|INVALID_VALUE|NOT_SUPPORTED)",
        r"CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)", r"HSA_STATUS_ERROR",
        r"Memory access fault by GPU", r"VK_ERROR_DEVICE_LOST", r"\bdevice lost\b", r"ErrorDeviceLost", r"DeviceLostError",
    ], "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"),
    specific(ALL, CudaFault, PASSES, &[
        r"(CUDA|ROCm|HIP) error(:| \d+ at \S+:) (invalid|unknown|unspecified|operation|device|peer|launch|context)",
        r"(CUDA|ROCm|HIP) error(:| \d+ at \S+:) (mapping|resource|too many)",
        r"Cuda failure .*'(invalid|unknown|unspecified)",
    ], "CUDA error: invalid argument"),

    specific(ALL, CudaFault, PASSES, &[r"amdgpu.* ring \S+ timeout", r"amdgpu.*GPU reset begin",
        r"amdgpu.*\[(gfx|mm)hub\d*\] .*page fault", r"amdgpu.*L2_PROTECTION_FAULT_STATUS"],
        "amdgpu 0000:03:00.0: amdgpu: GPU reset begin!"),

    // The collective library. "unhandled" says that the real reason is printed elsewhere.
    symptom(VLLM, Nccl, OPEN, &[r"unhandled (system|cuda) error", r"ncclUnhandledCudaError"],
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:77, unhandled system error (run \
        with NCCL_DEBUG=INFO for details)"),
    specific(VLLM, Nccl, OPEN, &[
        r"NCCL (error|failure)", r"nccl(System|Remote|Internal|InvalidUsage|InvalidArgument)\w*",
        r"collective operation timeout", r"ProcessGroupNCCL.*(exception|terminat|timed? ?out|abort)",
        r"DistBackendError", r"DistStoreError", r"store.based barrier", r"Timed out .*waiting for clients",
        r"gloo/(transport|rendezvous)", r"client socket has timed out",
        r"Gloo .*(failed|timed out|timeout)", r"DistNetworkError",
        r"RCCL (error|WARN)", r"custom_all_reduce.*error",
    ],
        "[rank0]:[E1122 12:00:00 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation \
        timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE)"),

    // A fault without a name of its own.
    symptom(ALL, CudaFault, PASSES, &[
        r"torch\.AcceleratorError", r"(CUDA|ROCm|HIP) (driver )?error\b", r"(CUDA|ROCm|HIP) failure",
    ], "ggml_cuda_compute_forward: MUL_MAT failed: CUDA error"),

    // It runs, but on the CPU.
    note(OLLAMA, CpuFallback, OPEN, &[
        r"inference compute.*library=cpu", r"no compatible GPUs were discovered",
        r"failure during (llama-server )?GPU discovery", r"offloaded 0/\d+ layers",
        r"msg=offload library=cpu", r"gpu support may not be enabled",
    ],
        "time=2026-11-22T12:00:00Z level=INFO source=types.go:60 msg=\"inference compute\" id=cpu \
        library=cpu compute=\"\" name=cpu"),
    note(LLAMA, CpuFallback, OPEN, &[
        r"no usable GPU found", r"ggml_cuda_init: failed to initialize CUDA",
        r"offloaded 0/\d+ layers to GPU",
    ], "warning: no usable GPU found, --gpu-layers option will be ignored"),
];
