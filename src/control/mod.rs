//! How the world asks about a running agent and tells it what to do: HTTP over two Unix sockets in the runtime
//! directory, the JSON types that cross them, the client that the command line uses, and the figures of processes and
//! host that only a status needs. `metrics` is the same for Prometheus.
//!
//! Rights are the files' own: `status.sock` (0660) answers `GET` only, `control.sock` (0600) takes commands too.
pub mod client;
mod events;
pub mod feed;
pub mod metrics;
pub mod process;
mod served;
pub mod server;
pub mod wire;

pub use feed::Feed;
pub use served::{Faults, MetricsSource, Order, Refused, Served, StatusSource};
pub use server::{Open, serve};

/// The socket that only answers questions, in the runtime directory.
pub const STATUS_SOCKET: &str = "status.sock";
/// The socket that takes commands too, in the runtime directory.
pub const CONTROL_SOCKET: &str = "control.sock";
