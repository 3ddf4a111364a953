//! What is wrong with a policy, found when it is compiled.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::Conditions;
use super::super::source::Condition;
use super::{errors, on_a_large_stack, policy};

fn message(expression: &str) -> String {
    let keys = json!({"validations": [{"expression": expression}]});
    let errors = on_a_large_stack(move || errors(keys));
    assert_eq!(errors.len(), 1, "{expression}: {errors:#?}");
    assert_eq!(errors[0].field, "validations[0].expression");
    errors[0].message.clone()
}

#[rstest]
#[case("spce.n == 1", "unknown name `spce` (did you mean `spec`?)")]
#[case(
    "spec.n == 1 && usr == 'x'",
    "unknown name `usr` (did you mean `user`?)"
)]
#[case("namespaceObject.x", "unknown name `namespaceObject`\n")]
#[case("[1].all(item, itm > 0)", "unknown name `itm` (did you mean `item`?)")]
#[case("[1].all(x, x > 0) && x > 0", "unknown name `x`\n")]
#[case(
    "effective.gpu.max <= 8",
    "`effective` has no `gpu` (did you mean `gpus`?)"
)]
#[case(
    "effective.groups.all(g, g.gpus.maximum <= 8)",
    "`g.gpus` has no `maximum`"
)]
#[case("effective.groups[0].nodes.mx == 1", "there is no member `mx`")]
#[case(
    "effective['gpu'].max <= 8",
    "`effective` has no `gpu` (did you mean `gpus`?)"
)]
#[case(
    "effective.exposure != null && effective.exposure.httpz == 'always'",
    "`effective.exposure` has no `httpz` (did you mean `https`?)"
)]
#[case(
    "efective.gpus.max <= 8",
    "unknown name `efective` (did you mean `effective`?)"
)]
#[case(
    "spec.n.startWith('x')",
    "unknown function `startWith` (did you mean `startsWith`?)"
)]
#[case("siez(spec) > 0", "unknown function `siez` (did you mean `size`?)")]
#[case(
    "math.greatst(1, 2) > 0",
    "unknown function `math.greatst` (did you mean `math.greatest`?)"
)]
#[case(
    "startsWith(name, 'x')",
    "`startsWith` is called on a value: write `x.startsWith(…)`"
)]
#[case("name.int() > 0", "`int` is called with its value: write `int(x)`")]
#[case("spec.list.all(x > 0)", "`all` is written list.all(x, condition)")]
#[case("variables.team == 'x'", "unknown variable `team`")]
#[case(
    "variables == 1",
    "variables are used one by one: write `variables.NAME`"
)]
#[case(
    "name.matches('a(b')",
    "not a valid regular expression: unclosed group"
)]
#[case("Foo{a: 1} == 1", "unknown type `Foo`")]
#[case(
    "((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))",
    "nested too deep"
)]
#[case("spec.n ==", "not a CEL expression: ")]
#[case("has(spec)", "invalid argument to has() macro")]
fn a_wrong_expression_is_refused(#[case] expression: &str, #[case] reason: &str) {
    let message = message(expression);
    assert!(message.contains(reason), "{expression}: {message}");
    assert!(message.contains('^'), "{message}");
}

