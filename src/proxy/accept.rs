//! Accepting clients, and serving their connections.
use super::client::ClientSocket;
use super::guard;
use super::limits::{HEAD_BYTES, HEAD_TIME};
use super::refusals::Code;
use super::service;
use super::shared::Shared;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// After an accept that failed: descriptors or memory ran out, and trying at once would only burn the CPU.
const PAUSE: Duration = Duration::from_millis(100);
/// After this silence of a client its machine is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Connections above the limit that are being told so at one time; further ones are closed without a word.
const TURNED_AWAY: usize = 64;

/// How many clients there may be.
#[derive(Debug)]
pub(super) struct Places {
    served: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

impl Places {
    pub fn new(max_connections: usize) -> Arc<Self> {
        let served = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { served, turned_away: Arc::new(Semaphore::new(TURNED_AWAY)) })
    }
}

/// Accepts until told to stop; the listener is closed then.
pub(super) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    places: Arc<Places>,
    mut stop: watch::Receiver<bool>,
) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                welcome(stream, &shared, &places, stop.clone());
            }
            Err(e) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error = %e, "connections cannot be accepted");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn welcome(stream: TcpStream, shared: &Arc<Shared>, places: &Places, stop: watch::Receiver<bool>) {
    prepare(&stream);
    let stall = shared.limits.request_timeout;
    if let Ok(place) = places.served.clone().try_acquire_owned() {
        let (shared, socket) = (shared.clone(), ClientSocket::new(stream, stall));
        tokio::spawn(guard::connection(async move {
            serve(socket, shared, stop).await;
            drop(place);
        }));
    } else if let Ok(place) = places.turned_away.clone().try_acquire_owned() {
        shared.refusals.count(Code::Overloaded);
        let socket = ClientSocket::new(stream, Duration::from_secs(1));
        tokio::spawn(guard::connection(async move {
            turn_away(socket).await;
            drop(place);
        }));
    }
}

fn prepare(stream: &TcpStream) {
    // Neither can fail in a way that matters: without them a connection is only slower to move or to be missed.
    // Small events must not wait for an acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    // A client whose machine is gone says nothing, and would be waited for while its engine computes.
    let alive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3);
    let _ = SockRef::from(stream).set_tcp_keepalive(&alive);
}

/// Serves one client until it or the proxy has had enough.
pub(super) async fn serve<S>(socket: ClientSocket<S>, shared: Arc<Shared>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(service::answer(shared, request).await) }
    });
    let mut connection = pin!(builder(HEAD_TIME).serve_connection(TokioIo::new(socket), answer));
    // Errors here are the client's: it hung up, or does not speak HTTP. Both are its own business.
    let mut stopped = pin!(async move { stop.wait_for(|stop| *stop).await.is_ok() });
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.as_mut() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a client's connection ended early");
    }
}

/// Tells one client more than there may be that it is one too many.
async fn turn_away(socket: ClientSocket<TcpStream>) {
    let answer = service_fn(|_| async { Ok::<_, Infallible>(service::turned_away()) });
    let mut builder = builder(Duration::from_secs(1));
    let _ = builder.keep_alive(false).serve_connection(TokioIo::new(socket), answer).await;
}

fn builder(head_time: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_time).max_buf_size(HEAD_BYTES);
    builder
}
