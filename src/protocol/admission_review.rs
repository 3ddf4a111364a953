//! `admission.k8s.io/v1` AdmissionReview, as the Kubernetes API server sends it and as it judges
//! what comes back (apiserver `plugin/webhook/request`, `VerifyAdmissionResponse`).

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::object;
use crate::admission::review::Review;
use crate::admission::verdict::{Denial, Fault, FaultKind, Phase, Verdict};

const API_VERSION: &str = "admission.k8s.io/v1";
const GROUP: &str = "dstack.ai";
const VERSION: &str = "v1";

/// How much of a webhook's warnings is kept, as in the API server: characters of one, and of all.
const WARNING_LENGTH: usize = 256;
const WARNINGS_LENGTH: usize = 4096;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewBody<'r> {
    api_version: &'static str,
    kind: &'static str,
    request: RequestBody<'r>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody<'r> {
    uid: &'r str,
    kind: GroupKind,
    resource: GroupResource,
    request_kind: GroupKind,
    request_resource: GroupResource,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'r str>,
    namespace: &'r str,
    operation: &'static str,
    user_info: UserInfo<'r>,
    object: Object<'r>,
    old_object: Option<()>,
    dry_run: bool,
    options: TypeMeta,
}

#[derive(Serialize)]
struct GroupKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

#[derive(Serialize)]
struct GroupResource {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
}

#[derive(Serialize)]
struct UserInfo<'r> {
    username: &'r str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    api_version: &'static str,
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'r> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'r>,
    spec: &'r RawValue,
}

#[derive(Serialize)]
struct Metadata<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'r str>,
    namespace: &'r str,
}

