//! What an expression over JSON gives.

use rstest::rstest;
use serde_json::json;

use super::{holds, holds_on, run};

#[rstest]
// Numbers: ints stay ints, one number line.
#[case("spec.n + 1 == 8")]
#[case("spec.n - 10 == -3")]
#[case("-spec.n == spec.negative")]
#[case("spec.n * 2 / 4 == 3 && spec.n % 4 == 3")]
#[case("type(spec.n) == int && type(spec.one) == double && type(spec.huge) == uint")]
#[case("spec.one == 1 && 1 == spec.one && spec.n == 7.0 && spec.n < 7.5")]
#[case("spec.big == 9223372036854775807 && type(spec.big) == int")]
#[case("spec.huge == 18446744073709551615u && spec.huge > 1")]
#[case("double(spec.n) + 0.5 == 7.5")]
#[case("spec.profile.max_price <= 2.5 && spec.profile.max_price <= 3")]
// Null.
#[case("spec.configuration.max_price == null && null == spec.configuration.max_price")]
#[case("spec.configuration.max_price != 2.0")]
#[case("spec.configuration.max_price == null || spec.configuration.max_price <= 2.0")]
#[case("has(spec.configuration.max_price)")]
#[case("!has(spec.configuration.absent)")]
#[case("type(spec.configuration.docker) == null_type")]
// Fields and elements.
#[case("spec.configuration.commands[1] == 'sleep 1'")]
#[case("spec['configuration']['env']['a-b'] == 'x'")]
#[case("spec.configuration.env.`a-b` == 'x'")]
#[case("spec.matrix[0][1] == 2 && spec.matrix[1].size() == 1")]
#[case("spec.configuration.groups[0].replicas.max == 3")]
#[case("size(spec.configuration.commands) == 2 && spec.configuration.env.size() == 2")]
// Optional values.
#[case("spec.configuration.?absent.orValue(5) == 5")]
#[case("spec.?configuration.?max_price.hasValue()")]
#[case("spec.configuration.commands[?9].orValue('none') == 'none'")]
#[case("spec.configuration.?tags.?team.orValue('none') == 'none'")]
#[case("spec.configuration.env[?'a-b'].optMap(v, v + '!').orValue('') == 'x!'")]
#[case("[?spec.?absent, 1] == [1]")]
#[case("optional.ofNonZeroValue(spec.profile.empty).hasValue() == false")]
// Membership.
#[case("'eu-1' in spec.profile.regions && !('eu-9' in spec.profile.regions)")]
#[case("'HF_TOKEN' in spec.configuration.env && !('B' in spec.configuration.env)")]
#[case("spec.configuration.type in ['task', 'service']")]
#[case("[1, 2] in spec.matrix && [3] in spec.matrix && !([9] in spec.matrix)")]
#[case("spec.matrix[0] in [[1, 2]]")]
#[case("null in [null] && null in spec.map.b")]
#[case("1.0 in spec.matrix[0] && 2u in spec.matrix[0]")]
#[case("params.limit in [8] && 'a' in params.allow")]
// Equality both ways, deeply.
#[case("spec.matrix == [[1, 2], [3]] && [[1, 2], [3]] == spec.matrix")]
#[case("spec.map == {'a': 1, 'b': [true, null]} && {'b': [true, null], 'a': 1.0} == spec.map")]
#[case("spec.matrix != [[1, 2]] && [[1, 2], [4]] != spec.matrix")]
#[case("{'a': 2} != spec.map && spec.map != {'a': 1}")]
#[case("[spec.matrix] == [[[1, 2], [3]]] && [[[1, 2], [3]]] == [spec.matrix]")]
#[case("optional.of([1, 2]) == optional.of(spec.matrix[0])")]
#[case("spec.configuration == original.configuration && spec == original")]
#[case("spec.profile.empty == [] && spec.profile.none == {} && [] != {}")]
// Lists.
#[case("spec.matrix[0] + [5] == [1, 2, 5] && [5] + spec.matrix[0] == [5, 1, 2]")]
#[case("spec.matrix[0] + spec.matrix[1] == [1, 2, 3]")]
#[case("spec.matrix.flatten() == [1, 2, 3] && spec.matrix[0].reverse() == [2, 1]")]
#[case("['b', 'a'].sort() == ['a', 'b'] && spec.profile.regions.slice(0, 1) == ['eu-1']")]
#[case("[1, 1.0, 2].distinct() == [1, 2] && lists.range(3) == [0, 1, 2]")]
#[case("spec.configuration.groups.sortBy(g, g.replicas.max)[0].name == 'b'")]
// Comprehensions.
#[case("spec.configuration.commands.all(c, c.size() > 0)")]
#[case("spec.configuration.groups.exists(g, g.replicas.max == 3)")]
#[case("spec.configuration.groups.exists_one(g, g.name == 'a')")]
#[case("spec.configuration.groups.map(g, g.name) == ['a', 'b']")]
#[case("spec.configuration.groups.map(g, g.replicas.min > 0, g.name) == ['a']")]
#[case("spec.configuration.groups.filter(g, g.replicas.min == 0)[0].name == 'b'")]
#[case("spec.configuration.groups.map(g, {'n': g.name}) == [{'n': 'a'}, {'n': 'b'}]")]
#[case("spec.configuration.env.all(k, k.size() > 1)")]
#[case("spec.configuration.env.exists(k, spec.configuration.env[k] == 's3cr3t')")]
#[case("spec.configuration.env.map(k, k) == ['HF_TOKEN', 'a-b']")]
#[case("spec.matrix.map(row, row.map(x, x * 2)) == [[2, 4], [6]]")]
#[case("spec.matrix.all(spec, spec.size() > 0)")]
#[case("[1, 2].all(kind, kind < 3) && kind == 'run'")]
#[case("spec.matrix.map(row, row[0]).all(x, x in [1, 3])")]
// Text.
#[case(
    "spec.configuration.image.startsWith('ghcr.io/') && spec.configuration.image.endsWith(':1')"
)]
#[case("spec.configuration.image.contains('acme') && project.split('-')[0] == 'ml'")]
#[case("spec.configuration.image.matches('^ghcr[.]io/') && matches(name, '^tr')")]
#[case("name.matches(params.pattern) && !user.matches('^[0-9]')")]
#[case("!name.matches(spec.configuration.type)")]
#[case("'ABC'.lowerAscii() == 'abc' && name.upperAscii() == 'TRAIN'")]
#[case("spec.profile.regions.join(',') == 'eu-1,us-2' && [].join() == ''")]
#[case("'a-b-a'.replace('a', 'x') == 'x-b-x' && 'aaa'.replace('a', 'b', 2) == 'bba'")]
#[case("'%s asks for %d'.format([user, spec.n]) == 'ada asks for 7'")]
#[case("name.substring(1, 3) == 'ra' && name.indexOf('a') == 2 && ' x '.trim() == 'x'")]
#[case("'a' + name + 'z' == 'atrainz' && string(spec.n) + 's' == '7s'")]
#[case("strings.quote(name) == '\"train\"'")]
// Durations and maths.
#[case("duration('1h') > duration('59m') && duration('90s').getMinutes() == 1")]
#[case("math.greatest(spec.n, 3) == 7 && math.least(spec.matrix[0]) == 1")]
#[case("math.greatest(spec.configuration.groups.map(g, g.replicas.max)) == 3")]
#[case("math.ceil(spec.profile.max_price) == 3.0")]
// Names.
#[case("kind == 'run' && user == 'ada' && project == 'ml-research' && name == 'train'")]
#[case("params.limit == 8 && params.table.x[1] == 2")]
// Errors that do not matter.
#[case("true || spec.absent.deep")]
#[case("spec.absent.deep || true")]
#[case("[1, 2].exists(x, x == 2 || spec.absent)")]
fn expressions_over_json_hold(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}

