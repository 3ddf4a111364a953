//! Operations of a patch, made on a walk through a spec.

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::Value;

/// The operations so far, and the place where the walk stands: the next one is made there.
#[derive(Default)]
pub struct Operations {
    path: PointerBuf,
    made: Vec<PatchOperation>,
}

impl Operations {
    /// Goes down to a member or an element.
    pub fn enter(&mut self, token: &str) {
        self.path.push_back(Token::new(token));
    }

    /// Goes up again.
    pub fn leave(&mut self) {
        self.path.pop_back();
    }

    pub fn add(&mut self, value: &Value) {
        let operation = AddOperation {
            path: self.path.clone(),
            value: value.clone(),
        };
        self.made.push(PatchOperation::Add(operation));
    }

    pub fn remove(&mut self) {
        let operation = RemoveOperation {
            path: self.path.clone(),
        };
        self.made.push(PatchOperation::Remove(operation));
    }

    pub fn replace(&mut self, value: &Value) {
        let operation = ReplaceOperation {
            path: self.path.clone(),
            value: value.clone(),
        };
        self.made.push(PatchOperation::Replace(operation));
    }

    pub fn into_vec(self) -> Vec<PatchOperation> {
        self.made
    }
}
