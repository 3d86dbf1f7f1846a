//! Further inference paths (`server.passthrough`): handed to the first ready tier as they come, both ways, and never
//! sent a second time once a byte went out. Only the model's name is put into the tier's words.
use super::attempt::{Attempt, Progress};
use super::body::{Next, Relay, ReplyBody};
use super::exchange::{Input, Refusal, Why};
use super::fingerprint::Fingerprint;
use super::intake::Unread;
use super::lost::Lost;
use super::outgoing::{ClientFault, Outgoing};
use super::overload;
use super::plan::NoTier;
use super::reply::OwnError;
use super::route::{RouteTable, TierRoute};
use super::shared::{Report, Shared};
use super::totals::{Account, End};
use super::upload::Upload;
use super::veil::Veil;
use super::wording::put_upstream_fields;
use super::{headers, origin, upload};
use crate::clock;
use crate::kinds::Api;
use crate::policy::{Moment, Path, Standing, TierId};
use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use hyper::body::{Incoming, SizeHint};
use hyper::{Request, Response};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// An answer on its way through.
#[derive(Debug)]
pub(super) struct Passage {
    shared: Arc<Shared>,
    attempt: Attempt,
    /// By its path, for what becomes of the tier's requests.
    request: Fingerprint,
    /// By its body, where that was read: for what is at an engine when it dies.
    present: Option<Fingerprint>,
    /// How it counts when it is whole.
    end: End,
    /// Of the request, which may still be on its way while its answer comes.
    fault: ClientFault,
    size: SizeHint,
    veil: Veil,
    deadline: Pin<Box<Sleep>>,
    /// How long a stream of events may be silent; `None` is no limit, and an answer of another kind.
    silence: Option<Duration>,
    handed: bool,
    over: bool,
}

/// What the client asks for, as long as nothing of it was sent.
struct Unsent {
    head: Parts,
    upload: Upload,
}

/// By what an upstream knows the request.
#[derive(Clone, Copy)]
struct Sender<'r> {
    request_id: &'r HeaderValue,
    fingerprint: Fingerprint,
    /// The mainstays that it went through, this one last.
    via: &'r Path,
}

/// How asking one tier ended without an answer.
enum Unanswered {
    /// The next tier may be asked. Without a loss the tier's run was ended.
    Unsent(Box<Unsent>, Option<Lost>),
    /// It is over.
    Sent(OwnError),
}

pub(super) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    request_id: &HeaderValue,
    at: Moment,
    via: &Path,
) -> Response<ReplyBody> {
    let (head, body) = request.into_parts();
    let fingerprint = Fingerprint::of_path(&shared.keys, head.uri.path());
    let Some(refuses) = headers::refuses_weakened(&head.headers) else {
        return OwnError::bad_degrade().into_response();
    };
    let body_time = (at + shared.limits.client_time()).since(clock::now());
    let reading = upload::read(&head.headers, body, &shared.limits, &shared.budget);
    let Ok(read) = tokio::time::timeout(body_time, reading).await else {
        return OwnError::slow_body().into_response();
    };
    let mut deadline = Box::pin(tokio::time::sleep(shared.limits.time_left(at)));
    let table = shared.routes.load_full();
    let mut unsent = match named(shared, &table, read).await {
        Ok(upload) => Box::new(Unsent { head, upload }),
        Err(error) => return error.into_response(),
    };
    let present = unsent.upload.fingerprint(&shared.keys, unsent.head.uri.path());
    let refused = present.and_then(|request| shared.suspects().refused_until(request, clock::now()));
    if let Some(until) = refused {
        return OwnError::poison(until).into_response();
    }
    let mut losses: Vec<(TierId, Why)> = Vec::new();
    let mut overload = None;
    let mut left: Option<Account> = None;
    for route in candidates(&table, refuses, via) {
        let Some(mut attempt) = Attempt::begin(route, present, true, None) else {
            overload.get_or_insert(Refusal::Full);
            continue;
        };
        if let Some(mut account) = left.take() {
            account.settle(End::FailedOver);
        }
        let fault = ClientFault::default();
        let asked = tokio::select! {
            asked = ask(shared, &mut attempt, route, unsent, Sender { request_id, fingerprint, via }, &fault) => asked,
            () = deadline.as_mut() => {
                attempt.account.settle(End::Refused);
                return OwnError::lost_on_the_way(&route.name, "no answer in time").into_response();
            }
        };
        match asked {
            Ok(head) => {
                return reply(shared, route, (attempt, fingerprint, present), head, fault, deadline);
            }
            Err(Unanswered::Sent(error)) => {
                attempt.account.settle(End::Refused);
                return error.into_response();
            }
            Err(Unanswered::Unsent(back, lost)) => {
                if matches!(lost, Some(Lost::Shortage(_))) {
                    overload = Some(Refusal::Shortage);
                }
                losses.push((route.tier, why(lost.as_ref())));
                unsent = back;
                left = Some(attempt.account);
            }
        }
    }
    if let Some(mut account) = left {
        account.settle(End::Refused);
    }
    none_left(&table, losses, overload, refuses, shared).into_response()
}

