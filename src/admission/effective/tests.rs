//! Small specs, one for each rule. Bodies that real servers sent are looked at elsewhere.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn effective(kind: Kind, spec: &Value) -> Value {
    super::effective(kind, spec, spec)
}

fn run(configuration: Value) -> Value {
    run_with(configuration, Value::Null)
}

fn run_with(mut configuration: Value, profile: Value) -> Value {
    if configuration.get("type").is_none() {
        configuration["type"] = json!("task");
    }
    let spec = json!({"run_name": "r", "configuration": configuration, "profile": profile});
    effective(Kind::Run, &spec)
}

fn at(value: &Value, pointer: &str) -> Value {
    value.pointer(pointer).cloned().unwrap_or(json!("(none)"))
}

#[rstest]
#[case::configuration(json!({"max_price": 2}), json!({"max_price": 9.5}), json!(2.0))]
#[case::profile(json!({"max_price": null}), json!({"max_price": 9.5}), json!(9.5))]
#[case::nothing(json!({}), json!({}), json!(UNLIMITED_AMOUNT))]
#[case::no_number(json!({"max_price": "cheap"}), json!({}), json!(UNLIMITED_AMOUNT))]
fn a_price_is_the_merged_profiles(
    #[case] own: Value,
    #[case] profile: Value,
    #[case] price: Value,
) {
    assert_eq!(run_with(own, profile)["max_price"], price);
}

#[rstest]
#[case::seconds("max_duration", json!(60), json!(60))]
#[case::off("max_duration", json!("off"), json!(UNLIMITED))]
#[case::null("max_duration", json!(null), json!(UNLIMITED))]
#[case::no_timer("max_duration", json!(0), json!(UNLIMITED))]
#[case::negative("max_duration", json!(-5), json!(UNLIMITED))]
#[case::as_it_is_typed("max_duration", json!("1d"), json!(UNLIMITED))]
#[case::stop("stop_duration", json!(null), json!(300))]
#[case::stop_off("stop_duration", json!("off"), json!(UNLIMITED))]
#[case::idle("idle_duration", json!(null), json!(300))]
#[case::idle_off("idle_duration", json!(-1), json!(UNLIMITED))]
#[case::idle_more_off("idle_duration", json!(-7), json!(UNLIMITED))]
#[case::no_dev_environment("inactivity_duration", json!(null), json!(0))]
fn a_duration_is_seconds_or_unlimited(#[case] key: &str, #[case] value: Value, #[case] is: Value) {
    assert_eq!(run(json!({key: value}))[key], is);
    if key != "inactivity_duration" {
        assert_eq!(run_with(json!({}), json!({key: value}))[key], is);
    }
}

#[rstest]
#[case(json!(null), json!(UNLIMITED))]
#[case(json!("off"), json!(UNLIMITED))]
#[case(json!(7200), json!(7200))]
fn a_dev_environment_may_be_left_alone_for(#[case] value: Value, #[case] is: Value) {
    let configuration = json!({"type": "dev-environment", "inactivity_duration": value});
    assert_eq!(run(configuration)["inactivity_duration"], is);
}

#[rstest]
#[case::no(json!({"privileged": false, "docker": null}), &[])]
#[case::top(json!({"privileged": true}), &["configuration.privileged"])]
#[case::docker(json!({"privileged": false, "docker": true}), &["configuration.docker"])]
#[case::group(
    json!({"type": "service", "groups": [{"privileged": null}, {"privileged": true}]}),
    &["configuration.groups[1].privileged"]
)]
#[case::group_with_docker(
    json!({"type": "service", "groups": [{"docker": true}]}),
    &["configuration.groups[0].docker"]
)]
#[case::old_group(
    json!({"type": "service", "replicas": [{"docker": true}]}),
    &["configuration.replicas[0].docker"]
)]
#[case::no_flag(json!({"privileged": "yes"}), &["configuration.privileged"])]
fn privileged_is_found_wherever_it_is_said(#[case] configuration: Value, #[case] paths: &[&str]) {
    let effective = run(configuration);
    assert_eq!(effective["privileged"], json!(paths));
    let groups = effective["groups"].as_array().unwrap();
    assert_eq!(
        groups.iter().any(|group| group["privileged"] == true),
        !paths.is_empty()
    );
}

