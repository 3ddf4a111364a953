//! Small specs by hand, and what becomes of patches to them.

use rstest::rstest;

use super::*;

/// A task as dstack 0.22 sends it, shortened: what is left out has a default in the models.
fn task() -> Value {
    json!({
        "run_name": null,
        "repo_data": {"repo_type": "virtual"},
        "configuration": {
            "type": "task", "name": "train", "image": "ubuntu", "privileged": false,
            "commands": ["python train.py"], "env": {"LEVEL": "info"}, "tags": null,
            "ports": [{"local_port": null, "container_port": 8000}],
            "volumes": [{"name": "data", "path": "/data"}],
            "spot_policy": "auto", "max_duration": 3600, "priority": null,
            "resources": {
                "cpu": {"arch": null, "count": {"min": 2, "max": null}},
                "gpu": {"name": ["H100"], "count": {"min": 1, "max": 1}, "compute_capability": [9, 0]},
            },
            "fleets": [{"project": null, "name": "a"}],
            "groups": [{"name": "0", "nodes": 1, "resources": {"gpu": null}}],
        },
        "profile": {"name": "default", "default": false, "max_price": null},
    })
}

/// A service as dstack 0.20 sends it: `cpu` is a bare range, the replica groups are `replicas`.
fn old_service() -> Value {
    json!({
        "repo_data": {"repo_type": "virtual"},
        "configuration": {
            "type": "service", "port": {"local_port": 80, "container_port": 80}, "model": null,
            "replicas": [{"name": "0", "count": {"min": 1, "max": 1}, "commands": ["serve"]}],
            "resources": {"cpu": {"min": 2, "max": null}},
            "scaling": null, "spot_policy": null, "env": {"LEVEL": "info"},
        },
        "profile": null,
    })
}

/// A task with a field that dstack 0.19 was the last to take.
fn oldest_task() -> Value {
    json!({
        "configuration": {
            "type": "task", "commands": ["x"], "pool_name": null,
            "resources": {"cpu": {"min": 2, "max": null}},
        },
    })
}

fn fleet() -> Value {
    json!({
        "configuration": {
            "type": "fleet", "name": "f", "nodes": {"min": 0, "max": 2}, "blocks": 1,
            "resources": {"cpu": {"arch": null, "count": {"min": 2, "max": null}}},
        },
        "profile": {"name": "default"},
    })
}

fn volume() -> Value {
    json!({"configuration": {"type": "volume", "backend": "aws", "region": "r", "size": 100.0}})
}

fn gateway() -> Value {
    json!({"configuration": {
        "type": "gateway", "backend": "aws", "region": "r", "certificate": {"type": "lets-encrypt"},
    }})
}

fn fit(schemas: &SpecSchemas, kind: Kind, spec: &Value) -> Fit {
    schemas.version_fitting(kind, spec).expect("a version fits")
}

/// `spec` after an RFC 6902 `add` at `pointer`.
fn added(spec: &Value, pointer: &str, value: Value) -> Value {
    let operation = json!([{"op": "add", "path": pointer, "value": value}]);
    patched(spec, operation)
}

fn patched(spec: &Value, operations: Value) -> Value {
    let mut spec = spec.clone();
    let patch: json_patch::Patch = serde_json::from_value(operations).unwrap();
    json_patch::patch(&mut spec, &patch).unwrap();
    spec
}

