//! The change between two specs, found by walking through both.

use json_patch::PatchOperation;
use serde_json::Value;

use super::{Operations, same, same_number};

/// What counts as a change between two specs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Every difference of value. `patch(before) == after`, to the letter.
    Exactly,
    /// As a peer sees it that parsed the spec into models of its own and wrote it again: a member
    /// that is null, false or empty on one side and absent on the other is the same, and so are
    /// `2` and `2.0`. dstack leaves a member out of its requests only at such a default.
    Reserialized,
}

/// The operations that turn `before` into `after`.
///
/// Members are compared by name and arrays by position once what they share at both ends is set
/// aside, so that one inserted element is one operation.
pub fn diff(before: &Value, after: &Value, compare: Compare) -> Vec<PatchOperation> {
    let mut walk = Diff {
        compare,
        operations: Operations::default(),
    };
    walk.values(before, after);
    walk.operations.into_vec()
}

struct Diff {
    compare: Compare,
    operations: Operations,
}

impl Diff {
    fn values(&mut self, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => {
                let same_keys = before.len() == after.len() && before.keys().eq(after.keys());
                let gone = |key: &String| !same_keys && !after.contains_key(key);
                for (key, old) in before {
                    if gone(key) && !self.negligible(old) {
                        self.at(key, |walk| walk.operations.remove());
                    }
                }
                for (key, new) in after {
                    match before.get(key) {
                        Some(old) if same(old, new) => {}
                        Some(old) => self.at(key, |walk| walk.values(old, new)),
                        None if self.negligible(new) => {}
                        None => self.at(key, |walk| walk.operations.add(new)),
                    }
                }
            }
            (Value::Array(before), Value::Array(after)) => self.arrays(before, after),
            _ if self.same(before, after) => {}
            _ => self.operations.replace(after),
        }
    }

    fn arrays(&mut self, before: &[Value], after: &[Value]) {
        let shared = before.len().min(after.len());
        let head = (0..shared)
            .take_while(|&i| self.same(&before[i], &after[i]))
            .count();
        let tail = (0..shared - head)
            .take_while(|&i| self.same(&before[before.len() - 1 - i], &after[after.len() - 1 - i]))
            .count();
        let old = &before[head..before.len() - tail];
        let new = &after[head..after.len() - tail];
        let paired = old.len().min(new.len());

        for index in 0..paired {
            self.at(&(head + index).to_string(), |walk| {
                walk.values(&old[index], &new[index])
            });
        }
        for _ in paired..old.len() {
            self.at(&(head + paired).to_string(), |walk| {
                walk.operations.remove()
            });
        }
        for (index, value) in new.iter().enumerate().skip(paired) {
            let place = if tail == 0 {
                "-".to_owned()
            } else {
                (head + index).to_string()
            };
            self.at(&place, |walk| walk.operations.add(value));
        }
    }

    fn same(&self, before: &Value, after: &Value) -> bool {
        if self.compare == Compare::Exactly {
            return before == after;
        }
        match (before, after) {
            (Value::Number(a), Value::Number(b)) => same_number(a, b),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.iter().all(|(key, old)| {
                    b.get(key)
                        .map_or(is_default(old), |new| self.same(old, new))
                }) && b
                    .iter()
                    .all(|(key, new)| a.contains_key(key) || is_default(new))
            }
            _ => before == after,
        }
    }

    fn negligible(&self, value: &Value) -> bool {
        self.compare == Compare::Reserialized && is_default(value)
    }

    fn at(&mut self, token: &str, step: impl FnOnce(&mut Self)) {
        self.operations.enter(token);
        step(self);
        self.operations.leave();
    }
}

/// Whether a member of this value says no more than its absence.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}