#[rstest]
#[case::none(json!({}), 0, 0)]
#[case::default(json!({"resources": {"gpu": {"count": {"min": 0, "max": null}}}}), 0, 0)]
#[case::default_of_a_vendor(json!({"resources": {"gpu": {"vendor": "nvidia", "count": {"min": 0, "max": null}}}}), 0, 0)]
#[case::one(json!({"resources": {"gpu": {"count": {"min": 1, "max": 1}}}}), 1, 1)]
#[case::unbounded(json!({"resources": {"gpu": {"count": {"min": 1, "max": null}}}}), 1, UNLIMITED)]
#[case::below_none(json!({"resources": {"gpu": {"count": {"min": -8, "max": -8}}}}), 0, 0)]
#[case::named(json!({"resources": {"gpu": {"name": ["H100"], "count": {"min": 0, "max": null}}}}), 0, UNLIMITED)]
#[case::nodes(json!({"nodes": 4, "resources": {"gpu": {"count": {"min": 1, "max": 2}}}}), 4, 8)]
#[case::instance_type(json!({"instance_types": ["p5.48xlarge"], "resources": {"gpu": {"count": {"min": 0, "max": null}}}}), 0, UNLIMITED)]
#[case::reservation(json!({"reservation": "cr-1", "resources": {"gpu": null}}), 0, UNLIMITED)]
#[case::a_machine_by_its_name(json!({"instances": [{"name": "h100-0"}], "resources": {"gpu": {"count": {"min": 0, "max": null}}}}), 0, UNLIMITED)]
#[case::instance_type_and_none(json!({"instance_types": ["c5.large"], "resources": {"gpu": {"count": {"min": 0, "max": 0}}}}), 0, 0)]
#[case::as_it_is_typed(json!({"resources": {"gpu": "H100:8"}}), 0, UNLIMITED)]
#[case::node_groups(
    json!({"nodes": null, "groups": [
        {"nodes": 2, "resources": {"gpu": {"count": {"min": 8, "max": 8}}}},
        {"resources": {"gpu": {"count": {"min": 1, "max": 1}}}},
    ], "resources": {"gpu": {"count": {"min": 64, "max": 64}}}}),
    17, 17
)]
#[case::replicas(
    json!({"type": "service", "replicas": {"min": 1, "max": 4}, "resources": {"gpu": {"count": {"min": 2, "max": 2}}}}),
    2, 8
)]
#[case::replica_groups(
    json!({"type": "service", "groups": [
        {"replicas": {"min": 0, "max": 4}, "resources": {"gpu": {"count": {"min": 2, "max": 4}}}},
        {"replicas": {"min": 1, "max": 1}},
    ]}),
    0, 16
)]
#[case::old_replica_groups(
    json!({"type": "service", "replicas": [
        {"count": {"min": 1, "max": 2}, "resources": {"gpu": {"count": {"min": 4, "max": 4}}}},
    ]}),
    4, 8
)]
fn gpus_are_counted_over_groups_nodes_and_replicas(
    #[case] configuration: Value,
    #[case] least: i64,
    #[case] most: i64,
) {
    assert_eq!(
        run(configuration)["gpus"],
        json!({"min": least, "max": most})
    );
}