fn found(kind: Kind, before: &Value, after: &Value, touched: &str) -> Vec<String> {
    let schemas = SpecSchemas::new();
    let fit = fit(&schemas, kind, before);
    let violations = schemas.violations(fit, before, after, &[touched]);
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn every_bundle_compiles_and_names_its_version() {
    let schemas = SpecSchemas::new();
    for (index, bundle) in BUNDLES.iter().enumerate() {
        let text: Value = serde_json::from_str(bundle.text).unwrap();
        assert_eq!(text["dstack"], bundle.version);
        for kind in Kind::ALL {
            let fit = Fit {
                bundle: index,
                kind,
            };
            assert!(schemas.validator(fit, Form::Output).is_some(), "{fit:?}");
            let input = text.pointer(&format!("/kinds/{kind}/input"));
            assert_eq!(
                schemas.validator(fit, Form::Input).is_some(),
                input.is_some()
            );
        }
    }
}

#[rstest]
#[case::run(Kind::Run, task(), "0.22.5")]
#[case::run_of_an_older_server(Kind::Run, old_service(), "0.20.29")]
#[case::run_of_the_oldest_server(Kind::Run, oldest_task(), "0.19.40")]
#[case::fleet(Kind::Fleet, fleet(), "0.22.5")]
#[case::volume(Kind::Volume, volume(), "0.22.5")]
#[case::gateway(Kind::Gateway, gateway(), "0.22.5")]
#[case::another_kind(Kind::Fleet, volume(), "")]
#[case::no_object(Kind::Run, json!([1]), "")]
#[case::unknown_field(Kind::Run, added(&task(), "/from_the_future", json!(1)), "")]
fn the_newest_version_that_takes_the_original_is_meant(
    #[case] kind: Kind,
    #[case] spec: Value,
    #[case] version: &str,
) {
    let schemas = SpecSchemas::new();
    let fit = schemas.version_fitting(kind, &spec);
    assert_eq!(fit.map_or("", Fit::version), version);
}

#[rstest]
#[case::top_level("/foo", json!(1), "the top level: unknown field `foo`")]
#[case::misspelt("/configuration/comands", json!([]), "/configuration: unknown field `comands`; did you mean `commands`?")]
#[case::in_a_union("/configuration/resources/gpu/nam", json!(["A100"]), "/configuration/resources/gpu: unknown field `nam`; did you mean `name`?")]
#[case::where_no_name_is_near("/configuration/resources/gpu/xyz", json!(1), "/configuration/resources/gpu: unknown field `xyz`")]
#[case::in_a_list("/configuration/groups/0/resource", json!({}), "/configuration/groups/0: unknown field `resource`; did you mean `resources`?")]
#[case::appended("/configuration/fleets/-", json!({"nam": "b", "name": "b"}), "/configuration/fleets/1: unknown field `nam`; did you mean `name`?")]
#[case::escaped("/configuration/a~1b", json!(1), "/configuration: unknown field `a/b`")]
#[case::choice("/configuration/spot_policy", json!("spto"), "/configuration/spot_policy: `spto` is not one of `spot`, `on-demand`, `auto`; did you mean `spot`?")]
#[case::kind_of_run("/configuration/type", json!("job"), "/configuration/type: `job` is not one of `dev-environment`, `service`, `task`")]
#[case::type_of_a_choice("/configuration/spot_policy", json!(["spot"]), "/configuration/spot_policy: expected `spot`, `on-demand`, `auto` or null, got a list")]
#[case::word_for_a_number("/configuration/priority", json!("high"), "/configuration/priority: expected an integer or null, got a string")]
#[case::fraction("/configuration/priority", json!(1.5), "/configuration/priority: expected an integer or null, got a number")]
#[case::null(
    "/configuration/privileged",
    Value::Null,
    "/configuration/privileged: expected a boolean, got null"
)]
#[case::object_for_a_duration("/configuration/max_duration", json!({}), "/configuration/max_duration: expected a boolean, an integer, a string or null, got an object")]
#[case::inside_a_written_object("/configuration/resources", json!({"gpu": {"name": {}}}), "/configuration/resources/gpu/name: expected a string, a list or null, got an object")]
#[case::number_as_a_tag("/configuration/tags", json!({"cost": 5}), "/configuration/tags/cost: expected a string, got an integer")]
#[case::null_as_a_tag("/configuration/tags", json!({"cost": null}), "/configuration/tags/cost: expected a string, got null")]
#[case::bound("/configuration/priority", json!(101), "/configuration/priority: the value is greater than the maximum of 100")]
fn a_broken_patch_is_named_where_it_is(
    #[case] path: &str,
    #[case] value: Value,
    #[case] message: &str,
) {
    let before = task();
    assert_eq!(
        found(Kind::Run, &before, &added(&before, path, value), path),
        [message]
    );
}

#[test]
fn of_a_union_of_objects_the_nearest_is_explained() {
    let before = task();
    let path = "/configuration/volumes/0";
    let after = added(&before, path, json!({"name": "data", "pth": "/data"}));
    assert_eq!(
        found(Kind::Run, &before, &after, path),
        [
            "/configuration/volumes/0: missing field `path`",
            "/configuration/volumes/0: unknown field `pth`; did you mean `path`?",
        ],
    );
}

#[rstest]
#[case::duration("/configuration/max_duration", json!("1d"))]
#[case::gpu("/configuration/resources/gpu", json!("A100:2"))]
#[case::count("/configuration/resources/gpu/count", json!(2))]
#[case::range("/configuration/resources/gpu/count", json!("2..4"))]
#[case::memory("/configuration/resources/memory", json!("16GB"))]
#[case::cpu_as_before_0_21("/configuration/resources/cpu", json!({"min": 4, "max": null}))]
#[case::port("/configuration/ports/0", json!(8080))]
#[case::fleet("/configuration/fleets/-", json!("b"))]
#[case::vendor_by_another_name("/configuration/resources/gpu/vendor", json!("tpu"))]
#[case::sent_form("/configuration/resources/gpu", json!({"count": {"min": 1, "max": 2}, "compute_capability": [8, 0]}))]
#[case::number_for_a_string("/configuration/env/PORT", json!(8080))]
#[case::digits_for_an_integer("/configuration/priority", json!("50"))]
#[case::word_for_a_boolean("/configuration/privileged", json!("yes"))]
#[case::internal_field("/merged_profile", Value::Null)]
#[case::new_tags("/configuration/tags", json!({"team": "a"}))]
fn what_dstack_takes_is_no_violation(#[case] path: &str, #[case] value: Value) {
    let before = task();
    assert_eq!(
        found(Kind::Run, &before, &added(&before, path, value), path),
        [""; 0]
    );
}