#[rstest]
#[case(
    "spec.configuration.max_price <= 2.0",
    "spec.configuration.max_price is null. dstack sends null for what is not set, so test `spec.configuration.max_price != null` first"
)]
#[case(
    "2.0 > spec.configuration.max_price",
    "`>` cannot be applied to double and null: spec.configuration.max_price is null"
)]
#[case(
    "spec.configuration.max_price + 1.0 > 2.0",
    "`+` cannot be applied to null and double: spec.configuration.max_price is null"
)]
#[case(
    "spec.configuration.tags.team == 'x'",
    "null has no members: spec.configuration.tags is null"
)]
#[case(
    "has(spec.configuration.tags.team)",
    "null has no members: spec.configuration.tags is null"
)]
#[case(
    "spec.configuration.tags.size() > 0",
    "`size` cannot be applied to null: spec.configuration.tags is null"
)]
#[case(
    "spec.configuration.tags.all(t, t == 'x')",
    "null cannot be gone through: a list or map was expected: spec.configuration.tags is null"
)]
#[case(
    "'x' in spec.configuration.tags",
    "`in` cannot be applied to string and null: spec.configuration.tags is null"
)]
#[case(
    "!spec.configuration.docker",
    "`!` cannot be applied to null: spec.configuration.docker is null"
)]
#[case(
    "spec.configuration.docker && true",
    "cannot be applied to null and bool: spec.configuration.docker is null"
)]
#[case(
    "spec.configuration.docker ? true : false",
    "spec.configuration.docker is null"
)]
#[case("spec.configuration.docker", "it gives null, not a bool")]
#[case(
    "spec.configuration.groups.all(g, g.tags.x == 1)",
    "there is no member `tags`"
)]
#[case(
    "spec.configuration.absent == 1",
    "spec.configuration has no member `absent`: test has(spec.configuration.absent) first"
)]
#[case(
    "spec.configuration.env['absent'] == 'x'",
    "there is no member `absent`"
)]
#[case(
    "spec.n + 0.5 > 1.0",
    "`+` cannot be applied to int and double: convert one with double() or int()"
)]
#[case("spec.n < 'x'", "`<` cannot be applied to int and string")]
#[case(
    "params.table[spec.configuration.env.HF_TOKEN] == 1",
    "there is no such member"
)]
#[case(
    "timestamp('2024-01-01T00:00:00Z').getHours(spec.configuration.env.HF_TOKEN) == 1",
    "cannot be applied to that value"
)]
#[case(
    "spec.map.sortBy(k, k) == []",
    "`sortBy` cannot be applied to map and list"
)]
#[case(
    "math.greatest(spec.profile.empty) > 1",
    "math.greatest(): the list must not be empty"
)]
#[case(
    "name.matches(spec.matrix.map(r, name).join('x').replace('x', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy').replace('y', 'zzzzzzzzz'))",
    "matches(): the pattern is too long"
)]
#[case("spec.matrix[7] == [1]", "the list has no element at that index")]
#[case("spec.n / 0 == 1", "a division by zero")]
#[case("spec.big + 1 > 0", "the number does not fit 64 bits")]
#[case("spec.n", "it gives int, not a bool")]
#[case(
    "int(spec.configuration.env.HF_TOKEN) == 1",
    "int() cannot convert that value"
)]
#[case(
    "spec.configuration.env.HF_TOKEN.matches(spec.configuration.env.HF_TOKEN + '(')",
    "the pattern is not a valid regular expression"
)]
fn an_error_says_why_and_never_a_value(#[case] expression: &str, #[case] reason: &str) {
    let message = holds(expression).unwrap_err();
    assert!(
        message.starts_with("validations[0] cannot be evaluated: "),
        "{message}"
    );
    assert!(message.contains(reason), "{expression}: {message}");
    assert!(!message.contains("s3cr3t"), "{message}");
}

#[test]
fn a_nameless_spec_has_a_null_name() {
    let mut spec = run();
    spec["run_name"] = json!(null);
    spec["configuration"]["name"] = json!(null);
    assert_eq!(holds_on("name == null", &spec), Ok(true));
}
