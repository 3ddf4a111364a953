//! stub
pub mod source;
use crate::admission::verdict::*;
#[derive(Debug)]
pub struct Policy;
#[derive(Debug)]
pub struct Conditions;
#[derive(Debug)]
pub struct CompileError {
    pub field: String,
    pub message: String,
}
impl Policy {
    pub fn compile(_: &source::Source, _: &serde_json::Value) -> Result<Policy, Vec<CompileError>> {
        Ok(Policy)
    }
    pub fn has_mutations(&self) -> bool {
        false
    }
    pub fn has_validations(&self) -> bool {
        true
    }
    pub fn has_annotations(&self) -> bool {
        false
    }
    pub fn evaluate(&self, _: &Call) -> Outcome {
        Outcome::Verdict(Verdict::default())
    }
}
impl Conditions {
    pub fn compile(_: &[source::Condition]) -> Result<Conditions, Vec<CompileError>> {
        Ok(Conditions)
    }
    pub fn evaluate(&self, _: &Call) -> Result<Option<String>, Fault> {
        Ok(None)
    }
}
