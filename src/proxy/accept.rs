//! Accepting clients, and serving their connections.
use super::caller::Caller;
use super::client::ClientSocket;
use super::footprint::Connected;
use super::guard;
use super::limits::{HEAD_BYTES, HEAD_TIME};
use super::peer::Peer;
use super::places::{Full, Places};
use super::refusals::Code;
use super::service;
use super::shared::Shared;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// After an accept that failed: descriptors or memory ran out, and trying at once would only burn the CPU.
const PAUSE: Duration = Duration::from_millis(100);
/// After this silence of a client its machine is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
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
            Ok((stream, address)) => {
                failing = false;
                welcome(stream, address.ip(), &shared, &places, stop.clone());
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

fn welcome(
    stream: TcpStream,
    address: IpAddr,
    shared: &Arc<Shared>,
    places: &Arc<Places>,
    stop: watch::Receiver<bool>,
) {
    prepare(&stream);
    let (peer, shared) = (Peer::new(stream), shared.clone());
    match places.enter(address) {
        Ok(ticket) => {
            let places = places.clone();
            tokio::spawn(guard::connection(async move {
                match ticket.place().await {
                    Ok(place) => {
                        let _connected = Connected::new(&shared);
                        let caller = Caller::new(shared.clone(), peer.clone(), Some(place));
                        let socket = ClientSocket::new(peer, caller.clone(), shared.limits.client_time());
                        serve(socket, caller, stop).await;
                    }
                    Err(full) => turn_away(peer, full, shared, &places).await,
                }
            }));
        }
        Err(full) => {
            let places = places.clone();
            tokio::spawn(guard::connection(async move { turn_away(peer, full, shared, &places).await }));
        }
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

/// Serves one client until it or the proxy has had enough, or another one needs its place.
pub(super) async fn serve<S>(socket: ClientSocket<S>, caller: Arc<Caller>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let for_requests = caller.clone();
    let answer = service_fn(move |request| service::answer(for_requests.clone(), request));
    let mut connection = pin!(builder(HEAD_TIME).serve_connection(TokioIo::new(socket), answer));
    // Errors here are the client's: it hung up, or does not speak HTTP. Both are its own business.
    let mut stopped = pin!(async move { stop.wait_for(|stop| *stop).await.is_ok() });
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = caller.gives_way() => return,
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
async fn turn_away(peer: Peer, full: Full, shared: Arc<Shared>, places: &Places) {
    let Some(_place) = places.turn_away() else { return };
    shared.refusals.count(Code::Overloaded);
    let caller = Caller::new(shared, peer.clone(), None);
    let socket = ClientSocket::new(peer, caller.clone(), Duration::from_secs(1));
    let answer = service_fn(|_| {
        caller.begin();
        async { Ok::<_, Infallible>(service::turned_away(full)) }
    });
    let mut builder = builder(Duration::from_secs(1));
    let _ = builder.keep_alive(false).serve_connection(TokioIo::new(socket), answer).await;
}

fn builder(head_time: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_time).max_buf_size(HEAD_BYTES);
    builder
}
