//! What every file of the library keeps to. What each policy does, its own suite says.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::admission::review::{Kind, Review, Spec};
use crate::admission::revision::Revision;
use crate::admission::verdict::{Call, Outcome, Phase};

#[test]
fn every_file_is_listed_and_has_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugins/library");
    let mut policies = Vec::new();
    let mut suites = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        match name.strip_suffix(".test.yaml") {
            Some(suite) => suites.push(suite.to_owned()),
            None => policies.extend(name.strip_suffix(".yaml").map(str::to_owned)),
        }
    }
    policies.sort();
    suites.sort();
    let mut listed: Vec<_> = names().collect();
    listed.sort_unstable();
    assert_eq!(policies, listed);
    assert_eq!(suites, listed);
}

#[test]
fn every_file_is_a_definition_of_the_name_it_has() {
    for (name, text) in FILES {
        let definition: Definition = serde_yaml::from_str(text).unwrap();
        assert_eq!(definition.name, *name);
        assert!(!definition.kinds.is_empty(), "{name}");
        assert!(definition.summary.ends_with('.'), "{name}");
        assert!(definition.description.trim_end().ends_with('.'), "{name}");
    }
}

#[test]
fn every_example_fits_its_parameters_and_compiles() {
    for definition in all() {
        let name = &definition.name;
        let validator = jsonschema::validator_for(&definition.parameters).unwrap();
        let example = Value::Object(definition.example.clone());
        assert!(validator.is_valid(&example), "{name}");
        let built_in = definition.with(&definition.example);
        let policy = built_in.unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
        assert_eq!(policy.policy.unknown_places(), [], "{name}");
    }
}

#[test]
fn every_parameter_says_what_it_is_and_what_it_is_without_being_given() {
    for definition in all() {
        let name = &definition.name;
        let parameters = &definition.parameters;
        assert_eq!(parameters["additionalProperties"], false, "{name}");
        for (parameter, schema) in definition.properties() {
            let description = schema["description"].as_str().unwrap();
            assert!(description.ends_with('.'), "{name}: {parameter}");
            let otherwise = schema.get("default").is_some()
                || definition.requires(parameter)
                || description.contains("Without it");
            assert!(otherwise, "{name}: {parameter}");
        }
    }
}

#[test]
fn every_denial_has_words() {
    for definition in all() {
        for validation in &definition.cel.validations {
            let words = validation.message.is_some() || validation.message_expression.is_some();
            assert!(words, "{}: {}", definition.name, validation.expression);
        }
    }
}

/// What a review through the whole library costs is a promise (`tests/bench/README.md`).
#[test]
fn no_policy_needs_the_interpreter_for_what_it_lets_pass() {
    let review = review(plain_service());
    for definition in all().filter(|one| one.kinds.contains(&Kind::Run)) {
        let built_in = definition.with(&definition.example).unwrap();
        for phase in [Phase::Mutating, Phase::Validating] {
            let interpreted = built_in.policy.interpreted(&call(&review, phase));
            assert!(
                interpreted.is_empty(),
                "{}: {interpreted:?}",
                definition.name
            );
        }
    }
}

#[test]
fn no_policy_spends_its_budget_on_a_thousand_variables_and_commands() {
    let mut spec = plain_service();
    let variable = |n: usize| (format!("SETTING_{n}"), json!(format!("a plain value, {n}")));
    let variables: Map<String, Value> = (0..1000).map(variable).collect();
    let commands: Vec<String> = (0..1000).map(|n| format!("python step.py {n}")).collect();
    spec["configuration"]["env"] = Value::Object(variables);
    spec["configuration"]["commands"] = json!(commands);
    let review = review(spec);
    for definition in all().filter(|one| one.kinds.contains(&Kind::Run)) {
        let built_in = definition.with(&definition.example).unwrap();
        for phase in [Phase::Mutating, Phase::Validating] {
            let outcome = built_in.policy.evaluate(&call(&review, phase));
            assert!(
                matches!(outcome, Outcome::Verdict(_)),
                "{}: {outcome:?}",
                definition.name
            );
        }
    }
}

fn plain_service() -> Value {
    let body =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs/0.22.5/plain-service-full.json");
    let mut body: Value = serde_json::from_str(&fs::read_to_string(body).unwrap()).unwrap();
    body["spec"].take()
}

fn review(spec: Value) -> Arc<Review> {
    Arc::new(Review {
        id: String::new(),
        kind: Kind::Run,
        user: "ada".to_owned(),
        project: "research".to_owned(),
        received: SystemTime::UNIX_EPOCH,
        headers: Vec::new(),
        trace: None,
        spec: Spec::parse(spec.to_string().into()).unwrap(),
    })
}

fn call(review: &Arc<Review>, phase: Phase) -> Call {
    let spec = review.spec.value();
    Call {
        review: Arc::clone(review),
        spec: Arc::new(Revision::new(Kind::Run, Arc::clone(spec), Arc::clone(spec))),
        phase,
        span: None,
    }
}

#[rstest]
#[case::a_point(json!(8.0), Some(json!(8)))]
#[case::an_exponent(json!(1e5), Some(json!(100_000)))]
#[case::within(json!([{"max": 2.0}, "3d", null, -1]), Some(json!([{"max": 2}, "3d", null, -1])))]
#[case::beyond_64_bits(json!(9_223_372_036_854_775_808_u64), None)]
#[case::what_stands_for_no_limit(json!(i64::MAX), None)]
#[case::a_huge_exponent(json!(1e30), None)]
fn whole_numbers_are_integers_however_they_are_written(
    #[case] mut given: Value,
    #[case] expected: Option<Value>,
) {
    let whole = make_whole(&mut given);
    assert_eq!(whole.then_some(given), expected);
}

#[rstest]
#[case("max-duration", json!({"limit": 1e5}), None)]
#[case("max-price", json!({"limit": 2.5}), None)]
#[case("max-duration", json!({"limit": 1e30}), Some("limit"))]
fn numbers_that_are_too_large_are_named(
    #[case] name: &str,
    #[case] with: Value,
    #[case] field: Option<&str>,
) {
    let errors = find(name).unwrap().with(with.as_object().unwrap()).err();
    let fields = errors.map(|errors| errors[0].field.clone());
    assert_eq!(fields.as_deref(), field);
}
