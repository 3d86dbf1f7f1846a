//! An answer that goes on: lines as they come.
use super::{Failure, not_connected, refusal};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// For the head of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// With no line for this long, whoever takes them is asked whether it still wants more.
const PAUSE: Duration = Duration::from_millis(200);
/// An event is far shorter.
const LONGEST_LINE: usize = 1 << 20;
/// A refusal.
const LONGEST_ERROR: usize = 64 * 1024;

/// Gives each line to `take`, and `None` in every pause, until that says false or the answer ends.
pub(super) fn lines(
    socket: &Path,
    path: &str,
    take: impl FnMut(Option<&str>) -> bool,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| garbled(socket, format!("no event loop: {e}")))?;
    runtime.block_on(read(socket, path, take))
}

async fn read(socket: &Path, path: &str, mut take: impl FnMut(Option<&str>) -> bool) -> Result<(), Failure> {
    let broken = |why: String| garbled(socket, why);
    let silent = |_| Failure::NoAgent {
        socket: socket.to_owned(),
        why: format!("it took the connection and said nothing for {} s", PATIENCE.as_secs()),
    };
    let stream = UnixStream::connect(socket).await.map_err(|e| not_connected(socket, &e))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(e.to_string()))?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "mainstay").body(Empty::<Bytes>::new());
    let request = request.map_err(|e| broken(e.to_string()))?;
    let answer = timeout(PATIENCE, sender.send_request(request)).await.map_err(silent)?;
    let (head, mut body) = answer.map_err(|e| broken(e.to_string()))?.into_parts();
    if head.status != StatusCode::OK {
        let text = Limited::new(body, LONGEST_ERROR).collect().await.map_err(|e| broken(e.to_string()))?;
        return Err(refusal(head.status, &text.to_bytes()));
    }
    let mut unfinished = Vec::new();
    loop {
        let frame = match timeout(PAUSE, body.frame()).await {
            Err(_) if take(None) => continue,
            Err(_) | Ok(None) => return Ok(()),
            // The agent has gone in the middle; what it said was whole up to here.
            Ok(Some(Err(_))) => return Ok(()),
            Ok(Some(Ok(frame))) => frame,
        };
        unfinished.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
        while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unfinished.drain(..=end).collect();
            if !take(Some(&String::from_utf8_lossy(&line[..end]))) {
                return Ok(());
            }
        }
        if unfinished.len() > LONGEST_LINE {
            return Err(broken("it sends lines without end".to_owned()));
        }
    }
}

fn garbled(socket: &Path, why: String) -> Failure {
    Failure::Garbled { socket: socket.to_owned(), why }
}
