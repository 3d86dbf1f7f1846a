//! PURE. What differs between vLLM, Ollama, llama-server and remote upstreams, as data and total functions:
//! argv and environment, probe requests, load progress, log lines → cause, error verdicts, dialect translation,
//! capabilities. `serde_json::Value` is used as a plain data type; nothing here derives a wire format.
mod carry;
pub mod cause;
mod chunks;
mod climb;
mod content;
pub mod degrade;
mod endpoint;
pub mod fields;
pub mod launch;
mod lenient;
mod novelty;
pub mod ollama;
pub mod paths;
pub mod peer;
pub mod probe;
mod progress;
mod verdict;

pub use carry::{Misfit, adapt, carries};
pub use cause::{
    Device, Diagnosis, Evidence, advice, counsel, device, diagnose, guess, killed_by_kernel, kills_rose,
    nature, signal_name, signal_number,
};
pub use chunks::{Assembly, chunks_of};
pub use climb::{Climb, Height, PastStart};
pub use content::{begins_answer, carries_content, finish_reason, holds_answer, says};
pub use degrade::{DEFAULT_NOTICE, Degrade};
pub use endpoint::Endpoint;
pub use launch::{
    Launch, argv, asks_for_cpu, default_command, environment, flag_with_value, owned_flag, served_name,
    source_flag,
};
pub use lenient::{Json, read_json, without_mark};
pub use novelty::Novelty;
pub use progress::{Done, Progress, fetching, progress};
pub use verdict::{Verdict, has_ended, verdict, verdict_of_event, verdict_on};

/// What stands behind a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Vllm,
    Ollama,
    LlamaServer,
    /// A server on another host that we do not own.
    Remote(Api),
}

/// The HTTP dialect in which an upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    OpenAi,
    /// Ollama's native `/api/*`.
    Ollama,
}

impl Kind {
    /// The name in the configuration and in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::LlamaServer => "llama-server",
            Self::Remote(_) => "remote",
        }
    }

    pub const fn api(self) -> Api {
        match self {
            Self::Vllm | Self::LlamaServer => Api::OpenAi,
            Self::Ollama => Api::Ollama,
            Self::Remote(api) => api,
        }
    }

    pub const fn is_local(self) -> bool {
        !matches!(self, Self::Remote(_))
    }
}