#[rstest]
#[case(json!({}), "base", "dstackai/base")]
#[case(json!({"image": "nginx"}), "image", "nginx")]
#[case(json!({"docker": true}), "docker", "dstackai/dind")]
#[case(json!({"type": "service", "image": "top", "groups": [{}]}), "image", "top")]
#[case(json!({"type": "service", "groups": [{"image": "own"}]}), "image", "own")]
#[case(json!({"type": "service", "groups": [{"docker": true}]}), "docker", "dstackai/dind")]
fn an_image_is_the_groups_or_the_runs_or_dstacks_own(
    #[case] configuration: Value,
    #[case] source: &str,
    #[case] name: &str,
) {
    let effective = run(configuration);
    assert_eq!(at(&effective, "/groups/0/image/source"), source);
    assert_eq!(at(&effective, "/groups/0/image/name"), name);
}

#[rstest]
#[case::null(json!(null), json!({}), json!(null))]
#[case::own(json!(["EU-West-1"]), json!({"regions": ["x"]}), json!(["eu-west-1"]))]
#[case::of_the_profile(json!(null), json!({"regions": ["US-1"]}), json!(["us-1"]))]
#[case::none(json!([]), json!({"regions": ["x"]}), json!([]))]
fn places_are_in_lower_case(#[case] own: Value, #[case] profile: Value, #[case] is: Value) {
    assert_eq!(run_with(json!({"regions": own}), profile)["regions"], is);
}

#[test]
fn tags_replace_the_profiles_even_when_empty() {
    let profile = || json!({"tags": {"team": "a"}});
    assert_eq!(run_with(json!({"tags": {}}), profile())["tags"], json!({}));
    let inherited = run_with(json!({"tags": null}), profile());
    assert_eq!(inherited["tags"], json!({"team": "a"}));
}

#[test]
fn every_command_is_found_wherever_it_runs() {
    let dev = run(json!({"type": "dev-environment", "init": ["a"], "setup": ["b"]}));
    let texts = |value: &Value| -> Vec<String> {
        let commands = value["commands"].as_array().unwrap().iter();
        commands
            .map(|c| {
                format!(
                    "{} {}",
                    c["path"].as_str().unwrap(),
                    c["text"].as_str().unwrap()
                )
            })
            .collect()
    };
    assert_eq!(
        texts(&dev),
        ["configuration.init[0] a", "configuration.setup[0] b"]
    );
    let groups = run(json!({"entrypoint": "sh -c", "groups": [{"commands": ["c", "d"]}]}));
    assert_eq!(
        texts(&groups),
        [
            "configuration.entrypoint sh -c",
            "configuration.groups[0].commands[0] c",
            "configuration.groups[0].commands[1] d"
        ]
    );
}

#[rstest]
#[case::old(json!(["own", "team-a/theirs"]))]
#[case::new(json!([{"project": null, "name": "own"}, {"project": "team-a", "name": "theirs"}]))]
fn fleets_of_other_projects_are_told_apart(#[case] fleets: Value) {
    let effective = run(json!({"fleets": fleets}));
    assert_eq!(
        effective["fleets"],
        json!([
            {"path": "configuration.fleets[0]", "project": null, "name": "own"},
            {"path": "configuration.fleets[1]", "project": "team-a", "name": "theirs"},
        ])
    );
}

#[rstest]
#[case::default(json!({}), "always", true, "default")]
#[case::bare(json!({"https": false, "auth": false, "gateway": false}), "never", false, "none")]
#[case::auto(json!({"https": "auto", "gateway": true}), "auto", true, "any")]
#[case::named(json!({"gateway": {"project": "p", "name": "g"}}), "always", true, "named")]
#[case::named_before(json!({"gateway": "p/g"}), "always", true, "named")]
fn exposure_is_how_a_service_is_reached(
    #[case] mut configuration: Value,
    #[case] https: &str,
    #[case] auth: bool,
    #[case] gateway: &str,
) {
    configuration["type"] = json!("service");
    let exposure = run(configuration)["exposure"].clone();
    assert_eq!(exposure["https"], https);
    assert_eq!(exposure["auth"], auth);
    assert_eq!(exposure["gateway"], gateway);
    if gateway == "named" {
        assert_eq!(exposure["gateway_name"], "g");
        assert_eq!(exposure["gateway_project"], "p");
    }
}

