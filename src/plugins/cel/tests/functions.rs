//! What our functions give, through compiled expressions.

mod comprehensions;
mod dstack;
mod kubernetes;
mod page;
mod run_away;

use rstest::rstest;

use super::super::functions::{METERED, NAMES};
use super::super::language::env;
use super::{errors, holds, on_a_large_stack};

#[test]
fn each_function_that_is_suggested_is_there() {
    // What is there answers with an error about its arguments, what is not with its name.
    for name in NAMES {
        let called = |expression: String| {
            errors(serde_json::json!({"validations": [{"expression": expression}]}))
        };
        let found = [format!("{name}(spec)"), format!("spec.{name}()")]
            .into_iter()
            .chain([format!("{name}(1, 2)")]);
        let refused: Vec<_> = found.map(called).collect();
        assert!(
            refused.iter().any(Vec::is_empty),
            "{name} is nowhere: {refused:?}"
        );
    }
}

#[test]
fn each_metered_function_has_declarations_with_a_meter() {
    assert!(env().is_ok());
    let typed = METERED.iter().filter(|name| !name.starts_with('@'));
    for name in typed {
        assert!(NAMES.contains(name), "{name}");
    }
}

#[rstest]
#[case("globMatch(name, 'x')", "did you mean `globMatches`?")]
#[case("name.globMatch('x')", "did you mean `globMatches`?")]
#[case("set.contains([1], [1])", "unknown name `set`")]
#[case("sets.contain([1], [1])", "did you mean `sets.contains`?")]
#[case("ip.isCanonicl(name)", "did you mean `ip.isCanonical`?")]
#[case("quantiy('1') == 1", "did you mean `quantity`?")]
#[case("isUrl(name)", "did you mean `isURL`?")]
#[case(
    "name.seconds() > 1",
    "`seconds` is called with its value: write `seconds(x)`"
)]
#[case("sum([1]) > 1", "`sum` is called on a value: write `x.sum(…)`")]
#[case("spec.map.all(1, v, true)", "argument must be a simple name")]
#[case("spec.map.all(k, k, true)", "the two names must be different")]
#[case("cel.bind(1, 2, 3)", "argument must be a simple name")]
#[case(
    "cel.bind(x, 2)",
    "`bind` is written cel.bind(name, value, expression)"
)]
#[case(
    "name.find('(') == ''",
    "not a valid regular expression: unclosed group"
)]
#[case("name.findAll('a{', 2) == []", "not a valid regular expression")]
fn a_wrong_use_is_refused(#[case] expression: &str, #[case] reason: &str) {
    let errors = errors(serde_json::json!({"validations": [{"expression": expression}]}));
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert!(
        messages.iter().any(|message| message.contains(reason)),
        "{expression}: {messages:?}"
    );
}

#[test]
fn comprehensions_of_two_variables_that_nest_too_deep_are_refused() {
    let expression = format!("{}true{}", "{}.all(k, v, ".repeat(500), ")".repeat(500));
    let keys = serde_json::json!({"validations": [{"expression": expression}]});
    assert!(!on_a_large_stack(move || errors(keys)).is_empty());
}

#[rstest]
#[case(
    "seconds(spec.configuration.max_price) > 1",
    "`seconds` cannot be applied to null: spec.configuration.max_price is null"
)]
#[case(
    "sets.contains(spec.configuration.tags, ['a'])",
    "`sets.contains` cannot be applied to null and list: spec.configuration.tags is null"
)]
#[case(
    "spec.configuration.tags.all(k, v, true)",
    "null cannot be gone through: a list or map was expected: spec.configuration.tags is null"
)]
#[case(
    "spec.configuration.docker.globMatches('a')",
    "`globMatches` cannot be applied to null and string: spec.configuration.docker is null"
)]
#[case(
    "name.globMatches(1)",
    "`globMatches` cannot be applied to string and int"
)]
#[case("1.find('a') == ''", "`find` cannot be applied to int")]
#[case("1.matches('a')", "`matches` cannot be applied to int")]
#[case(
    "quantity('1') < quantity('2')",
    "compare with isLessThan(), isGreaterThan() or compareTo()"
)]
#[case(
    "seconds(spec.configuration.env.HF_TOKEN) > 1",
    "seconds(): not a duration"
)]
#[case(
    "gigabytes(spec.configuration.env.HF_TOKEN) > 1.0",
    "gigabytes(): not a size"
)]
#[case(
    "ip(spec.configuration.env.HF_TOKEN) == null",
    "ip(): not an IP address"
)]
#[case(
    "cidr('::/0').containsIP(spec.configuration.env.HF_TOKEN)",
    "ip(): not an IP address"
)]
#[case(
    "cidr(spec.configuration.env.HF_TOKEN) == null",
    "cidr(): not a network"
)]
#[case(
    "url(spec.configuration.env.HF_TOKEN) == null",
    "url(): a URL is an absolute URI"
)]
#[case(
    "quantity(spec.configuration.env.HF_TOKEN) == null",
    "quantity(): not a quantity"
)]
#[case(
    "semver(spec.configuration.env.HF_TOKEN) == null",
    "semver(): not a semantic version"
)]
#[case(
    "imageReference(spec.configuration.env.HF_TOKEN + '@') == null",
    "imageReference(): the image's digest is not valid"
)]
#[case(
    "name.find(spec.configuration.env.HF_TOKEN + '(') == ''",
    "find(): the pattern is not a valid regular expression"
)]
fn an_error_says_why_and_never_a_value(#[case] expression: &str, #[case] reason: &str) {
    let message = holds(expression).unwrap_err();
    assert!(message.contains(reason), "{expression}: {message}");
    assert!(!message.contains("s3cr3t"), "{message}");
}