#[rstest]
#[case::selected("spec.configuraton.max_price <= 2.0", &["/configuraton; did you mean /configuration?\n 1 | spec.configuraton.max_price <= 2.0\n   |     ^"])]
#[case::original("original.max_price == null", &["/max_price; did you mean /configuration/max_price?"])]
#[case::behind_has("!has(spec.configuration.max_prise)", &["/configuration/max_prise; did you mean /configuration/max_price?"])]
#[case::optional("spec.?configuration.?group.orValue([]) == []", &["/configuration/group; did you mean /configuration/groups?"])]
#[case::indexed("spec['configuration']['enf'] == null", &["/configuration/enf; did you mean /configuration/env?"])]
#[case::in_a_list("spec.configuration.groups[0].imgae == 'x'", &["/configuration/groups/*/imgae; did you mean /configuration/groups/*/image?"])]
#[case::each_of_a_list("spec.configuration.groups.all(g, g.imgae == 'x')", &["/configuration/groups/*/imgae; did you mean /configuration/groups/*/image?"])]
#[case::each_with_its_position("spec.configuration.groups.all(i, g, i == 0 || g.imgae == 'x')", &["/configuration/groups/*/imgae; did you mean /configuration/groups/*/image?"])]
#[case::bound_to_a_name("cel.bind(c, spec.configuration, c.max_prise == 1 || c.max_price == 1)", &["/configuration/max_prise; did you mean /configuration/max_price?"])]
#[case::made_of_each("spec.configuration.groups.map(g, g.imgae).size() == 0", &["/configuration/groups/*/imgae; did you mean /configuration/groups/*/image?"])]
#[case::positions_have_no_members("spec.configuration.groups.all(i, g, i == 0 && g.image == '')", &[])]
#[case::once_in_an_expression("spec.nme == 1 || spec.nme == 2", &["/nme"])]
#[case::two_of_them("spec.nme == 1 || has(spec.configuration.max_prise)", &["/nme", "/configuration/max_prise; did you mean /configuration/max_price?"])]
#[case::known("spec.configuration.max_price <= 2.0 && has(spec.configuration.groups[0].image)", &[])]
#[case::members_of_maps("spec.configuration.env.?FOO.orValue('') == spec.configuration.tags.team", &[])]
#[case::of_some_version("has(spec.configuration.replicas) && spec.configuration.replicas.all(r, r.count.min > 0)", &[])]
#[case::of_some_kind("spec.configuration.public_ip == false || spec.configuration.ssh_config == null", &[])]
#[case::not_followed("[spec][0].nme == 1", &[])]
#[case::another_name("[{'nme': 1}].all(spec, spec.nme == 1)", &[])]
#[case::what_may_come("effective.?gpu.hasValue()", &[])]
fn what_no_dstack_spec_has_is_told_and_no_error(
    #[case] expression: &'static str,
    #[case] expected: &[&str],
) {
    let unknown = on_a_large_stack(move || {
        policy(json!({"validations": [{"expression": expression}]})).unknown_places()
    });
    assert_eq!(unknown.len(), expected.len(), "{unknown:#?}");
    for (place, expected) in unknown.iter().zip(expected) {
        assert_eq!(place.field, "validations[0].expression");
        let expected = format!("no dstack spec has {expected}");
        let told = format!("{}\n", place.message);
        assert!(told.starts_with(&expected), "{}", place.message);
        assert!(
            told[expected.len()..].starts_with('\n'),
            "{}",
            place.message
        );
    }
}

#[test]
fn every_expression_of_a_policy_is_looked_through() {
    let policy = policy(json!({
        "variables": [{"name": "x", "expression": "spec.a1"}],
        "validations": [{"expression": "spec.a2 == 1", "messageExpression": "spec.a3"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "spec.a4"}],
        "mutations": [
            {"when": "spec.a5 == 1", "set": {"path": "/configuration/name", "valueExpression": "spec.a6"}},
            {"when": "element == spec.a7", "remove": {"path": "/configuration/volumes/*"}},
            {"jsonPatch": {"expression": "[spec.a8]"}},
        ],
    }));
    let told = policy.unknown_places().into_iter();
    let told: Vec<String> = told
        .map(|place| {
            let message = place.message.lines().next().unwrap_or_default();
            format!("{}: {message}", place.field)
        })
        .collect();
    assert_eq!(
        told,
        [
            "variables[0].expression: no dstack spec has /a1",
            "validations[0].expression: no dstack spec has /a2",
            "validations[0].messageExpression: no dstack spec has /a3",
            "auditAnnotations[0].valueExpression: no dstack spec has /a4",
            "mutations[0].when: no dstack spec has /a5",
            "mutations[0].set.valueExpression: no dstack spec has /a6",
            "mutations[1].when: no dstack spec has /a7",
            "mutations[2].jsonPatch.expression: no dstack spec has /a8",
        ]
    );
}

#[test]
fn match_conditions_are_looked_through() {
    let conditions = [Condition {
        name: None,
        expression: "spec.configuration.typ == 'task'".to_owned(),
    }];
    let conditions = on_a_large_stack(move || Conditions::compile(&conditions)).unwrap();
    let told = conditions.unknown_places();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].field, "conditions[0].expression");
    let said = "no dstack spec has /configuration/typ; did you mean /configuration/type?\n";
    assert!(told[0].message.starts_with(said), "{}", told[0].message);
}

#[rstest]
#[case("spec.n == 1 &&\n  spce.n == 2", "\n 2 |   spce.n == 2\n   |   ^")]
#[case("'é' == spce", "\n 1 | 'é' == spce\n   |        ^")]
#[case(
    "name.startWith('x')",
    "\n 1 | name.startWith('x')\n   |               ^"
)]
#[case("spec.n = 1", "\n 1 | spec.n = 1\n   |        ^")]
fn the_message_shows_the_place(#[case] expression: &str, #[case] place: &str) {
    let message = message(expression);
    assert!(message.ends_with(place), "{message}");
}