/// What the client sends, with the model's name found in it.
async fn named(
    shared: &Shared,
    table: &RouteTable,
    read: Result<Upload, Unread>,
) -> Result<Upload, OwnError> {
    let refuse = |unread| OwnError::unread(unread, shared.limits.max_body);
    let upload = read.map_err(refuse)?;
    upload.named(table, shared.limits.any_model, &shared.budget).await.map_err(refuse)
}

/// The tiers that may have the path and are open, best first, those last that asked to be left alone for now. One that is
/// leaving is DOWN, and gets nothing new. Nothing is capped here, but a tier whose other answers are weakened is none for a
/// client that refuses such.
fn candidates<'t>(table: &'t RouteTable, refuses: bool, via: &Path) -> Vec<&'t TierRoute> {
    let may = |route: &&TierRoute| (!refuses || route.degrade.is_none()) && !route.leads_back(via);
    let mut routes: Vec<_> = open(table).filter(may).collect();
    let now = clock::now();
    routes.sort_by_key(|route| route.live.is_busy(now));
    routes
}

fn open(table: &RouteTable) -> impl Iterator<Item = &TierRoute> {
    let ranks = if table.failover { table.tiers.len() } else { 1 };
    let tiers = table.tiers.iter().take(ranks);
    tiers.filter(|route| route.kind.api() == Api::OpenAi && route.standing_now() == Standing::Open)
}

fn none_left(
    table: &RouteTable,
    losses: Vec<(TierId, Why)>,
    overload: Option<Refusal>,
    refuses: bool,
    shared: &Shared,
) -> OwnError {
    let lacks_it = |route: &&TierRoute| route.kind.api() != Api::OpenAi;
    let reason = |route: &TierRoute| (route.tier, "this path is not translated".to_owned());
    if !table.tiers.is_empty() && table.tiers.iter().all(|route| lacks_it(&route)) {
        let reasons = table.tiers.iter().map(reason).collect();
        return OwnError::no_tier(NoTier::NobodyCarries(reasons), table, shared);
    }
    if refuses && losses.is_empty() && overload.is_none() && open(table).next().is_some() {
        return OwnError::no_tier(NoTier::OnlyWeakened, table, shared);
    }
    let is_up = |route: &&TierRoute| route.standing_now() != Standing::Closed;
    let skipped: Vec<_> = table.tiers.iter().filter(lacks_it).filter(is_up).map(reason).collect();
    OwnError::refusal(overload.unwrap_or(Refusal::Failed(losses)), &skipped, table, shared)
}

type Head = (u16, http::HeaderMap);