#[rstest]
#[case::bounded(json!({"nodes": {"min": 1, "max": 3}}), json!({"min": 1, "max": 3}), 1)]
#[case::unlimited(json!({"nodes": {"min": 0, "max": null}}), json!({"min": 0, "max": UNLIMITED}), 0)]
#[case::target(json!({"nodes": {"min": 0, "target": 2, "max": 2}}), json!({"min": 0, "max": 2}), 2)]
#[case::hosts(json!({"ssh_config": {"hosts": ["a", "b"]}, "nodes": null}), json!({"min": 2, "max": 2}), 2)]
fn a_fleets_nodes_are_counted(
    #[case] configuration: Value,
    #[case] nodes: Value,
    #[case] target: i64,
) {
    let spec = json!({"configuration": configuration, "profile": {}});
    let effective = effective(Kind::Fleet, &spec);
    assert_eq!(effective["nodes"], nodes);
    assert_eq!(effective["fleet"]["target"], target);
}

#[test]
fn a_fleet_idles_for_three_days_when_nothing_is_said() {
    let of = |idle: Value| {
        let spec =
            json!({"configuration": {"type": "fleet", "idle_duration": idle}, "profile": null});
        effective(Kind::Fleet, &spec)["idle_duration"].clone()
    };
    assert_eq!(of(json!(null)), 259_200);
    assert_eq!(of(json!(-1)), UNLIMITED);
}

#[rstest]
#[case::of_now(json!({"image": "scratch", "user": "root"}), true)]
#[case::before_0_20(json!({"image": null}), true)]
#[case::with_an_image(json!({"image": "nginx"}), false)]
#[case::with_a_name(json!({"name": "x"}), false)]
#[case::with_a_host_mount(json!({"image": "scratch", "volumes": [{"instance_path": "/", "path": "/h"}]}), false)]
#[case::with_an_entrypoint(json!({"image": "scratch", "entrypoint": "/h/bin/sh"}), false)]
#[case::with_docker(json!({"docker": true}), false)]
#[case::with_a_shell(json!({"shell": "/workflow/evil.sh"}), false)]
#[case::with_a_directory(json!({"working_dir": "/workflow"}), false)]
fn an_offer_is_told_from_a_task(#[case] mut configuration: Value, #[case] offer: bool) {
    configuration["type"] = json!("task");
    configuration["commands"] = json!([":"]);
    let spec = json!({"run_name": null, "configuration": configuration, "profile": null});
    assert_eq!(effective(Kind::Run, &spec)["offer"], offer);
    for (key, value) in [
        ("run_name", json!("mine")),
        ("repo_id", json!("r")),
        ("repo_data", json!({"repo_type": "remote"})),
        ("repo_dir", json!("/root")),
        (
            "file_archives",
            json!([{"id": "x", "path": "/root/.bashrc"}]),
        ),
    ] {
        let mut more = spec.clone();
        more[key] = value;
        assert_eq!(effective(Kind::Run, &more)["offer"], false, "{key}");
    }
}

#[test]
fn what_is_no_spec_at_all_asks_for_nothing_and_harms_nothing() {
    for kind in Kind::ALL {
        for spec in [
            json!({}),
            json!({"configuration": []}),
            json!({"configuration": {"groups": [1, null]}}),
        ] {
            assert!(effective(kind, &spec).is_object(), "{kind} {spec}");
        }
    }
}

#[test]
fn instance_types_that_a_plugin_set_bring_no_gpus() {
    let original = json!({"configuration": {"type": "task"}});
    let narrowed = json!({"configuration": {"type": "task", "instance_types": ["g5.xlarge"]}});
    let of = |original| super::effective(Kind::Run, original, &narrowed)["gpus"]["max"].clone();
    assert_eq!(of(&original), 0);
    assert_eq!(of(&narrowed), UNLIMITED);
}