#[rstest]
#[case::sent_form_elsewhere("/configuration/resources/gpu/foo", json!(1), "/configuration/resources/gpu: unknown field `foo`")]
#[case::boolean_for_a_string("/configuration/env/DEBUG", json!(true), "/configuration/env/DEBUG: expected an object or a string, got a boolean")]
fn what_one_form_takes_elsewhere_excuses_nothing(
    #[case] path: &str,
    #[case] value: Value,
    #[case] message: &str,
) {
    let before = task();
    let after = added(&before, "/configuration/max_duration", json!("1d"));
    let after = added(&after, path, value);
    assert_eq!(found(Kind::Run, &before, &after, path), [message]);
}

#[rstest]
#[case::group("/configuration/replicas/0/imag", json!("x"), &["/configuration/replicas/0: unknown field `imag`; did you mean `image`?"])]
#[case::word("/configuration/replicas", json!("1..2"), &[])]
#[case::pydantic_1_makes_strings_of_booleans("/configuration/env/DEBUG", json!(true), &[])]
#[case::newer_field("/configuration/groups", json!([]), &["/configuration: unknown field `groups`"])]
fn an_older_server_is_judged_by_its_own_models(
    #[case] path: &str,
    #[case] value: Value,
    #[case] messages: &[&str],
) {
    let before = old_service();
    assert_eq!(
        found(Kind::Run, &before, &added(&before, path, value), path),
        messages
    );
}

#[rstest]
#[case::fleet(
    Kind::Fleet,
    fleet(),
    "/configuration/nodes/maximum",
    "/configuration/nodes: unknown field `maximum`; did you mean `max`?"
)]
#[case::volume(
    Kind::Volume,
    volume(),
    "/configuration/zone",
    "/configuration: unknown field `zone`"
)]
#[case::gateway(
    Kind::Gateway,
    gateway(),
    "/configuration/certificate/arn",
    "/configuration/certificate: unknown field `arn`"
)]
fn every_kind_is_checked(
    #[case] kind: Kind,
    #[case] before: Value,
    #[case] path: &str,
    #[case] message: &str,
) {
    assert_eq!(
        found(kind, &before, &added(&before, path, json!("x")), path),
        [message]
    );
}

#[test]
fn a_removed_member_that_is_needed_is_missed() {
    let before = volume();
    let path = "/configuration/region";
    let after = patched(&before, json!([{"op": "remove", "path": path}]));
    assert_eq!(
        found(Kind::Volume, &before, &after, path),
        ["/configuration: missing field `region`"],
    );
}

#[test]
fn what_was_wrong_before_is_not_blamed() {
    let schemas = SpecSchemas::new();
    let fit = fit(&schemas, Kind::Run, &task());
    let before = added(&task(), "/configuration/foo", json!(1));
    let after = added(&before, "/configuration/priority", json!("high"));
    let violations = schemas.violations(fit, &before, &after, &["/configuration"]);
    let paths: Vec<_> = violations.iter().map(|found| found.path.as_str()).collect();
    assert_eq!(paths, ["/configuration/priority"]);
}

#[test]
fn what_lies_elsewhere_is_not_blamed() {
    let before = task();
    let after = added(&before, "/configuration/foo", json!(1));
    for elsewhere in ["/configuration/fo", "/configuration/priority", "/profile"] {
        assert_eq!(found(Kind::Run, &before, &after, elsewhere), [""; 0]);
    }
}

#[test]
fn a_long_value_is_quoted_in_part_and_in_one_line() {
    let before = task();
    let path = "/configuration/spot_policy";
    let after = added(&before, path, json!("a\n".to_owned() + &"b".repeat(500)));
    let messages = found(Kind::Run, &before, &after, path);
    assert!(messages[0].len() < 150, "{messages:?}");
    assert!(messages[0].contains("`a\\nbbb"), "{messages:?}");
}

#[test]
fn warming_compiles_what_the_newest_version_sends() {
    let schemas = SpecSchemas::new();
    schemas.warm();
    for forms in &schemas.compiled[0] {
        assert!(forms.output.get().is_some());
    }
    for forms in schemas.compiled[1..].iter().flatten() {
        assert!(forms.output.get().is_none() && forms.input.get().is_none());
    }
}