async fn ask(
    shared: &Shared,
    attempt: &mut Attempt,
    route: &TierRoute,
    unsent: Box<Unsent>,
    sender: Sender<'_>,
    fault: &ClientFault,
) -> Result<Head, Unanswered> {
    let max = shared.limits.max_body;
    let heavy = shared.budget.heavy();
    let mut unsent = Some(unsent);
    // The upload's memory, until it was sent.
    let mut _lease = None;
    loop {
        let lost = match poll_fn(|cx| attempt.poll(cx)).await {
            Progress::Connected => {
                let Some(Unsent { head, upload }) = unsent.take().map(|u| *u) else { continue };
                let stall = shared.limits.body_stall;
                let (body, memory) = upload.outgoing(&route.model, max, stall, fault.clone(), heavy).await;
                _lease = memory;
                let further = &shared.limits.forward_headers;
                match rewritten(head, body, route, attempt, sender, further) {
                    Some(request) => attempt.send(request),
                    None => return Err(sent(route, "its address makes no URL")),
                }
                continue;
            }
            Progress::Asked { input: Input::Head { status, headers }, .. } => {
                return match status {
                    200..=299 | 400.. => Ok((status, headers)),
                    // Whoever is there is not an inference engine, and a client is not sent elsewhere by it.
                    _ => {
                        attempt.live.failed(sender.fingerprint, attempt.began, false);
                        let why = Why::status(status, "neither an answer nor an error", elsewhere(&headers));
                        let (tier, run, evidence) = (attempt.tier, attempt.run, why.to_string());
                        let _ = shared.reports.try_send(Report::Misconfigured { tier, run, evidence });
                        Err(sent(route, why))
                    }
                };
            }
            Progress::Asked { input: Input::Lost(lost), .. } | Progress::Other(Input::Lost(lost)) => {
                Some(lost)
            }
            Progress::Asked { input: Input::Cut, .. } | Progress::Other(Input::Cut) => None,
            Progress::Asked { .. } | Progress::Other(_) => continue,
        };
        if let Some(fault) = fault.get() {
            return Err(Unanswered::Sent(OwnError::unread(fault.clone(), max)));
        }
        // A run that is ended on purpose has not failed, nor one that could not be reached for want of a socket.
        if !matches!(lost, None | Some(Lost::Shortage(_))) {
            attempt.live.failed(sender.fingerprint, attempt.began, false);
        }
        if lost == Some(Lost::Refused) {
            let (tier, run, at) = (attempt.tier, attempt.run, clock::now());
            let _ = shared.reports.try_send(Report::Refused { tier, run, at });
        }
        return Err(match unsent {
            Some(unsent) => Unanswered::Unsent(unsent, lost),
            None => sent(route, why(lost.as_ref())),
        });
    }
}

