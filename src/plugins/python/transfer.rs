//! A change between two dumps of a spec, carried over to the spec itself.
//!
//! A worker's models write a spec out in their own way: defaults stand there that the spec leaves
//! out, and values have the models' form. What the plugin changed is the difference of the dumps
//! before and after it; nothing else of the spec may change.

use json_patch::PatchOperation;
use serde_json::{Map, Value};

use crate::admission::patch::Operations;

/// The operations that do to `original` what was done between `before`, which is its dump, and
/// `after`. What the original leaves out or writes in another form is put there whole, as `after` has it.
pub(super) fn transfer(original: &Value, before: &Value, after: &Value) -> Vec<PatchOperation> {
    let mut walk = Transfer {
        operations: Operations::default(),
    };
    walk.values(original, before, after);
    walk.operations.into_vec()
}

struct Transfer {
    operations: Operations,
}

impl Transfer {
    fn values(&mut self, original: &Value, before: &Value, after: &Value) {
        match (original, before, after) {
            _ if before == after || original == after => {}
            (Value::Object(original), Value::Object(before), Value::Object(after)) => {
                self.members(original, before, after);
            }
            (Value::Array(original), Value::Array(before), Value::Array(after))
                if correspond(original, before) =>
            {
                self.elements(original, before, after);
            }
            _ => self.operations.replace(after),
        }
    }

    fn members(
        &mut self,
        original: &Map<String, Value>,
        before: &Map<String, Value>,
        after: &Map<String, Value>,
    ) {
        for key in before.keys() {
            if !after.contains_key(key) && original.contains_key(key) {
                self.at(key, |walk| walk.operations.remove());
            }
        }
        for (key, new) in after {
            match (original.get(key), before.get(key)) {
                (Some(own), Some(old)) => self.at(key, |walk| walk.values(own, old, new)),
                (None, Some(old)) if old == new => {}
                // Only the model of the result has it, and what it says is there already.
                (Some(own), None) if own == new => {}
                _ => self.at(key, |walk| walk.operations.add(new)),
            }
        }
    }

    /// What the dumps share at both ends is set aside, so that one inserted element is one operation.
    fn elements(&mut self, original: &[Value], before: &[Value], after: &[Value]) {
        let shared = before.len().min(after.len());
        let head = (0..shared).take_while(|&i| before[i] == after[i]).count();
        let tail = (0..shared - head)
            .take_while(|&i| before[before.len() - 1 - i] == after[after.len() - 1 - i])
            .count();
        let own = &original[head..original.len() - tail];
        let old = &before[head..before.len() - tail];
        let new = &after[head..after.len() - tail];
        let paired = old.len().min(new.len());

        for index in 0..paired {
            self.at(&(head + index).to_string(), |walk| {
                walk.values(&own[index], &old[index], &new[index]);
            });
        }
        for _ in paired..old.len() {
            self.at(&(head + paired).to_string(), |walk| {
                walk.operations.remove()
            });
        }
        for (index, value) in new.iter().enumerate().skip(paired) {
            let place = match tail {
                0 => "-".to_owned(),
                _ => (head + index).to_string(),
            };
            self.at(&place, |walk| walk.operations.add(value));
        }
    }

    fn at(&mut self, token: &str, step: impl FnOnce(&mut Self)) {
        self.operations.enter(token);
        step(self);
        self.operations.leave();
    }
}

