//! A decision on its way to its answer: counted, recorded and waited for, as the audit asks. While it
//! waits it holds what its answer needs and no more, since many may wait for one disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use ulid::Ulid;

use super::refusal::{NotAReview, json};
use super::{Live, Shared};
use crate::admission::chain::Mode;
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::review::{Kind, Review};
use crate::admission::trace::Trace;
use crate::observe::audit::Given;
use crate::observe::recent::Entry;
use crate::observe::record::{Level, Record, Stage};
use crate::observe::redaction;
use crate::observe::traces::Ended;
use crate::protocol::dstack::{decode_request, encode_answer};

/// The response header that carries the decision's name.
const DECISION_HEADER: HeaderName = HeaderName::from_static("x-dstack-admission-decision");

/// What a review can be made of again. It is one piece of memory; the review itself is many, and
/// is gone while its record is waited for.
#[derive(Clone)]
pub(super) struct Received {
    pub id: Ulid,
    pub kind: Kind,
    pub at: SystemTime,
    pub trace: Option<Trace>,
    pub body: Bytes,
}

impl Received {
    /// The review, without the headers that are forwarded.
    ///
    /// # Errors
    /// When the body holds none.
    pub fn review(&self) -> Result<Review, NotAReview> {
        let request = decode_request(&self.body).map_err(NotAReview::Body)?;
        Ok(Review {
            id: self.id.to_string(),
            kind: self.kind,
            user: request.user,
            project: request.project,
            received: self.at,
            headers: Vec::new(),
            trace: self.trace.clone(),
            spec: request.spec,
        })
    }

    /// A denial without asking any plugin.
    ///
    /// # Errors
    /// As [`Received::review`].
    pub fn refused(&self, why: &str) -> Result<Decision, NotAReview> {
        Ok(Decision::refused(Arc::new(self.review()?), why))
    }
}

/// Records a decision before it is answered. Where the audit must be complete and this record
/// cannot be written, the review is denied instead.
///
/// # Errors
/// When what was received is no review after all.
pub(super) async fn record(
    shared: &Shared,
    live: &Live,
    received: &Received,
    decision: Decision,
    started: Instant,
) -> Result<Settled, NotAReview> {
    let mut decision = decision;
    let redacted = redaction::redact(&mut decision, &live.recording.secrets);
    let repeat_of = shared.repeats.of(&decision.review);
    let took = started.elapsed();
    let record = recorded(live, &decision, took, &redacted, repeat_of.as_deref());
    let given = give(shared, live, &record);
    record.log_faults();
    // The log says what was answered, which only the disk knows where the audit is strict.
    let mut answered = given.may_deny().then(|| record.log_line().into_owned());
    if answered.is_none() {
        record.log_line().write();
    }
    let mut settled = Settled::new(live, decision, repeat_of.clone());
    if let Err(unwritten) = given.written().await {
        shared.metrics.audit.requests_rejected.inc();
        let mut denial = received.refused(&unwritten.to_string())?;
        let redacted = redaction::redact(&mut denial, &live.recording.secrets);
        let took = started.elapsed();
        let record = recorded(live, &denial, took, &redacted, repeat_of.as_deref());
        answered = Some(record.log_line().into_owned());
        live.audit.write_denial(&record, &unwritten);
        settled = Settled::new(live, denial, repeat_of);
    }
    if let Some(line) = answered {
        line.write();
    }
    settled.count(shared, live, started.elapsed());
    Ok(settled)
}

/// What is left of a decision while its record is waited for.
pub(super) struct Settled {
    pub response: Response<Full<Bytes>>,
    kind: Kind,
    project: String,
    decided: &'static str,
    /// Something failed, and nothing else denies it.
    failed: bool,
    /// For the page of decisions.
    entry: Option<Entry>,
    /// The decision, if monitored plugins are to be asked or spans to be made of it.
    kept: Option<Decision>,
    monitored: bool,
}

impl Settled {
    /// What the plugins said counts for them, whatever becomes of the record.
    fn new(live: &Live, decision: Decision, repeat_of: Option<String>) -> Self {
        live.plugins.decided(&decision);
        let mut members = live.engine.chain().members().iter();
        let monitored = members.any(|member| member.mode == Mode::Monitor);
        Self {
            response: respond(&decision),
            kind: decision.review.kind,
            project: decision.review.project.clone(),
            decided: decision.as_str(),
            failed: failed(&decision),
            entry: live
                .decisions_page
                .then(|| Entry::new(&decision, repeat_of)),
            monitored,
            kept: (monitored || live.tracer.is_on()).then_some(decision),
        }
    }

    /// The answer, and the decision if monitored plugins are to be asked.
    pub fn into_parts(self) -> (Response<Full<Bytes>>, Option<Decision>) {
        (self.response, self.kept.filter(|_| self.monitored))
    }

    fn count(&mut self, shared: &Shared, live: &Live, took: Duration) {
        let (kind, project) = (self.kind, &self.project);
        shared.metrics.decided(kind, project, self.decided, took);
        if self.failed {
            shared.metrics.request_failed_total.inc();
        }
        if let Some(entry) = self.entry.take() {
            shared.recent.decided(entry, took);
        }
        if let Some(decision) = &self.kept {
            live.tracer.decided(&Ended {
                decision,
                began: decision.review.received,
                took,
                configuration: &live.hash,
            });
        }
    }
}

/// Gives a record to the audit. The log is told by whoever knows what was answered.
pub(super) fn give<'l>(shared: &Shared, live: &'l Live, record: &Record<'_>) -> Given<'l> {
    if record.level() > Level::None {
        shared.metrics.audit_event_total.inc();
    }
    live.audit.give(record)
}

fn recorded<'r>(
    live: &'r Live,
    decision: &'r Decision,
    took: Duration,
    redacted: &'r [String],
    repeat_of: Option<&'r str>,
) -> Record<'r> {
    Record {
        decision,
        stage: Stage::ResponseComplete,
        took,
        completed: decision.review.received + took,
        configuration: &live.hash,
        recording: &live.recording,
        redacted,
        repeat_of,
    }
}

/// Whether a review is denied though no policy denies it.
fn failed(decision: &Decision) -> bool {
    let by_policy = |part: &Part| matches!(part.result, PartResult::Denied(_));
    !decision.allowed() && !decision.parts.iter().any(by_policy)
}

fn respond(decision: &Decision) -> Response<Full<Bytes>> {
    let review = &decision.review;
    let warnings: Vec<String> = decision.warnings().collect();
    let body = encode_answer(&decision.answer(), decision.denial(), &review.id, &warnings);
    let mut response = json(StatusCode::OK, body);
    if let Ok(id) = HeaderValue::from_str(&review.id) {
        response.headers_mut().insert(DECISION_HEADER, id);
    }
    response
}
