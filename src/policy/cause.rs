//! The closed list of causes (contract "Causes"). Names and meanings are what other programs rely on.

/// Declares the enum together with the names of the contract, so that neither can be forgotten.
macro_rules! causes {
    ($($variant:ident = $name:literal, $meaning:literal;)*) => {
        /// Why a run ended, or why a tier cannot answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause { $(#[doc = $meaning] $variant),* }

        impl Cause {
            /// Every cause, in the contract's order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in status, incidents and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// One phrase for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }
        }
    };
}

impl Cause {
    /// May a request have brought this end about? Not what comes from the machine, from other processes or from people.
    pub const fn may_be_of_a_request(self) -> bool {
        match self {
            Self::GpuOom
            | Self::KvCacheTooSmall
            | Self::ContextTooSmall
            | Self::ModelUnsupported
            | Self::GpuUnsupported
            | Self::CudaFault
            | Self::EngineBug
            | Self::None
            | Self::Unknown => true,
            Self::Asked
            | Self::KilledFromOutside
            | Self::HostOom
            | Self::ShmFull
            | Self::DiskFull
            | Self::ModelMissing
            | Self::ModelCorrupt
            | Self::AuthGated
            | Self::BadArgument
            | Self::PortInUse
            | Self::Permission
            | Self::Network
            | Self::BrokenInstall
            | Self::DriverMissing
            | Self::DriverTooOld
            | Self::NoGpu
            | Self::CpuFallback
            | Self::GpuHwFault
            | Self::GpuInitFailed
            | Self::Thermal
            | Self::Nccl
            | Self::Hang => false,
        }
    }
}

causes! {
    Asked = "asked", "stopped by mainstay or through it";
    KilledFromOutside = "killed-from-outside", "a signal of somebody else, and nothing in the log explains it";
    GpuOom = "gpu-oom", "GPU memory, at start or at run";
    HostOom = "host-oom", "host or cgroup memory";
    ShmFull = "shm-full", "/dev/shm is full";
    DiskFull = "disk-full", "disk or file descriptors ran out";
    KvCacheTooSmall = "kv-cache-too-small", "the weights fit, the KV cache for the asked context does not";
    ContextTooSmall = "context-too-small", "one request is too long; the engine lives";
    ModelMissing = "model-missing", "no such file, repository or model name";
    ModelCorrupt = "model-corrupt", "the model is damaged or incomplete";
    ModelUnsupported = "model-unsupported", "this build does not know the architecture, tokenizer or layout";
    AuthGated = "auth-gated", "the hub, or a remote server, refuses access";
    BadArgument = "bad-argument", "a flag, value or combination was refused";
    PortInUse = "port-in-use", "the address is taken";
    Permission = "permission", "a file or device may not be opened";
    Network = "network", "the hub, or a remote server, cannot be reached";
    BrokenInstall = "broken-install", "a module, library or compiler is missing or mismatched";
    DriverMissing = "driver-missing", "the GPU driver is not there";
    DriverTooOld = "driver-too-old", "the GPU driver is too old, or not of one version";
    NoGpu = "no-gpu", "no GPU is visible to the engine";
    GpuUnsupported = "gpu-unsupported", "this build has no code for this GPU or number format";
    CpuFallback = "cpu-fallback", "it runs, but on the CPU";
    CudaFault = "cuda-fault", "a kernel or channel failed; the process is suspect first";
    GpuHwFault = "gpu-hw-fault", "ECC, row remap, NVLink, bus loss or GSP";
    GpuInitFailed = "gpu-init-failed", "the driver cannot start the adapter";
    Thermal = "thermal", "heat";
    Nccl = "nccl", "the collective library failed or timed out";
    EngineBug = "engine-bug", "an assertion, segfault or traceback of the engine";
    Hang = "hang", "no progress, or time-outs";
    None = "none", "nothing is wrong in these lines";
    Unknown = "unknown", "nothing that is known tells the cause";
}
