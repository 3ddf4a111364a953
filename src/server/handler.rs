//! One request to the review port, from its headers to its answer.
//!
//! Whatever becomes of a review, its answer is HTTP 200 with `spec` and `error`, since the dstack
//! server shows its user nothing else. Other statuses are for what is not a review.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use ulid::Ulid;

use super::auth::Authenticated;
use super::refusal::NotAReview;
use super::settled::{Received, give, record};
use super::{Limits, Live, Shared};
use crate::admission::decision::Decision;
use crate::admission::review::{Kind, Review};
use crate::admission::trace::Trace;
use crate::observe::record::{Record, Stage};
use crate::observe::redaction;
use crate::observe::traces::Ended;
use crate::protocol::dstack::kind_of_path;

/// Answers one request.
pub async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match review(&shared, request).await {
        Ok(response) => response,
        Err(not_a_review) => {
            let code = not_a_review.status();
            shared
                .metrics
                .http_error_total
                .with_label_values(&[code.as_str()])
                .inc();
            tracing::info!(code = code.as_u16(), why = %not_a_review, "request refused");
            not_a_review.into_response()
        }
    }
}

async fn review(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, NotAReview> {
    let live = shared.live.load_full();
    let caller = live.auth.authenticate(request.headers())?;
    let kind = route(&request, &live)?;
    let headers = forwarded(request.headers(), &live.forward_headers);
    let trace = live.tracer.place(request.headers());
    let body = collect(request, &shared.limits).await?;
    let started = Instant::now();
    let (received, review) = decode(caller, kind, headers, trace, body)?;
    decide(shared, live, received, review, started).await
}

fn route(request: &Request<Incoming>, live: &Live) -> Result<Kind, NotAReview> {
    let kind = kind_of_path(request.uri().path(), &live.path_prefix).ok_or(NotAReview::Path)?;
    match *request.method() {
        Method::POST => Ok(kind),
        _ => Err(NotAReview::Method),
    }
}

/// The listed headers, each with all its values in their order.
fn forwarded<'n>(headers: &HeaderMap, names: &'n [String]) -> Vec<(String, String)> {
    let values = |name: &'n String| {
        let texts = headers.get_all(name).iter();
        let texts = texts.filter_map(|value| value.to_str().ok());
        texts.map(move |text| (name.clone(), text.to_owned()))
    };
    names.iter().flat_map(values).collect()
}

async fn collect(request: Request<Incoming>, limits: &Limits) -> Result<Bytes, NotAReview> {
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.body_bytes as u64) {
        return Err(NotAReview::TooLarge(limits.body_bytes));
    }
    let body = Limited::new(request.into_body(), limits.body_bytes).collect();
    match tokio::time::timeout(limits.body_timeout, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(NotAReview::TooLarge(limits.body_bytes))
        }
        Ok(Err(error)) => Err(NotAReview::BrokenOff(error.to_string())),
        Err(_) => Err(NotAReview::Slow(limits.body_timeout)),
    }
}

fn decode(
    _caller: Authenticated,
    kind: Kind,
    headers: Vec<(String, String)>,
    trace: Option<Trace>,
    body: Bytes,
) -> Result<(Received, Arc<Review>), NotAReview> {
    let received = Received {
        id: Ulid::generate(),
        kind,
        at: SystemTime::now(),
        trace,
        body,
    };
    let mut review = received.review()?;
    review.headers = headers;
    Ok((received, Arc::new(review)))
}

/// Takes a review through the chain and records what came of it. The work is not the
/// connection's, so that a caller who hangs up loses neither the decision's record, nor its turn's end, nor what the
/// monitored plugins say.
async fn decide(
    shared: &Arc<Shared>,
    live: Arc<Live>,
    received: Received,
    review: Arc<Review>,
    started: Instant,
) -> Result<Response<Full<Bytes>>, NotAReview> {
    let turn = match take_turn(shared).await {
        Some(turn) => turn,
        None => {
            shared.metrics.shed_total.inc();
            let busy = "too many reviews are in hand; try again in a moment";
            let denial = Decision::refused(review, busy);
            let settled = record(shared, &live, &received, denial, started).await?;
            return Ok(settled.response);
        }
    };
    let work = {
        let (shared, live, received) = (Arc::clone(shared), Arc::clone(&live), received.clone());
        async move {
            let decision = live.engine.decide(review, started).await;
            let settled = record(&shared, &live, &received, decision, started).await?;
            drop(turn);
            let (response, to_monitor) = settled.into_parts();
            if let Some(decision) = to_monitor {
                monitor(&shared, live, decision);
            }
            Ok(response)
        }
    };
    match finish(shared, work).await {
        Ok(answered) => answered,
        Err(error) => {
            tracing::error!(id = %received.id, %error, "a review ended in an internal error");
            let why = "an internal error of dstack-admission; its log says more";
            let denial = received.refused(why)?;
            let settled = record(shared, &live, &received, denial, started).await?;
            Ok(settled.response)
        }
    }
}

/// Does the work that waits for nothing at once; as soon as it waits, it becomes a task of its own.
async fn finish<W>(shared: &Shared, work: W) -> Result<W::Output, String>
where
    W: Future<Output: Send> + Send + 'static,
{
    let mut work = Box::pin(work);
    let at_once = AssertUnwindSafe(|| work.as_mut().now_or_never());
    match std::panic::catch_unwind(at_once) {
        Ok(Some(answered)) => Ok(answered),
        Ok(None) => shared.tasks.spawn(work).await.map_err(|e| e.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// A place among the reviews in hand, held until the work is done.
struct Turn {
    _permit: OwnedSemaphorePermit,
    shared: Arc<Shared>,
}

async fn take_turn(shared: &Arc<Shared>) -> Option<Turn> {
    let waiting = Arc::clone(&shared.turns).acquire_owned();
    let permit = match Arc::clone(&shared.turns).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => tokio::time::timeout(shared.limits.in_flight_wait, waiting)
            .await
            .ok()?
            .ok()?,
    };
    shared.metrics.in_flight.inc();
    Some(Turn {
        _permit: permit,
        shared: Arc::clone(shared),
    })
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.metrics.in_flight.dec();
    }
}

/// Asks the monitored plugins after the answer, so that they cost the user nothing.
fn monitor(shared: &Arc<Shared>, live: Arc<Live>, decision: Decision) {
    let shared = Arc::clone(shared);
    shared.clone().tasks.spawn(async move {
        let (began, started) = (SystemTime::now(), Instant::now());
        let mut shadow = live.engine.monitor(&decision).await;
        let redacted = redaction::redact(&mut shadow, &live.recording.secrets);
        live.plugins.monitored(&shadow);
        live.tracer.monitored(&Ended {
            decision: &shadow,
            began,
            took: started.elapsed(),
            configuration: &live.hash,
        });
        let record = Record {
            decision: &shadow,
            stage: Stage::MonitorComplete,
            took: started.elapsed(),
            completed: SystemTime::now(),
            configuration: &live.hash,
            recording: &live.recording,
            redacted: &redacted,
            repeat_of: None,
        };
        if !shadow.parts.is_empty() {
            record.log();
            // An answered review cannot be denied any more; the sink has counted the loss.
            let _ = give(&shared, &live, &record).written().await;
            if live.decisions_page {
                shared.recent.monitored(&record);
            }
        }
    });
}