#[test]
fn all_errors_come_at_once_each_with_its_key() {
    let errors = errors(json!({
        "variables": [{"name": "a-b", "expression": "1"}, {"name": "x", "expression": "nme"}],
        "validations": [
            {"expression": "spce", "messageExpression": "usr"},
            {"expression": "foo + bar"},
        ],
        "auditAnnotations": [{"key": "", "valueExpression": "oops"}],
        "mutations": [
            {"set": {"path": "configuration", "value": 1}},
            {"set": {"path": "/profile"}},
            {"set": {"path": "/profile", "value": 1, "valueExpression": "1"}},
            {"when": "wehn", "mergeMap": {"path": "/profile", "value": 1}},
            {"remove": {"path": ""}},
            {"remove": {"path": "/profile"}, "jsonPatch": {"expression": "[]"}},
            {},
            {"jsonPatch": {"expression": "("}},
        ],
    }));
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "variables[0].name",
            "variables[1].expression",
            "validations[0].expression",
            "validations[0].messageExpression",
            "validations[1].expression",
            "validations[1].expression",
            "auditAnnotations[0].key",
            "auditAnnotations[0].valueExpression",
            "mutations[0].set.path",
            "mutations[1].set",
            "mutations[2].set",
            "mutations[3].when",
            "mutations[3].mergeMap.value",
            "mutations[4].remove.path",
            "mutations[5]",
            "mutations[6]",
            "mutations[7].jsonPatch.expression",
        ]
    );
}

#[rstest]
#[case(json!([{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]), "variables[0].expression", "`variables.b` is defined further down")]
#[case(json!([{"name": "a", "expression": "variables.a"}]), "variables[0].expression", "`variables.a` refers to itself")]
#[case(json!([{"name": "team", "expression": "1"}, {"name": "b", "expression": "variables.taem"}]), "variables[1].expression", "unknown variable `taem` (did you mean `team`?)")]
#[case(json!([{"name": "a", "expression": "1"}, {"name": "a", "expression": "2"}]), "variables[1].name", "there is another variable `a`")]
fn variables_refer_to_earlier_ones_only(
    #[case] variables: Value,
    #[case] field: &str,
    #[case] reason: &str,
) {
    let errors = errors(json!({"variables": variables}));
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(errors[0].field, field);
    assert!(errors[0].message.contains(reason), "{errors:#?}");
}

#[rstest]
#[case("params.limit > 1")]
#[case("variables.x > 1")]
fn conditions_have_neither_params_nor_variables(#[case] expression: &str) {
    let source = [Condition {
        name: None,
        expression: expression.to_owned(),
    }];
    let errors = Conditions::compile(&source).err().unwrap_or_default();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(errors[0].field, "conditions[0].expression");
}

#[rstest]
#[case("1 + ", "1", "", 2_000)]
#[case("(", "1", ")", 4_000)]
#[case("[", "1", "]", 4_000)]
#[case("size(", "[]", ")", 1_000)]
#[case("true ? 1 : ", "2", "", 700)]
#[case("[1].map(x, ", "1", ")", 600)]
#[case("", "[1]", ".map(x,x)", 800)]
#[case("", "spec", ".a", 4_000)]
#[case("", "spec", "[0]", 2_500)]
#[case("name + ", "name", "", 1_100)]
#[case("'", "", "'", 9_000)]
fn a_huge_expression_is_refused_and_overflows_no_stack(
    #[case] before: &str,
    #[case] core: &str,
    #[case] after: &str,
    #[case] times: usize,
) {
    let expression = format!("{}{core}{}", before.repeat(times), after.repeat(times));
    let errors =
        on_a_large_stack(move || errors(json!({"validations": [{"expression": expression}]})));
    assert!(!errors.is_empty());
}

#[test]
fn variables_that_nest_too_deep_are_refused() {
    let variable = |position: usize| {
        let before = position
            .checked_sub(1)
            .map_or("1".to_owned(), |p| format!("variables.v{p}"));
        json!({"name": format!("v{position}"), "expression": format!("{before} + 1")})
    };
    let variables: Vec<Value> = (0..80).map(variable).collect();
    let errors = errors(json!({"variables": variables}));
    assert_eq!(errors[0].field, "variables[32].expression");
    assert!(
        errors[0]
            .message
            .contains("nested more than 160 levels deep"),
        "{errors:#?}"
    );
}

#[test]
fn long_conjunctions_are_no_deep_ones() {
    let expression = "spec.n == 7 && ".repeat(400) + "true";
    assert_eq!(
        errors(json!({"validations": [{"expression": expression}]})),
        []
    );
}
