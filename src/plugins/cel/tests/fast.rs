//! The fast way gives what the interpreter gives, and gives it for what policies mostly do.
//!
//! That the two agree is checked by every evaluation of a build with debug assertions, such as
//! this one; here expressions are made for it.

use proptest::prelude::*;

use super::*;

/// The rules that the fast way leaves to the interpreter.
fn interpreted(expression: &str, spec: &Value) -> Vec<String> {
    policy(json!({"validations": [{"expression": expression}]}))
        .interpreted(&call(spec, Phase::Validating))
}

/// Values of one type each, such as policies look at, and none that errors.
fn booleans(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("spec.configuration.privileged".to_owned()),
        Just("spec.configuration.docker == null".to_owned()),
        Just("has(spec.configuration.docker)".to_owned()),
        Just("has(spec.configuration.nothing)".to_owned()),
        Just("effective.offer".to_owned()),
        Just("type(spec.map) == map".to_owned()),
        Just("kind in ['run', 'fleet']".to_owned()),
        (texts(), texts()).prop_map(|(a, b)| format!("{a} == {b}")),
        (texts(), texts()).prop_map(|(a, b)| format!("{a}.contains({b})")),
        (texts(), texts()).prop_map(|(a, b)| format!("{a}.startsWith({b})")),
        (texts(), texts()).prop_map(|(a, b)| format!("{a}.globMatches([{b}, '*:1'])")),
        texts().prop_map(|a| format!("{a}.matches('^[a-z]+$')")),
        (integers(), integers()).prop_map(|(a, b)| format!("{a} <= {b}")),
        (integers(), integers()).prop_map(|(a, b)| format!("{a} != {b}")),
        (texts(), lists()).prop_map(|(a, b)| format!("{a} in {b}")),
        lists().prop_map(|a| format!("{a}.all(x, x != 'b')")),
        lists().prop_map(|a| format!("{a}.exists(x, x.endsWith('1') || x == project)")),
        lists().prop_map(|a| format!(
            "{a}.map(x, {{'k': x.trim(), 'n': 1}}).all(x, x.k != '' && x.n > 0)"
        )),
        lists().prop_map(|a| format!("{a}.all(i, x, i < 9 && x.size() > 1)")),
        Just("spec.map.transformMap(k, v, k != 'a', k).size() == 1".to_owned()),
    ];
    leaf.prop_recursive(depth, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
    .boxed()
}

fn texts() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("user"),
        Just("project"),
        Just("name"),
        Just("'train'"),
        Just("''"),
        Just("spec.configuration.image"),
        Just("spec.configuration.env['a-b']"),
        Just("spec.?configuration.?nothing.orValue('none')"),
        Just("spec.configuration.env[?'HF_TOKEN'].orValue('')"),
        Just("effective.groups[0].image.name"),
        Just("imageReference(spec.configuration.image).reference"),
        Just("params.pattern"),
        Just("string(spec.n)"),
    ];
    (
        leaf,
        prop::sample::select(vec!["", ".lowerAscii()", ".trim()", ".replace('a', 'é')"]),
    )
        .prop_map(|(text, change)| format!("{text}{change}"))
        .boxed()
}

fn integers() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("3".to_owned()),
        Just("spec.n".to_owned()),
        Just("spec.negative".to_owned()),
        Just("params.limit".to_owned()),
        Just("effective.gpus.max".to_owned()),
        Just("spec.configuration.groups.size()".to_owned()),
        Just("spec.map.size()".to_owned()),
        texts().prop_map(|text| format!("{text}.size()")),
        lists().prop_map(|list| format!("{list}.size()")),
    ];
    (leaf.clone(), leaf, any::<bool>())
        .prop_map(|(a, b, one)| if one { a } else { format!("({a} + {b})") })
        .boxed()
}

/// Lists of texts.
fn lists() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("spec.configuration.commands".to_owned()),
        Just("spec.profile.regions".to_owned()),
        Just("spec.profile.empty".to_owned()),
        Just("params.allow".to_owned()),
        Just("effective.commands.map(c, c.text)".to_owned()),
        Just("spec.map.map(key, key)".to_owned()),
        Just("['train', user]".to_owned()),
        Just("'a,b,c'.split(',')".to_owned()),
        Just("spec.configuration.env.transformList(k, v, k + v)".to_owned()),
    ];
    (leaf.clone(), leaf, 0..3)
        .prop_map(|(a, b, which)| match which {
            0 => a,
            1 => format!("({a} + {b})"),
            _ => format!("{a}.filter(y, y != 'b' && !(y in {b}))"),
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_policies_do_is_answered_as_the_interpreter_would(expression in booleans(3)) {
        let spec = run();
        prop_assert_eq!(interpreted(&expression, &spec), Vec::<String>::new());
        prop_assert!(holds_on(&expression, &spec).is_ok());
    }
}

#[rstest::rstest]
#[case::error("spec.nothing == 1")]
#[case::error_that_is_absorbed("spec.nothing == 1 || true")]
#[case::mixed_numbers("spec.one == 1")]
#[case::beyond_int("spec.huge > 1u")]
#[case::overflow("spec.big + spec.n > 0")]
#[case::lists_of_values("spec.matrix == [[1, 2], [3]]")]
#[case::other_functions("spec.configuration.image.indexOf(':') > 0")]
#[case::optional_as_a_value("optional.of(spec.n).hasValue()")]
#[case::index_behind_the_end("spec.configuration.commands[7] == ''")]
#[case::position_in_a_map("spec.map[?1].orValue('') == ''")]
fn what_is_not_plain_is_left_to_the_interpreter(#[case] expression: &str) {
    assert_eq!(interpreted(expression, &run()), ["validations[0]"]);
}

#[test]
fn a_guard_keeps_the_interpreter_out() {
    let expression = "spec.n == 7 || spec.configuration.image.indexOf(':') > 0";
    assert!(interpreted(expression, &run()).is_empty());
}

#[test]
fn names_that_a_comprehension_takes_are_its_own() {
    for expression in [
        "['x'].all(kind, kind == 'x')",
        "['x'].all(user, ['y'].all(kind, kind + user == 'yx' && project == 'ml-research'))",
        "cel.bind(name, 'b', name == 'b') && name == 'train'",
    ] {
        assert!(interpreted(expression, &run()).is_empty(), "{expression}");
        assert_eq!(holds(expression), Ok(true), "{expression}");
    }
}