/// Whether each element of a dumped list stands for the one at its place in the original. A list that
/// the models sorted, joined or wrote in another form is not looked into.
fn correspond(original: &[Value], dumped: &[Value]) -> bool {
    let pair = |(own, dumped): (&Value, &Value)| match (own, dumped) {
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) => true,
        (Value::Number(own), Value::Number(dumped)) => own.as_f64() == dumped.as_f64(),
        (own, dumped) => own == dumped,
    };
    original.len() == dumped.len() && original.iter().zip(dumped).all(pair)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::admission::patch;

    #[rstest]
    #[case::nothing(
        json!({"a": "1d"}), json!({"a": 86400, "b": null}), json!({"a": 86400, "b": null}), json!([])
    )]
    #[case::changed(
        json!({"a": 1, "x": 1.50}), json!({"a": 1, "b": null}), json!({"a": 2, "b": null}),
        json!([{"op": "replace", "path": "/a", "value": 2}])
    )]
    #[case::absent_default_set(
        json!({}), json!({"nodes": null}), json!({"nodes": 2}),
        json!([{"op": "add", "path": "/nodes", "value": 2}])
    )]
    #[case::inside_an_absent_parent(
        json!({}), json!({"gpu": {"count": 1, "name": null}}), json!({"gpu": {"count": 2, "name": null}}),
        json!([{"op": "add", "path": "/gpu", "value": {"count": 2, "name": null}}])
    )]
    #[case::inside_a_null_parent(
        json!({"gpu": null}), json!({"gpu": {"count": 1}}), json!({"gpu": {"count": 2}}),
        json!([{"op": "replace", "path": "/gpu", "value": {"count": 2}}])
    )]
    #[case::absent_member_removed(json!({}), json!({"a": 1}), json!({}), json!([]))]
    #[case::member_removed(
        json!({"a": 1}), json!({"a": 1}), json!({}), json!([{"op": "remove", "path": "/a"}])
    )]
    #[case::default_set_to_null(
        json!({}), json!({"a": 5}), json!({"a": null}), json!([{"op": "add", "path": "/a", "value": null}])
    )]
    #[case::other_form(
        json!({"max": "1d"}), json!({"max": 86400}), json!({"max": 3600}),
        json!([{"op": "replace", "path": "/max", "value": 3600}])
    )]
    #[case::other_form_of_a_map(
        json!({"nodes": 2}), json!({"nodes": {"min": 2, "max": 2}}), json!({"nodes": {"min": 2, "max": 4}}),
        json!([{"op": "replace", "path": "/nodes", "value": {"min": 2, "max": 4}}])
    )]
    #[case::already_there(json!({"a": 2}), json!({"a": 1}), json!({"a": 2}), json!([]))]
    #[case::only_in_the_result(
        json!({"a": 1}), json!({}), json!({"a": 2}), json!([{"op": "add", "path": "/a", "value": 2}])
    )]
    #[case::in_a_list(
        json!({"l": [{"a": 1}, {"b": 2}]}),
        json!({"l": [{"a": 1, "c": null}, {"b": 2, "c": null}]}),
        json!({"l": [{"a": 1, "c": null}, {"b": 2, "c": 3}]}),
        json!([{"op": "add", "path": "/l/1/c", "value": 3}])
    )]
    #[case::appended(
        json!({"l": ["a"]}), json!({"l": ["a"]}), json!({"l": ["a", "b"]}),
        json!([{"op": "add", "path": "/l/-", "value": "b"}])
    )]
    #[case::list_that_was_sorted(
        json!({"l": ["b", "a"]}), json!({"l": ["a", "b"]}), json!({"l": ["a", "b", "c"]}),
        json!([{"op": "replace", "path": "/l", "value": ["a", "b", "c"]}])
    )]
    #[case::list_of_another_form(
        json!({"ports": ["80:8080"]}),
        json!({"ports": [{"local": 80, "to": 8080}]}),
        json!({"ports": [{"local": 81, "to": 8080}]}),
        json!([{"op": "replace", "path": "/ports", "value": [{"local": 81, "to": 8080}]}])
    )]
    fn a_change_between_dumps_is_made_to_the_original(
        #[case] original: Value,
        #[case] before: Value,
        #[case] after: Value,
        #[case] expected: Value,
    ) {
        let operations = transfer(&original, &before, &after);
        assert!(patch::apply(&original, &operations).is_ok());
        assert_eq!(serde_json::to_value(operations).unwrap(), expected);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..4).prop_map(|number| json!(number)),
            "[a-c]".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 30, 4, |inner| {
            prop_oneof![
                2 => object(inner.clone()),
                1 => prop::collection::vec(inner, 0..4).prop_map(Value::Array),
            ]
        })
    }

    fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", inner, 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    fn spec() -> impl Strategy<Value = Value> {
        object(value())
    }

    /// What models make of a value: members at their defaults, texts in another form.
    fn dump(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut dumped: Map<String, Value> = members
                    .iter()
                    .map(|(key, value)| (key.clone(), dump(value)))
                    .collect();
                dumped.entry("a").or_insert(Value::Null);
                dumped.entry("d").or_insert(json!({"a": 1, "d": 2}));
                Value::Object(dumped)
            }
            Value::Array(elements) => elements.iter().map(dump).collect(),
            Value::String(text) if text == "b" => json!(1),
            value => value.clone(),
        }
    }

    proptest! {
        #[test]
        fn no_change_is_lost(original in spec(), wanted in spec()) {
            let (before, after) = (dump(&original), dump(&wanted));
            let operations = transfer(&original, &before, &after);
            let result = patch::apply(&original, &operations).unwrap();
            prop_assert_eq!(dump(&result), after);
        }

        #[test]
        fn a_spec_that_nobody_changed_stays_as_it_is(original in spec()) {
            let dumped = dump(&original);
            prop_assert!(transfer(&original, &dumped, &dumped).is_empty());
        }

        #[test]
        fn nothing_but_the_change_is_touched(original in spec(), more in value()) {
            let before = dump(&original);
            let mut after = before.clone();
            after["c"] = dump(&more);
            let operations = transfer(&original, &before, &after);
            let result = patch::apply(&original, &operations).unwrap();
            for (key, own) in original.as_object().unwrap() {
                prop_assert!(key == "c" || result[key] == *own);
            }
        }
    }
}
