//! `GET /metrics`, wherever it is asked: all who ask wait in one short queue, and the thread of the control sockets answers
//! all of it with one text. So a scrape never reaches the loop or holds up the data plane, and many cost no more than one.
use super::picture::Picture;
use crate::heart::Heart;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Scrapes that may wait; one more is refused.
const WAITING_MAX: usize = 64;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gets the text of this moment. Sockets and endpoint each have one.
pub type Source = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send>> + Send + Sync>;

/// Those who wait.
pub struct Queue(mpsc::Receiver<oneshot::Sender<Bytes>>);

pub fn queue() -> (Source, Queue) {
    let (asking, waiting) = mpsc::channel::<oneshot::Sender<Bytes>>(WAITING_MAX);
    let source = Arc::new(move || -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send>> {
        let (answer, answered) = oneshot::channel();
        let asked = asking.try_send(answer);
        Box::pin(async move {
            asked.ok()?;
            timeout(PATIENCE, answered).await.ok()?.ok()
        })
    });
    (source, Queue(waiting))
}

impl Queue {
    /// Answers until nobody can ask any more.
    pub async fn answer(mut self, picture: Arc<Picture>, heart: Arc<Heart>) {
        while let Some(first) = self.0.recv().await {
            let mut waiting = vec![first];
            while let Ok(next) = self.0.try_recv() {
                waiting.push(next);
            }
            let text = Bytes::from(picture.metrics(&heart).await);
            // Who has left meanwhile needs none.
            waiting.into_iter().for_each(|asker| drop(asker.send(text.clone())));
        }
    }
}
