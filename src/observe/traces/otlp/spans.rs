//! From a decision to its spans, with the attributes that OpenTelemetry's conventions name for HTTP
//! and our own below `dstack_admission`. Nothing that a spec or a plugin says is in them.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{
    SpanContext, SpanId as OtelSpanId, SpanKind, Status, TraceFlags, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::super::super::record::verdict;
use super::super::{About, Ended, Site};
use crate::admission::chain::Member;
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::review::Kind;
use crate::admission::trace::{SpanId, Trace};
use crate::admission::verdict::FaultKind;

/// What is the same for every span of a configuration.
pub(in super::super) struct Facts {
    scope: InstrumentationScope,
    scheme: &'static str,
    paths: [Arc<str>; 4],
    members: Vec<Facets>,
}

/// What is the same for every call of a plugin.
struct Facets {
    name: String,
    attributes: Vec<KeyValue>,
    /// What is added when a request left for it. None: it is not called over HTTP.
    request: Option<Vec<KeyValue>>,
}

impl Facts {
    pub fn of<'p, P>(
        site: &Site<'_>,
        members: &'p [Member<P>],
        about: impl Fn(&'p P) -> About<'p>,
    ) -> Self {
        Self {
            scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            scheme: site.scheme,
            paths: Kind::ALL.map(|kind| (site.path)(kind).into()),
            members: members
                .iter()
                .map(|member| Facets::of(member, about(&member.plugin)))
                .collect(),
        }
    }