/// Writes the request for one call. `spec` is the spec's text as the plugin shall see it.
///
/// # Errors
/// When `spec` is no JSON.
pub fn encode_request(
    review: &Review,
    uid: &str,
    spec: &[u8],
) -> Result<Vec<u8>, serde_json::Error> {
    let kind = || GroupKind {
        group: GROUP,
        version: VERSION,
        kind: review.kind.kubernetes(),
    };
    let resource = || GroupResource {
        group: GROUP,
        version: VERSION,
        resource: review.kind.resource(),
    };
    let name = review.name();
    serde_json::to_vec(&ReviewBody {
        api_version: API_VERSION,
        kind: "AdmissionReview",
        request: RequestBody {
            uid,
            kind: kind(),
            resource: resource(),
            request_kind: kind(),
            request_resource: resource(),
            name,
            namespace: &review.project,
            operation: "CREATE",
            user_info: UserInfo {
                username: &review.user,
            },
            object: Object {
                api_version: "dstack.ai/v1",
                kind: review.kind.kubernetes(),
                metadata: Metadata {
                    name,
                    namespace: &review.project,
                },
                spec: serde_json::from_slice(spec)?,
            },
            old_object: None,
            dry_run: false,
            options: TypeMeta {
                api_version: "meta.k8s.io/v1",
                kind: "CreateOptions",
            },
        },
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewAnswer {
    api_version: Option<String>,
    kind: Option<String>,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    /// Absent or null is no, as in the API server.
    allowed: Option<bool>,
    patch: Option<String>,
    patch_type: Option<String>,
    status: Option<Status>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
    #[serde(default)]
    audit_annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Status {
    message: Option<String>,
    reason: Option<String>,
}

/// Reads the answer to the request of `uid`.
///
/// # Errors
/// Whatever the API server would not accept from a webhook, and a patch outside of `/spec`.
pub fn decode_response(body: &[u8], uid: &str, phase: Phase) -> Result<Verdict, Fault> {
    let undecodable = |what: String| {
        let message = "its answer is not an AdmissionReview that can be read";
        Fault::new(FaultKind::Undecodable, format!("{message}: {what}"))
    };
    let answer: ReviewAnswer = object(body).map_err(|e| undecodable(e.to_string()))?;
    if answer.api_version.as_deref() != Some(API_VERSION)
        || answer.kind.as_deref() != Some("AdmissionReview")
    {
        return Err(undecodable(format!(
            "it wants apiVersion {API_VERSION} and kind AdmissionReview"
        )));
    }
    let response = answer
        .response
        .ok_or_else(|| undecodable("it has no `response`".to_owned()))?;
    if response.uid != uid {
        let message = "its answer is to another request (the uid differs)";
        return Err(Fault::new(FaultKind::WrongUid, message)
            .with_detail(format!("asked {uid}, answered `{}`", response.uid)));
    }
    response.check_patch_type(phase)?;
    let allowed = response.allowed.unwrap_or_default();
    Ok(Verdict {
        patch: if allowed {
            response.patch()?
        } else {
            Vec::new()
        },
        denials: if allowed {
            Vec::new()
        } else {
            vec![denial(response.status)]
        },
        warnings: shortened(response.warnings.unwrap_or_default()),
        annotations: response
            .audit_annotations
            .unwrap_or_default()
            .into_iter()
            .collect(),
        ..Verdict::default()
    })
}

impl Response {
    /// A patch and its type come together, and never from the validating phase: the API server
    /// checks that before it looks at the verdict.
    fn check_patch_type(&self, phase: Phase) -> Result<(), Fault> {
        let has_patch = self.patch.as_deref().is_some_and(|patch| !patch.is_empty());
        let (kind, message) = match (phase, has_patch, self.patch_type.is_some()) {
            (_, false, false) | (Phase::Mutating, true, true) => return Ok(()),
            (Phase::Validating, ..) => (
                FaultKind::PatchNotAllowed,
                "it answered with a patch, which the validating phase does not take",
            ),
            (Phase::Mutating, true, false) => (FaultKind::PatchType, "its patch has no patchType"),
            (Phase::Mutating, false, true) => {
                (FaultKind::PatchType, "it says patchType but sends no patch")
            }
        };
        Err(Fault::new(kind, message))
    }

    fn patch(&self) -> Result<Vec<PatchOperation>, Fault> {
        let (Some(patch), Some(patch_type)) = (&self.patch, &self.patch_type) else {
            return Ok(Vec::new());
        };
        if patch_type != "JSONPatch" {
            let message = format!("its patchType is `{patch_type}`; only JSONPatch is known");
            return Err(Fault::new(FaultKind::PatchType, message));
        }
        let unreadable = |why: String| {
            let message = format!("its patch cannot be read as a JSON Patch: {why}");
            Fault::new(FaultKind::Undecodable, message)
        };
        // The API server's decoder skips line breaks, and a list that was never made is `null` in Go.
        let one_line: String = patch
            .chars()
            .filter(|c| !matches!(c, '\r' | '\n'))
            .collect();
        let json = BASE64_STANDARD
            .decode(one_line)
            .map_err(|e| unreadable(format!("not base64: {e}")))?;
        let operations: Option<Vec<PatchOperation>> =
            serde_json::from_slice(&json).map_err(|e| unreadable(e.to_string()))?;
        let operations = operations.unwrap_or_default();
        operations.into_iter().map(below_spec).collect()
    }
}

/// The same operation on the spec alone instead of the object around it.
fn below_spec(mut operation: PatchOperation) -> Result<PatchOperation, Fault> {
    let stripped = |path: &Pointer, does: &str, done: &str| {
        let spec = path.first().is_some_and(|token| token.encoded() == "spec");
        let below = path.split_front().map(|(_, below)| below.to_buf());
        below.filter(|_| spec).ok_or_else(|| {
            let what = match path.is_root() {
                true => "the whole object".to_owned(),
                false => format!("`{path}`"),
            };
            let message =
                format!("its patch {does} {what}; only what is below /spec can be {done}");
            Fault::new(FaultKind::PatchApply, message)
        })
    };
    let written = |path: &Pointer| stripped(path, "changes", "changed");
    let read = |path: &Pointer| stripped(path, "reads", "read");
    match &mut operation {
        PatchOperation::Add(op) => op.path = written(&op.path)?,
        PatchOperation::Remove(op) => op.path = written(&op.path)?,
        PatchOperation::Replace(op) => op.path = written(&op.path)?,
        PatchOperation::Test(op) => op.path = read(&op.path)?,
        PatchOperation::Move(op) => (op.from, op.path) = (written(&op.from)?, written(&op.path)?),
        PatchOperation::Copy(op) => (op.from, op.path) = (read(&op.from)?, written(&op.path)?),
    }
    Ok(operation)
}

/// The API server's choice of words: the status's message, else its reason.
fn denial(status: Option<Status>) -> Denial {
    let (message, reason) = status.map_or((None, None), |status| (status.message, status.reason));
    let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let words = given(&message).or_else(|| given(&reason));
    Denial {
        message: words.unwrap_or_else(|| "denied without explanation".to_owned()),
        reason: given(&reason),
    }
}

fn shortened(warnings: Vec<String>) -> Vec<String> {
    let mut left = WARNINGS_LENGTH;
    let mut kept = Vec::with_capacity(warnings.len());
    for warning in warnings {
        let short: String = warning.chars().take(WARNING_LENGTH.min(left)).collect();
        left -= short.chars().count();
        if !short.is_empty() {
            kept.push(short);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
