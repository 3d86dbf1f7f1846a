//! What stands behind the sockets: where answers come from, where commands go to, and how it is said that neither can be.
use super::feed::Feed;
use super::wire;
use crate::policy::Command;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Makes a status at the moment it is asked for.
pub type StatusSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = wire::Status> + Send>> + Send + Sync>;
/// Makes the text of `GET /metrics`; `None` when it cannot be had. It bounds its own time.
pub type MetricsSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send>> + Send + Sync>;
/// Causes the fault of this name; false when there is none of this name.
pub type Faults = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What the agent puts behind the sockets.
#[derive(Clone)]
pub struct Served {
    pub status: StatusSource,
    pub events: Arc<Feed>,
    pub metrics: MetricsSource,
    /// Commands on their way to the policy loop.
    pub operator: mpsc::Sender<Order>,
    /// Present only in an agent that was started for tests.
    pub faults: Option<Faults>,
}

/// A command, and the door through which its answer goes back. Dropping it unanswered tells the client that the agent
/// is ending.
#[derive(Debug)]
pub struct Order {
    /// The tier's name as it was typed: nobody has looked whether there is such a tier.
    pub tier: String,
    pub command: Command,
    /// The event's `seq`, or why not.
    pub answer: oneshot::Sender<Result<u64, Refused>>,
}

/// Why a command was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No tier has this name; these are the names.
    NotFound(Vec<String>),
    /// It cannot be now, or never for this tier; the sentence says why.
    Conflict(String),
}

pub(super) fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    let class = if status.is_client_error() { "invalid_request_error" } else { "server_error" };
    let details = wire::Details {
        message: message.to_owned(),
        class: class.to_owned(),
        param: None,
        code: code.to_owned(),
    };
    (status, Json(wire::Problem { error: details })).into_response()
}
