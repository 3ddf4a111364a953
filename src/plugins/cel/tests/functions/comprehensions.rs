//! Comprehensions of two variables, and `cel.bind`.

use rstest::rstest;

use super::super::holds;

#[rstest]
#[case("spec.configuration.env.all(k, v, k.size() > 0 && v.size() > 0)")]
#[case("spec.configuration.env.exists(k, v, k == 'a-b' && v == 'x')")]
#[case(
    "!spec.configuration.env.exists(k, v, v == 'y') && spec.configuration.env.existsOne(k, v, v == 'x')"
)]
#[case("!spec.configuration.env.exists_one(k, v, true)")]
#[case("spec.configuration.commands.all(i, c, c == spec.configuration.commands[i])")]
#[case("spec.configuration.env.transformList(k, v, k + '=' + v) == ['HF_TOKEN=s3cr3t', 'a-b=x']")]
#[case("spec.configuration.env.transformList(k, v, k == 'a-b', v) == ['x']")]
#[case("{'b': 1, 'a': 2, 'c': 3}.transformList(k, v, k) == ['a', 'b', 'c']")]
#[case("{2: 'b', 1: 'a', true: 'c'}.transformList(k, v, v) == ['c', 'a', 'b']")]
#[case("['x', 'y'].transformList(i, v, i) == [0, 1]")]
#[case("spec.configuration.env.transformMap(k, v, v.size()) == {'HF_TOKEN': 6, 'a-b': 1}")]
#[case("spec.configuration.env.transformMap(k, v, v == 'x', v + '!') == {'a-b': 'x!'}")]
#[case("['x', 'y'].transformMap(i, v, v) == {0: 'x', 1: 'y'}")]
#[case("spec.configuration.env.transformMapEntry(k, v, {v: k})['x'] == 'a-b'")]
#[case("['x', 'y'].transformMapEntry(i, v, i > 0, {v: i}) == {'y': 1}")]
#[case(
    "spec.map.all(k, v, k in spec.map) && spec.matrix.all(i, row, row.all(j, x, x == spec.matrix[i][j]))"
)]
#[case("spec.matrix.all(x, y, y.map(x, x).size() == y.map(y, y).size() && x >= 0)")]
#[case("{'a': 1}.all(k, v, [5].all(v, v == 5) && cel.bind(k, v, k == 1) && v == 1)")]
#[case("{'a': {'b': 1}}.all(k, v, has(v.b) && !has(v.c) && v.b == 1 && {k: v} == {'a': {'b': 1}})")]
#[case("{}.all(k, v, false) && ![].exists(i, v, true) && {}.transformMap(k, v, v) == {}")]
#[case("{'a': {'b': 1}}.all(k, v, v.all(k2, v2, k == 'a' && k2 == 'b' && v2 == 1))")]
#[case("{'a': 1, 'b': 2}.exists(k, v, v / 0 == 1 || k == 'b')")]
#[case("spec.map.all(spec, kind, spec in ['a', 'b']) && kind == 'run'")]
#[case("cel.bind(x, spec.n + 1, x * x == 64)")]
#[case("cel.bind(g, spec.configuration.groups[0], cel.bind(r, g.replicas, r.max - r.min == 2))")]
#[case("cel.bind(spec, 5, spec == 5) && spec.n == 7")]
#[case("spec.configuration.groups.map(g, cel.bind(r, g.replicas, r.max - r.min)) == [2, 1]")]
fn a_comprehension_sees_both(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}

#[rstest]
#[case(
    "['a', 'b'].transformMapEntry(i, v, {'k': v}) == {}",
    "the same key comes twice"
)]
#[case("['a'].transformMapEntry(i, v, 1) == {}", "each entry is a map")]
#[case(
    "spec.n.all(k, v, true)",
    "int cannot be gone through: a list or map was expected"
)]
#[case("spec.map.all(k, v, v.absent == 1)", "list has no members")]
fn what_is_no_comprehension_is_an_error(#[case] expression: &str, #[case] reason: &str) {
    let message = holds(expression).unwrap_err();
    assert!(message.contains(reason), "{expression}: {message}");
}
