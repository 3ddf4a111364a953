//! What a fleet asks for: machines of a cloud, or given hosts.

use serde_json::Value;

use super::fields::{Fields, field, list, seconds, span, text};
use super::run::{Resources, total};
use super::{Effective, Fleet, Group, Image, Span};

/// Seconds, when nothing is said (dstack's `DEFAULT_FLEET_TERMINATION_IDLE_TIME`).
const IDLE_DURATION: i64 = 72 * 60 * 60;

pub(super) fn effective<'s>(fields: &Fields<'s>, common: Effective<'s>) -> Effective<'s> {
    let configuration = fields.configuration;
    match field(configuration, "ssh_config") {
        Some(ssh) => hosts(fields, ssh, common),
        None => cloud(fields, common),
    }
}

fn cloud<'s>(fields: &Fields<'s>, common: Effective<'s>) -> Effective<'s> {
    let configuration = fields.configuration;
    let nodes = field(configuration, "nodes");
    let count = span(nodes, 0);
    let target = nodes.and_then(|nodes| field(nodes, "target")?.as_i64());
    let resources = Resources::of(configuration, "configuration");
    let reservation = fields.merged_text("reservation");
    let brought_by = fields.brings_gpus(reservation);
    let group = Group {
        path: "configuration".to_owned(),
        pointer: "/configuration".to_owned(),
        name: None,
        nodes: count,
        image: no_image(),
        privileged: false,
        gpus: resources.gpus(brought_by),
        cpus: resources.cpus(),
        memory: resources.memory(),
        disk: resources.disk(),
        spot_policy: fields.merged_text("spot_policy").unwrap_or("on-demand"),
        reservation,
    };
    let groups = vec![group];
    Effective {
        env: fields.env(),
        nodes: count,
        gpus: total(&groups, |group| group.gpus.span().times(group.nodes)),
        groups,
        max_price: fields.price(),
        idle_duration: seconds(fields.merged("idle_duration"), IDLE_DURATION),
        backends: fields.lowered("backends"),
        regions: fields.lowered("regions"),
        availability_zones: fields.lowered("availability_zones"),
        instance_types: fields.lowered("instance_types"),
        fleet: Some(Fleet {
            ssh: false,
            target: target.unwrap_or(count.min),
            placement: placement(configuration),
        }),
        ..common
    }
}

/// Hosts are there already: they cost nothing by the hour, are in no cloud and never end.
fn hosts<'s>(fields: &Fields<'s>, ssh: &'s Value, common: Effective<'s>) -> Effective<'s> {
    let count = i64::try_from(list(ssh, "hosts").len()).unwrap_or(i64::MAX);
    let none = || Some(Vec::new());
    Effective {
        env: fields.env(),
        nodes: Span {
            min: count,
            max: count,
        },
        backends: none(),
        regions: none(),
        availability_zones: none(),
        instance_types: none(),
        fleet: Some(Fleet {
            ssh: true,
            target: count,
            placement: placement(fields.configuration),
        }),
        ..common
    }
}

fn placement(configuration: &Value) -> &str {
    text(configuration, "placement").unwrap_or("any")
}

/// A fleet runs nothing by itself.
fn no_image() -> Image<'static> {
    Image {
        path: String::new(),
        name: "",
        source: "none",
    }
}
