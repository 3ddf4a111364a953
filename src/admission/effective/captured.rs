//! Bodies that real servers of four versions sent, one trap each: what they come to, and that they
//! come to the same.

use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;
use serde_json::{Value, json};

use super::{UNLIMITED, UNLIMITED_AMOUNT, effective, effective_tree};
use crate::admission::review::Kind;

/// Newest first.
const VERSIONS: [&str; 4] = ["0.22.5", "0.21.5", "0.20.29", "0.19.40"];

fn specs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs")
}

/// What the body comes to that the server of this version sent, if it takes the configuration.
fn of(name: &str, version: &str) -> Option<Value> {
    let text = fs::read_to_string(specs().join(version).join(format!("{name}.json"))).ok()?;
    let body: Value = serde_json::from_str(&text).unwrap();
    let spec = &body["spec"];
    let kind = match spec["configuration"]["type"].as_str().unwrap() {
        "fleet" => Kind::Fleet,
        "volume" => Kind::Volume,
        "gateway" => Kind::Gateway,
        _ => Kind::Run,
    };
    let value = effective(kind, spec, spec);
    let tree = effective_tree(kind, spec, spec);
    assert_eq!(
        serde_json::to_value(tree).unwrap(),
        value,
        "{name} {version}"
    );
    Some(value)
}

/// Without what is really different: where the old list of groups stands, and what dstack 0.19
/// demands of a fleet's machines when nothing is said.
fn comparable(effective: &Value) -> Value {
    let text = effective.to_string();
    let text = text.replace("configuration.replicas[", "configuration.groups[");
    let text = text.replace("/configuration/replicas/", "/configuration/groups/");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    if value["type"] == "fleet" {
        for group in value["groups"].as_array_mut().unwrap() {
            for resource in ["cpus", "memory", "disk"] {
                group[resource]["min"] = Value::Null;
            }
        }
    }
    value
}

#[test]
fn one_configuration_comes_to_the_same_in_every_version() {
    let mut compared = 0;
    for entry in fs::read_dir(specs().join("configurations")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let newest = of(name, VERSIONS[0]).unwrap();
        for version in &VERSIONS[1..] {
            if let Some(older) = of(name, version) {
                let (newest, older) = (comparable(&newest), comparable(&older));
                assert_eq!(newest, older, "{name} on {version}");
                compared += 1;
            }
        }
    }
    assert!(compared > 400, "{compared}");
}

#[rstest]
#[case("privileged-top-level", "/privileged", json!(["configuration.privileged"]))]
#[case("privileged-by-docker", "/privileged", json!(["configuration.docker"]))]
#[case("privileged-in-group", "/groups/1/privileged", json!(true))]
#[case("privileged-by-docker-in-group", "/groups/1/privileged", json!(true))]
#[case("privileged-in-old-replicas", "/groups/1/privileged", json!(true))]
#[case("privileged-by-docker-in-old-replicas", "/groups/1/privileged", json!(true))]
#[case("privileged-inherited-by-group", "/groups/0/privileged", json!(true))]
#[case("privileged-task-groups", "/groups/0/privileged", json!(true))]
#[case("host-mount-root-short", "/host_mounts/0/instance_path", json!("/"))]
#[case("host-mount-docker-socket", "/host_mounts/0/instance_path", json!("/var/run/docker.sock"))]
#[case("image-null", "/groups/0/image/source", json!("base"))]
#[case("image-docker", "/groups/0/image/source", json!("docker"))]
#[case("image-null-in-group", "/groups/1/image/source", json!("base"))]
#[case("image-without-registry", "/groups/0/image/source", json!("image"))]
#[case("gpu-unset", "/gpus", json!({"min": 0, "max": 0}))]
#[case("gpu-null", "/gpus", json!({"min": 0, "max": 0}))]
#[case("gpu-zero", "/gpus", json!({"min": 0, "max": 0}))]
#[case("gpu-nodes", "/gpus", json!({"min": 32, "max": 32}))]
#[case("gpu-node-groups", "/gpus", json!({"min": 16, "max": 16}))]
#[case("gpu-unbounded-by-name", "/gpus/max", json!(UNLIMITED))]
#[case("gpu-memory-only", "/gpus/max", json!(1))]
#[case("gpu-by-instance-type", "/gpus/max", json!(UNLIMITED))]
#[case("gpu-by-reservation", "/gpus/max", json!(UNLIMITED))]
#[case("gpu-fleet", "/gpus/max", json!(32))]
#[case("price-in-profile", "/max_price", json!(5.0))]
#[case("price-null", "/max_price", json!(UNLIMITED_AMOUNT))]
#[case("price-fleet-null", "/max_price", json!(UNLIMITED_AMOUNT))]
#[case("duration-off", "/max_duration", json!(UNLIMITED))]
#[case("duration-off-over-profile", "/max_duration", json!(UNLIMITED))]
#[case("duration-off-in-profile", "/max_duration", json!(UNLIMITED))]
#[case("duration-null", "/max_duration", json!(UNLIMITED))]
#[case("duration-true", "/max_duration", json!(UNLIMITED))]
#[case("duration-false", "/max_duration", json!(UNLIMITED))]
#[case("idle-off", "/idle_duration", json!(UNLIMITED))]
#[case("idle-negative", "/idle_duration", json!(UNLIMITED))]
#[case("idle-minus-one", "/idle_duration", json!(UNLIMITED))]
#[case("idle-zero", "/idle_duration", json!(0))]
#[case("idle-fleet-off", "/idle_duration", json!(UNLIMITED))]
#[case("inactivity-off", "/inactivity_duration", json!(UNLIMITED))]
#[case("spot-in-profile", "/groups/0/spot_policy", json!("spot"))]
#[case("spot-auto", "/groups/0/spot_policy", json!("auto"))]
#[case("places-null", "/regions", json!(null))]
#[case("places-empty", "/regions", json!([]))]
#[case("placement-other-project", "/fleets/1/project", json!("cloud"))]
#[case("fleet-unbounded", "/nodes/max", json!(UNLIMITED))]
#[case("fleet-ssh-hosts", "/fleet/ssh", json!(true))]
#[case("tags-empty-over-profile", "/tags", json!({}))]
#[case("gateway-private", "/gateway/public_ip", json!(false))]
#[case("exposure-no-auth", "/exposure/auth", json!(false))]
#[case("exposure-gateway-other-project", "/exposure/gateway_project", json!("cloud"))]
#[case("commands-setup-in-dev-environment", "/commands/0/path", json!("configuration.setup[0]"))]
#[case("offer", "/offer", json!(true))]
#[case("offer-of-old-client", "/offer", json!(true))]
#[case("offer-with-arguments", "/offer", json!(true))]
fn a_trap_is_seen_for_what_it_is(#[case] name: &str, #[case] at: &str, #[case] is: Value) {
    let mut seen = 0;
    for version in VERSIONS {
        if let Some(effective) = of(name, version) {
            assert_eq!(effective.pointer(at), Some(&is), "{version}: {effective:#}");
            seen += 1;
        }
    }
    assert!(seen > 0, "no server sent {name}");
}
