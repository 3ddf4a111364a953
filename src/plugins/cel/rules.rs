//! The rules of a policy in words, for reports on which of them ever fired. Nothing here is
//! evaluated.

use super::source::{Mutation, Source};
use crate::admission::verdict::Rule;

impl Source {
    /// Every rule that can fire, in the order of the file.
    pub(super) fn rules(&self) -> Vec<(Rule, String)> {
        let validations = self.validations.iter().enumerate();
        let validations = validations
            .map(|(index, rule)| (Rule::Validation(index), rule.expression.trim().to_owned()));
        let mutations = self.mutations.iter().enumerate();
        let mutations = mutations.map(|(index, rule)| (Rule::Mutation(index), rule.summary()));
        validations.chain(mutations).collect()
    }
}

impl Mutation {
    /// What it does where, and when: `set /configuration/spot_policy when kind == 'run'`.
    fn summary(&self) -> String {
        let writes = [
            ("set", &self.set),
            ("setDefault", &self.set_default),
            ("mergeMap", &self.merge_map),
            ("addToSet", &self.add_to_set),
        ];
        let write = writes.into_iter().find_map(|(name, write)| {
            let write = write.as_ref()?;
            Some(format!("{name} {}", write.path))
        });
        let clamp = || Some(format!("clamp {}", self.clamp.as_ref()?.path));
        let remove = || Some(format!("remove {}", self.remove.as_ref()?.path));
        let patch = || {
            Some(format!(
                "jsonPatch {}",
                self.json_patch.as_ref()?.expression.trim()
            ))
        };
        let change = write
            .or_else(clamp)
            .or_else(remove)
            .or_else(patch)
            .unwrap_or_default();
        match &self.when {
            Some(when) => format!("{change} when {}", when.trim()),
            None => change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_rule_is_told_by_what_it_says() -> Result<(), serde_json::Error> {
        let source: Source = serde_json::from_value(json!({
            "validations": [{"expression": " effective.gpus.max <= 8\n"}],
            "mutations": [
                {"set": {"path": "/a", "value": 1}, "when": "kind == 'run' "},
                {"setDefault": {"path": "/b", "value": 1}},
                {"mergeMap": {"path": "/c", "value": {}}},
                {"addToSet": {"path": "/e", "value": 1}},
                {"clamp": {"path": "/f", "max": 1}},
                {"remove": {"path": "/d"}},
                {"jsonPatch": {"expression": "[]"}},
            ],
        }))?;
        let rules = source.rules().into_iter();
        let rules: Vec<String> = rules
            .map(|(rule, text)| format!("{rule}: {text}"))
            .collect();
        let expected = [
            "validations[0]: effective.gpus.max <= 8",
            "mutations[0]: set /a when kind == 'run'",
            "mutations[1]: setDefault /b",
            "mutations[2]: mergeMap /c",
            "mutations[3]: addToSet /e",
            "mutations[4]: clamp /f",
            "mutations[5]: remove /d",
            "mutations[6]: jsonPatch []",
        ];
        assert_eq!(rules, expected);
        Ok(())
    }
}
