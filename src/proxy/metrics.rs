//! `GET /metrics`: the endpoint's door to figures that are made elsewhere.
use bytes::Bytes;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// Makes the text of this moment; `None` when it cannot be had. It bounds its own time and memory.
pub type MetricsSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send>> + Send + Sync>;

/// A source, and the type of what it gives.
pub struct Metrics {
    pub content_type: &'static str,
    pub source: MetricsSource,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({})", self.content_type)
    }
}