    /// The review's own span, and those of the plugins that were asked.
    pub fn of_review(&self, ended: &Ended<'_>) -> Vec<SpanData> {
        let mut spans = self.of_plugins(ended);
        let review = &ended.decision.review;
        let Some((trace, own)) = place(ended.decision) else {
            return spans;
        };
        let path = &self.paths[review.kind as usize];
        let text = |key, value: &str| KeyValue::new(key, value.to_owned());
        let mut attributes = vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.response.status_code", 200),
            shared("http.route", path),
            shared("url.path", path),
            KeyValue::new("url.scheme", self.scheme),
            text("user.name", &review.user),
            text("dstack_admission.audit_id", &review.id),
            KeyValue::new("dstack_admission.decision", ended.decision.as_str()),
            KeyValue::new("dstack_admission.kind", review.kind.as_str()),
            text("dstack_admission.project", &review.project),
            text("dstack_admission.configuration", ended.configuration),
        ];
        let error = error_of(ended.decision);
        attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
        spans.push(SpanData {
            span_context: context(trace, own),
            parent_span_id: id(trace.parent),
            parent_span_is_remote: trace.parent.is_some(),
            span_kind: SpanKind::Server,
            name: format!("POST {path}").into(),
            attributes,
            status: status(error),
            ..self.span(ended.began, ended.began + ended.took)
        });
        spans
    }

    /// The spans of the plugins that were asked.
    pub fn of_plugins(&self, ended: &Ended<'_>) -> Vec<SpanData> {
        let Some((trace, parent)) = place(ended.decision) else {
            return Vec::new();
        };
        // One more is the review's own.
        let mut spans = Vec::with_capacity(ended.decision.parts.len() + 1);
        for part in &ended.decision.parts {
            let facets = self.members.get(part.member);
            if let (Some(own), Some(facets)) = (part.span, facets) {
                let began = ended.began + part.began;
                let (kind, attributes) = facets.attributes(part);
                spans.push(SpanData {
                    span_context: context(trace, own),
                    parent_span_id: id(Some(parent)),
                    span_kind: kind,
                    name: facets.name.clone().into(),
                    attributes,
                    status: status(failure(part)),
                    ..self.span(began, began + part.took)
                });
            }
        }
        spans
    }

    /// A span of which only its time is known.
    fn span(&self, start_time: SystemTime, end_time: SystemTime) -> SpanData {
        SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: OtelSpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "".into(),
            start_time,
            end_time,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

impl Facets {
    fn of<P>(member: &Member<P>, about: About<'_>) -> Self {
        let request = about.url.map(|url| {
            let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
            let port = match url.scheme_str() {
                Some("http") => 80,
                _ => 443,
            };
            let port = url.port_u16().unwrap_or(port);
            vec![
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("server.address", host.to_owned()),
                KeyValue::new("server.port", i64::from(port)),
            ]
        });
        Self {
            name: format!("plugin {}", member.name),
            attributes: vec![
                shared("dstack_admission.plugin.name", &member.name),
                KeyValue::new("dstack_admission.plugin.kind", about.kind),
                KeyValue::new("dstack_admission.plugin.mode", member.mode.as_str()),
            ],
            request,
        }
    }

    fn attributes(&self, part: &Part) -> (SpanKind, Vec<KeyValue>) {
        let mut attributes = self.attributes.clone();
        attributes.push(KeyValue::new(
            "dstack_admission.plugin.phase",
            part.phase.as_str(),
        ));
        attributes.push(KeyValue::new(
            "dstack_admission.plugin.verdict",
            verdict(part),
        ));
        if part.reinvoked {
            attributes.push(KeyValue::new("dstack_admission.plugin.reinvoked", true));
        }
        if matches!(part.result, PartResult::FailedOpen(_)) {
            attributes.push(KeyValue::new("dstack_admission.plugin.failed_open", true));
        }
        attributes.extend(failure(part).map(|error| KeyValue::new("error.type", error)));
        let request = self.request.iter().filter(|_| was_sent(part));
        let kind = match request.clone().next() {
            Some(_) => SpanKind::Client,
            None => SpanKind::Internal,
        };
        attributes.extend(request.flatten().cloned());
        (kind, attributes)
    }
}

/// The trace that a review is in, and its own span there.
fn place(decision: &Decision) -> Option<(&Trace, SpanId)> {
    let trace = decision.review.trace.as_ref()?;
    Some((trace, trace.span?))
}

fn context(trace: &Trace, span: SpanId) -> SpanContext {
    let state = trace.state.as_deref();
    let state = state.and_then(|state| state.parse::<TraceState>().ok());
    SpanContext::new(
        trace.id.get().into(),
        span.get().into(),
        TraceFlags::new(trace.flags),
        false,
        state.unwrap_or_default(),
    )
}

fn id(span: Option<SpanId>) -> OtelSpanId {
    span.map_or(OtelSpanId::INVALID, |span| span.get().into())
}

fn shared(key: &'static str, value: &Arc<str>) -> KeyValue {
    KeyValue::new(key, Value::String(StringValue::from(Arc::clone(value))))
}

/// In which way a call failed. To deny is no failure.
fn failure(part: &Part) -> Option<&'static str> {
    match &part.result {
        PartResult::Failed(fault) | PartResult::FailedOpen(fault) => Some(fault.kind.as_str()),
        PartResult::Conflict { .. } => Some("patch_conflict"),
        _ => None,
    }
}

/// In which way a review failed: it was refused without asking, or denied because a plugin failed.
fn error_of(decision: &Decision) -> Option<&'static str> {
    if decision.allowed() {
        return None;
    }
    let denying = || decision.parts.iter().filter(|part| part.result.denies());
    match denying().next() {
        None => Some("not_reviewed"),
        Some(_) => denying().find_map(failure),
    }
}

/// Whether a request may have left for a plugin that is called over HTTP.
fn was_sent(part: &Part) -> bool {
    let before = [FaultKind::Condition, FaultKind::CircuitOpen];
    match &part.result {
        PartResult::Skipped(_) | PartResult::Exempt(_) => false,
        PartResult::Failed(fault) | PartResult::FailedOpen(fault) => !before.contains(&fault.kind),
        _ => true,
    }
}

fn status(error: Option<&'static str>) -> Status {
    match error {
        None => Status::Unset,
        Some(error) => Status::error(error),
    }
}
