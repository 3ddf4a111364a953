//! What identifies an object, which no plugin changes unless it is granted to.
//!
//! The dstack server replaces its whole spec with the answer and accepts a changed `run_name`, so
//! an admission plugin could rename a run or point it at another repository.

use json_patch::jsonptr::PointerBuf;
use serde_json::Value;

/// A part of the spec that `mayPatch` grants: a JSON Pointer, with everything below it; a last `*`
/// stands for the rest of a name (`/repo_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(String);

impl Grant {
    /// # Errors
    /// When the text is no JSON Pointer (RFC 6901).
    pub fn parse(text: &str) -> Result<Self, String> {
        match PointerBuf::parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(format!(
                "`{text}` is no JSON Pointer: write `/run_name`, not `run_name`"
            )),
        }
    }

    fn covers(&self, path: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path
                .strip_prefix(&self.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// The first protected place that differs between two specs and that no grant covers.
pub fn changed(before: &Value, after: &Value, grants: &[Grant]) -> Option<String> {
    let members = [before, after]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(|spec| spec.keys());
    let top = members
        .filter(|name| is_protected_member(name))
        .filter(|name| before.get(name) != after.get(name))
        .map(|name| PointerBuf::from_tokens([name.as_str()]).to_string());
    let nested = ["/configuration/type", "/configuration/name"]
        .into_iter()
        .filter(|path| before.pointer(path) != after.pointer(path))
        .map(str::to_owned);
    top.chain(nested)
        .find(|path| !grants.iter().any(|grant| grant.covers(path)))
}

fn is_protected_member(name: &str) -> bool {
    matches!(name, "run_name" | "ssh_key_pub" | "file_archives") || name.starts_with("repo_")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::elsewhere(json!({"configuration": {"type": "task", "max_price": 1}}), None)]
    #[case::renamed(json!({"run_name": "b", "configuration": {"type": "task"}}), Some("/run_name"))]
    #[case::other_repo(json!({"repo_id": "x", "configuration": {"type": "task"}}), Some("/repo_id"))]
    #[case::repo_by_an_odd_name(json!({"repo_a/b": 1, "configuration": {"type": "task"}}), Some("/repo_a~1b"))]
    #[case::null_name(json!({"configuration": {"type": "task", "name": null}}), Some("/configuration/name"))]
    #[case::other_type(json!({"configuration": {"type": "service"}}), Some("/configuration/type"))]
    #[case::configuration_replaced(json!({"configuration": null}), Some("/configuration/type"))]
    fn identity_is_protected(#[case] after: Value, #[case] expected: Option<&str>) {
        let mut before = json!({"configuration": {"type": "task"}});
        if after.get("run_name").is_some() {
            before["run_name"] = json!("a");
        }
        assert_eq!(changed(&before, &after, &[]).as_deref(), expected);
    }

    #[rstest]
    #[case("/run_name", true)]
    #[case("/run_*", true)]
    #[case("/run", false)]
    #[case("/repo_*", false)]
    fn a_grant_opens_its_own_place(#[case] grant: &str, #[case] open: bool) {
        let grants = [Grant::parse(grant).unwrap()];
        let changed = changed(
            &json!({"run_name": "a"}),
            &json!({"run_name": "b"}),
            &grants,
        );
        assert_eq!(changed.is_none(), open);
    }

    #[test]
    fn a_grant_is_a_pointer() {
        assert!(
            Grant::parse("run_name")
                .unwrap_err()
                .contains("JSON Pointer")
        );
    }
}
