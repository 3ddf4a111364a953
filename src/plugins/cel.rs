//! stub
use crate::admission::verdict::*;
#[derive(Debug)]
pub struct Policy;
#[derive(Debug)]
pub struct Conditions;
impl Policy {
    pub fn evaluate(&self, _: &Call) -> Outcome {
        Outcome::Verdict(Verdict::default())
    }
}
impl Conditions {
    pub fn evaluate(&self, _: &Call) -> Result<Option<String>, Fault> {
        Ok(None)
    }
}
