//! The two sockets. Whoever connects is bounded in number and time, so that a slow or garbled client costs nobody but
//! itself; a policy loop that does not answer becomes a 503, never a client that hangs.
use super::events::{Endless, events};
use super::served::{Order, Refused, Served, problem};
use super::{CONTROL_SOCKET, STATUS_SOCKET, metrics, wire};
use crate::descriptors;
use crate::policy::Command;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path as InPath, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Conversations at a time, for each socket, and fewer where descriptors are short. One more waits for a place, and then
/// ends the oldest.
const MOST_GUESTS: u64 = 64;
/// How long it waits: many times what an answer takes, so that only who holds a place without a word loses it.
const PLACE: Duration = Duration::from_secs(1);
/// From the connection to the end of the request's head.
const HEAD: Duration = Duration::from_secs(5);
/// A whole conversation: one request and its answer.
const CONVERSATION: Duration = Duration::from_secs(30);
/// How long the agent may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// After a failed `accept` (no descriptors left): time for others to give some back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Both sockets, open. Dropping it ends every conversation and removes the files.
#[derive(Debug)]
pub struct Open {
    /// Held for its drop, which ends both doors with all their guests.
    _doors: JoinSet<()>,
    paths: [PathBuf; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens both sockets in `run_dir` and serves them on the runtime that this is called on. Sockets that a former agent
/// left are replaced. Whoever calls this holds the directory's lock.
///
/// # Errors
/// When a socket cannot be made; the message names it.
pub async fn serve(run_dir: &Path, served: Served) -> io::Result<Open> {
    let paths = [run_dir.join(STATUS_SOCKET), run_dir.join(CONTROL_SOCKET)];
    let status = listen(&paths[0], 0o660)?;
    let control = listen(&paths[1], 0o600)?;
    let mut doors = JoinSet::new();
    let questions = questions().fallback(nothing_to_post);
    let commands = commands(served.faults.is_some()).fallback(nothing_here);
    // It holds for the routes that are there when it is set, so it comes last.
    let whole =
        |routes: Router<Served>| routes.method_not_allowed_fallback(not_allowed).with_state(served.clone());
    doors.spawn(attend(status, whole(questions)));
    doors.spawn(attend(control, whole(commands)));
    Ok(Open { _doors: doors, paths })
}

/// A listening socket at `path`. Its name appears only once its rights are set and it takes connections, and an old
/// socket of that name works up to that instant.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen at {}: {e}", path.display()));
    let new = path.with_extension("new");
    let open = || -> io::Result<UnixListener> {
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(&new)?)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        fs::rename(&new, path)?;
        UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))
    };
    open().map_err(named)
}

fn questions() -> Router<Served> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/metrics", get(scrape))
}

fn commands(faults: bool) -> Router<Served> {
    let with_commands = questions().route("/v1/tiers/{name}/{command}", post(operate));
    if faults { with_commands.route("/v1/faults/{name}", post(fault)) } else { with_commands }
}

async fn attend(listener: UnixListener, routes: Router) {
    let most = descriptors::share(descriptors::limit(), MOST_GUESTS) as usize;
    let mut talks = JoinSet::new();
    let mut guests: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        while talks.try_join_next().is_some() {}
        if talks.len() >= most {
            let _ = timeout(PLACE, talks.join_next()).await;
        }
        guests.retain(|guest| !guest.is_finished());
        if guests.len() >= most
            && let Some(oldest) = guests.pop_front()
        {
            oldest.abort();
        }
        guests.push_back(talks.spawn(converse(stream, routes.clone())));
    }
}

/// One request and its answer. Without keep-alive, so that an idle client holds no place.
async fn converse(stream: UnixStream, routes: Router) {
    let endless = Endless::default();
    let routes = routes.layer(Extension(endless.clone()));
    let talk = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    tokio::pin!(talk);
    // What a client did wrong is its own affair, and it has been told as far as it listens.
    if timeout(CONVERSATION, &mut talk).await.is_err() && endless.is_set() {
        let _ = talk.await;
    }
}

async fn status(State(served): State<Served>) -> Response {
    match timeout(ANSWER, (served.status)()).await {
        Ok(status) => Json(status).into_response(),
        Err(_) => no_answer(),
    }
}

async fn scrape(State(served): State<Served>) -> Response {
    match (served.metrics)().await {
        Some(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => no_answer(),
    }
}

async fn operate(
    State(served): State<Served>,
    path: Result<InPath<(String, String)>, PathRejection>,
) -> Response {
    let Ok(InPath((tier, word))) = path else { return nothing_here().await };
    let command = match word.as_str() {
        "restart" => Command::Restart,
        "start" => Command::Start,
        "stop" => Command::Stop,
        _ => return nothing_here().await,
    };
    let (answer, answered) = oneshot::channel();
    if served.operator.try_send(Order { tier: tier.clone(), command, answer }).is_err() {
        let sentence = "the agent takes no command now: it is ending, or has too many before this one; try again in a moment";
        return problem(StatusCode::SERVICE_UNAVAILABLE, "agent_busy", sentence);
    }
    match timeout(ANSWER, answered).await {
        Ok(Ok(Ok(seq))) => (StatusCode::ACCEPTED, Json(wire::Accepted { seq })).into_response(),
        Ok(Ok(Err(Refused::NotFound(names)))) => problem(
            StatusCode::NOT_FOUND,
            "tier_not_found",
            &format!("there is no tier {tier:?}; there is: {}", names.join(", ")),
        ),
        Ok(Ok(Err(Refused::Conflict(why)))) => problem(StatusCode::CONFLICT, "conflict", &why),
        Ok(Err(_)) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "agent_ending",
            "the agent is ending; try again when the next one runs",
        ),
        Err(_) => no_answer(),
    }
}

async fn fault(State(served): State<Served>, path: Result<InPath<String>, PathRejection>) -> Response {
    let (Ok(InPath(name)), Some(faults)) = (path, served.faults) else { return nothing_here().await };
    if faults(&name) { StatusCode::ACCEPTED.into_response() } else { nothing_here().await }
}

async fn nothing_here() -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

/// On the socket of questions a command is refused before anybody looks whether its path exists.
async fn nothing_to_post(method: Method) -> Response {
    if method == Method::GET || method == Method::HEAD { nothing_here().await } else { not_allowed().await }
}

async fn not_allowed() -> Response {
    let sentence = format!("this method cannot be used here; commands are a POST on {CONTROL_SOCKET}");
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &sentence)
}

fn no_answer() -> Response {
    let sentence = format!(
        "the agent has not answered for {} s; its log says more (journalctl -u mainstay), and its watchdog ends it when \
         that lasts",
        ANSWER.as_secs()
    );
    problem(StatusCode::SERVICE_UNAVAILABLE, "agent_stuck", &sentence)
}
