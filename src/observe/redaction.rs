//! Taking secrets out of what plugins say, before anybody reads it: a plugin may repeat a value of
//! the spec in its message, and messages go to the user, to the dstack server's log, to ours and to
//! the record. Specs and patches are redacted where they are recorded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::admission::decision::{Decision, Overall, Part, PartResult};
use crate::admission::secrets::{Known, REDACTED, Secrets};

/// What stands in place of a text that could not be redacted.
const WITHHELD: &str = "(withheld: it could not be redacted)";

/// Redacts what plugins say of a review, in place, and lists in which of their texts there was
/// something to redact. Costs nothing when they say nothing.
pub fn redact(decision: &mut Decision, secrets: &Secrets) -> Vec<String> {
    let silent = |part: &Part| {
        matches!(part.result, PartResult::Allowed | PartResult::Exempt(_))
            && part.warnings.is_empty()
            && part.annotations.is_empty()
    };
    if decision.allowed() && decision.parts.iter().all(silent) {
        return Vec::new();
    }
    let known = catch_unwind(AssertUnwindSafe(|| known(secrets, decision)));
    match known {
        Ok(known) => redact_with(decision, |text| known.redacted(text)),
        Err(_) => redact_with(decision, |_| Some(WITHHELD.to_owned())),
    }
}

/// The values that a review shows to be secret. Who asks for what is none.
pub(super) fn known(secrets: &Secrets, decision: &Decision) -> Known {
    let (came, review) = (decision.review.spec.value(), &decision.review);
    let became = (!Arc::ptr_eq(came, &decision.spec)).then_some(&*decision.spec);
    let mut clear = vec![&*review.user, &*review.project, REDACTED];
    clear.extend(review.name());
    secrets.known(came, became, &clear)
}

fn redact_with(decision: &mut Decision, redacted: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut clean = |text: &mut String, place: &dyn Fn() -> String| {
        let result = catch_unwind(AssertUnwindSafe(|| redacted(text)));
        if let Some(left) = result.unwrap_or_else(|_| Some(WITHHELD.to_owned())) {
            *text = left;
            found.push(place());
        }
    };
    if let Overall::Denied(message) = &mut decision.verdict {
        clean(message, &|| "message".to_owned());
    }
    for part in &mut decision.parts {
        let plugin = &part.plugin;
        let messages = || format!("plugins/{plugin}/messages");
        match &mut part.result {
            PartResult::Denied(denials) => {
                for denial in denials {
                    clean(&mut denial.message, &messages);
                    if let Some(reason) = &mut denial.reason {
                        clean(reason, &messages);
                    }
                }
            }
            PartResult::Failed(fault) | PartResult::FailedOpen(fault) => {
                clean(&mut fault.message, &messages);
                if let Some(detail) = &mut fault.detail {
                    clean(detail, &messages);
                }
            }
            PartResult::Allowed
            | PartResult::Conflict { .. }
            | PartResult::Skipped(_)
            | PartResult::Exempt(_) => {}
        }
        for warning in &mut part.warnings {
            clean(warning, &|| format!("plugins/{plugin}/warnings"));
        }
        for (key, value) in &mut part.annotations {
            clean(value, &|| format!("annotations/{plugin}/{key}"));
            clean(key, &|| format!("annotations/{plugin}"));
        }
    }
    found
}

#[cfg(test)]
mod tests;