/// Where the upstream wanted to send the client, for the log.
fn elsewhere(headers: &http::HeaderMap) -> String {
    let location = headers.get(http::header::LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(location).into_owned()
}

fn why(lost: Option<&Lost>) -> Why {
    lost.map_or_else(|| "its run is ended".into(), Why::from)
}

fn sent(route: &TierRoute, why: impl Into<Why>) -> Unanswered {
    Unanswered::Sent(OwnError::lost_on_the_way(&route.name, why))
}

/// The client's request for `route`'s engine: its own path and query.
fn rewritten(
    head: Parts,
    body: Outgoing,
    route: &TierRoute,
    attempt: &Attempt,
    Sender { request_id, via, .. }: Sender<'_>,
    further: &[String],
) -> Option<Request<Outgoing>> {
    let to = attempt.upstream();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = format!("{}{path}", to.base_path).parse().ok()?;
    *request.headers_mut() = headers::to_upstream(&head.headers, route.kind, further);
    put_upstream_fields(request.headers_mut(), route.kind, to, request_id, via)?;
    Some(request)
}

fn reply(
    shared: &Arc<Shared>,
    route: &TierRoute,
    (attempt, request, present): (Attempt, Fingerprint, Option<Fingerprint>),
    (status, upstream): Head,
    fault: ClientFault,
    deadline: Pin<Box<Sleep>>,
) -> Response<ReplyBody> {
    let end = match status {
        500.. => End::Refused,
        400.. => End::ClientError,
        _ => End::Answered,
    };
    if matches!(status, 429 | 503) {
        let asked = overload::retry_after(&upstream, clock::wall_ms() / 1000);
        attempt.live.leave_alone(overload::pause(asked));
    }
    let size = attempt.size_hint();
    let veil = Veil::new(shared.redactor.clone());
    let streams = origin::media_type(&upstream).eq_ignore_ascii_case(b"text/event-stream");
    let silence = shared.limits.request_timeout.filter(|_| streams);
    let mut passage = Passage {
        shared: shared.clone(),
        attempt,
        request,
        present,
        end,
        fault,
        size,
        veil,
        deadline,
        silence,
        handed: false,
        over: false,
    };
    passage.note_end();
    let mut response = Response::new(ReplyBody::relayed(Box::new(passage)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers::to_client(&upstream, &shared.redactor);
    response.headers_mut().insert(headers::TIER, headers::value_of(&route.name));
    response
}

impl Passage {
    /// Counts the answer once it was read to its end.
    fn note_end(&mut self) {
        if !self.over && self.attempt.has_ended() {
            self.end();
        }
    }

    fn end(&mut self) {
        self.over = true;
        let Attempt { live, tier, began, .. } = &self.attempt;
        if self.end == End::Answered {
            live.succeeded(self.request, *began);
        }
        if self.end != End::Refused {
            self.present.iter().for_each(|of| self.shared.suspects().answered(*of, *tier, *began));
        }
        self.attempt.account.settle(self.end);
    }

    /// A stream that flows has no end that is known before: only its silence has a limit.
    fn flows(&mut self) {
        if let Some(silence) = self.silence {
            self.deadline.as_mut().reset(Instant::now() + silence);
        }
    }

    /// What the client may have of `data` now, and of what was held back before; `None` when that is nothing.
    fn unveiled(&mut self, data: Bytes) -> Option<Bytes> {
        let mut shown = self.veil.push(data);
        if self.over {
            let rest = self.veil.finish();
            shown = if rest.is_empty() { shown } else { Bytes::from([shown, rest].concat()) };
        }
        if shown.is_empty() {
            return None;
        }
        self.handed = true;
        self.attempt.visit.set_stalled(true);
        Some(shown)
    }

    /// The client's connection ends so that it sees that the answer is not whole.
    fn cut(&mut self) -> io::Error {
        self.over = true;
        self.attempt.account.settle(End::Cut);
        io::Error::other("the answer was cut")
    }
}

impl Relay for Passage {
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Next {
        if std::mem::take(&mut self.handed) {
            self.attempt.visit.set_stalled(false);
            // The client's time to read is not the stream's silence.
            self.flows();
        }
        if self.over {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(self.cut())));
        }
        loop {
            let input = match ready!(self.attempt.poll(cx)) {
                Progress::Asked { input, .. } | Progress::Other(input) => input,
                Progress::Connected => continue,
            };
            match input {
                Input::Data(data) if data.is_empty() => {}
                Input::Data(data) => {
                    self.flows();
                    self.note_end();
                    if let Some(data) = self.unveiled(data) {
                        return Poll::Ready(Some(Ok(data)));
                    }
                    if self.over {
                        return Poll::Ready(None);
                    }
                }
                Input::End => {
                    self.end();
                    return Poll::Ready(self.unveiled(Bytes::new()).map(Ok));
                }
                Input::Broken | Input::Lost(_) if self.fault.get().is_some() => {
                    self.over = true;
                    return Poll::Ready(Some(Err(io::Error::other("the request's body ended early"))));
                }
                Input::Broken | Input::Lost(_) => {
                    self.attempt.live.failed(self.request, self.attempt.began, false);
                    return Poll::Ready(Some(Err(self.cut())));
                }
                Input::Cut => return Poll::Ready(Some(Err(self.cut()))),
                Input::Standing(_)
                | Input::Full
                | Input::Sent
                | Input::Head { .. }
                | Input::Resumed(_)
                | Input::NoRoom
                | Input::Wake => {}
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
