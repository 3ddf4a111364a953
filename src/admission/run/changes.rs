//! What a plugin's patch makes of the spec: whether it is taken, and how the changes of one round
//! become the spec that the next round sees.

use std::sync::Arc;

use json_patch::PatchOperation;
use serde_json::Value;

use super::Run;
use crate::admission::chain::{Member, Mode, OnConflict};
use crate::admission::decision::PartResult;
use crate::admission::merge::{self, Contribution};
use crate::admission::verdict::{Fault, FaultKind, Phase, Verdict};
use crate::admission::{patch, protected};

/// What one part of a round makes of the spec.
pub(super) struct Change {
    pub(super) part: usize,
    pub(super) after: Arc<Value>,
}

impl<P> Run<'_, P> {
    /// The spec with a verdict's patch applied, or nothing when that changes nothing.
    pub(super) fn accept(
        &self,
        member: &Member<P>,
        phase: Phase,
        verdict: &Verdict,
    ) -> Result<Option<Value>, Fault> {
        if verdict.patch.is_empty() {
            return Ok(None);
        }
        if phase == Phase::Validating {
            let message = "it answered with a patch, which the validating phase does not take";
            return Err(Fault::new(FaultKind::PatchNotAllowed, message));
        }
        let after = patch::apply(&self.spec, &verdict.patch).map_err(|why| {
            Fault::new(
                FaultKind::PatchApply,
                format!("its patch does not apply to the spec: {why}"),
            )
        })?;
        if patch::same(&after, &self.spec) {
            return Ok(None);
        }
        if let Some(path) = protected::changed(&self.spec, &after, &member.may_patch) {
            let message =
                format!("its patch changes {path}, which is protected (`mayPatch` grants it)");
            return Err(Fault::new(FaultKind::Protected, message));
        }
        self.check_schema(&verdict.patch, &after)?;
        Ok(Some(after))
    }

    /// Holds a changed spec against the models of the dstack version that the original spec fits.
    fn check_schema(&self, patch: &[PatchOperation], after: &Value) -> Result<(), Fault> {
        let Some(schemas) = self.chain.schemas() else {
            return Ok(());
        };
        let original = self.review.spec.value();
        let fit = self
            .fit
            .get_or_init(|| schemas.version_fitting(self.review.kind, original));
        let Some(fit) = *fit else { return Ok(()) };
        let touched: Vec<&str> = patch
            .iter()
            .flat_map(patch::written)
            .map(|path| path.as_str())
            .collect();
        let violations = schemas.violations(fit, &self.spec, after, &touched);
        if violations.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let message = format!(
            "after its patch dstack would refuse the spec: {}",
            listed.join("; ")
        );
        Err(Fault::new(FaultKind::Schema, message).with_detail(format!("dstack {}", fit.version())))
    }

    /// Makes the changes of one round the spec that the next round sees.
    pub(super) fn take_changes(&mut self, mut changes: Vec<Change>, on_conflict: OnConflict) {
        if changes.len() < 2 {
            if let Some(only) = changes.pop() {
                self.spec = Arc::new(self.spec.changed(only.after));
            }
            return;
        }
        let parts: Vec<usize> = changes.iter().map(|change| change.part).collect();
        let contribution = |change: Change| {
            let after = Arc::unwrap_or_clone(change.after);
            Contribution::new(&self.spec, &self.parts[change.part].patch, after)
        };
        let contributions: Vec<_> = changes.into_iter().map(contribution).collect();
        if on_conflict == OnConflict::LastWins {
            self.spec = Arc::new(
                self.spec
                    .changed(merge::last_wins(&self.spec, &contributions)),
            );
            return;
        }
        match merge::merge(&self.spec, &contributions) {
            Ok(merged) => self.spec = Arc::new(self.spec.changed(merged)),
            Err(conflict) => {
                let with = Arc::clone(&self.parts[parts[conflict.first]].plugin);
                self.parts[parts[conflict.second]].result = PartResult::Conflict {
                    with,
                    path: conflict.path,
                };
                match self.mode {
                    Mode::Enforce => parts.iter().for_each(|&part| self.parts[part].drop_patch()),
                    // What is reported does not end the run, so those after see something.
                    Mode::Monitor => {
                        self.spec = Arc::new(
                            self.spec
                                .changed(merge::last_wins(&self.spec, &contributions)),
                        );
                    }
                }
            }
        }
    }
}
