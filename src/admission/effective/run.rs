//! What a run asks for: a task, a service or a dev environment.

use serde_json::Value;

use super::fields::{Fields, amounts, field, is_set, list, seconds, span, text};
use super::{
    Amounts, Command, Effective, Exposure, FleetReference, Gpus, Group, HostMount, Image,
    InstanceReference, Span, UNLIMITED, VolumeMount,
};

/// Seconds, when nothing is said (dstack's `DEFAULT_RUN_TERMINATION_IDLE_TIME`, `DEFAULT_STOP_DURATION`).
const IDLE_DURATION: i64 = 300;
const STOP_DURATION: i64 = 300;

/// The image and the command of the task that `dstack offer` makes up.
const OFFER_IMAGE: &str = "scratch";
const OFFER_COMMAND: &str = ":";

pub(super) fn effective<'s>(fields: &Fields<'s>, common: Effective<'s>) -> Effective<'s> {
    let configuration = fields.configuration;
    let is_service = common.r#type == "service";
    let mut groups = Vec::new();
    let mut replicas = Span::default();
    for part in parts(configuration) {
        let count = if is_service {
            // A replica group counts its replicas as `count` before dstack 0.21.3.
            let count = field(part.value, "replicas").or_else(|| field(part.value, "count"));
            match count {
                Some(_) => span(count, 0),
                None => Span::ONE,
            }
        } else {
            let nodes = field(part.value, "nodes");
            nodes.map_or(Span::ONE, |nodes| span(Some(nodes), 1))
        };
        if is_service {
            replicas = replicas.plus(count);
        }
        groups.push(part.group(fields, count));
    }
    let dev_environment = common.r#type == "dev-environment";
    Effective {
        offer: is_offer(fields),
        env: fields.env(),
        nodes: total(&groups, |group| group.nodes),
        gpus: total(&groups, |group| group.gpus.span().times(group.nodes)),
        replicas,
        groups,
        privileged: privileged(configuration),
        host_mounts: host_mounts(configuration),
        volumes: volumes(configuration),
        commands: commands(configuration),
        dstack: is_set(configuration, "dstack"),
        priority: field(configuration, "priority")
            .map_or(0, |priority| priority.as_i64().unwrap_or(UNLIMITED)),
        max_price: fields.price(),
        // dstack's runner sets no timer for 0.
        max_duration: match seconds(fields.merged("max_duration"), UNLIMITED) {
            0 => UNLIMITED,
            seconds => seconds,
        },
        stop_duration: seconds(fields.merged("stop_duration"), STOP_DURATION),
        idle_duration: seconds(fields.merged("idle_duration"), IDLE_DURATION),
        inactivity_duration: match dev_environment {
            true => seconds(field(configuration, "inactivity_duration"), UNLIMITED),
            false => 0,
        },
        backends: fields.lowered("backends"),
        regions: fields.lowered("regions"),
        availability_zones: fields.lowered("availability_zones"),
        instance_types: fields.lowered("instance_types"),
        fleets: fleets(fields),
        instances: instances(fields),
        creation_policy: fields.merged_text("creation_policy"),
        exposure: is_service.then(|| exposure(configuration)),
        ..common
    }
}

/// A part of the configuration that gets machines of its own, where it stands, and what it is in.
struct ConfigurationPart<'s> {
    path: String,
    pointer: String,
    value: &'s Value,
    top: &'s Value,
}

/// The groups, under the name that this dstack version has for them, or the configuration itself.
fn parts(configuration: &Value) -> Vec<ConfigurationPart<'_>> {
    for key in ["groups", "replicas"] {
        if let Some(Value::Array(items)) = configuration.get(key) {
            let part = |(index, value)| ConfigurationPart {
                path: format!("configuration.{key}[{index}]"),
                pointer: format!("/configuration/{key}/{index}"),
                value,
                top: configuration,
            };
            return items.iter().enumerate().map(part).collect();
        }
    }
    vec![ConfigurationPart {
        path: "configuration".to_owned(),
        pointer: "/configuration".to_owned(),
        value: configuration,
        top: configuration,
    }]
}

impl<'s> ConfigurationPart<'s> {
    /// What the part asks for. It inherits neither resources nor commands; what it does inherit
    /// may not be said in both places, so that either is looked at.
    fn group(self, fields: &Fields<'s>, nodes: Span) -> Group<'s> {
        let either = |key| text(self.value, key);
        let reservation = either("reservation").or_else(|| fields.merged_text("reservation"));
        let spot_policy = either("spot_policy").or_else(|| fields.merged_text("spot_policy"));
        let resources = Resources::of(self.value, &self.path);
        let brought_by = fields.brings_gpus(reservation);
        Group {
            name: text(self.value, "name").filter(|_| !std::ptr::eq(self.value, self.top)),
            nodes,
            image: self.image(),
            privileged: [self.value, self.top]
                .iter()
                .any(|place| is_set(place, "privileged") || is_set(place, "docker")),
            gpus: resources.gpus(brought_by),
            cpus: resources.cpus(),
            memory: resources.memory(),
            disk: resources.disk(),
            spot_policy: spot_policy.unwrap_or("on-demand"),
            reservation,
            path: self.path,
            pointer: self.pointer,
        }
    }

    fn image(&self) -> Image<'s> {
        let places = [(&*self.path, self.value), ("configuration", self.top)];
        for (path, place) in places {
            if is_set(place, "docker") {
                return Image {
                    path: format!("{path}.docker"),
                    name: "dstackai/dind",
                    source: "docker",
                };
            }
            if let Some(name) = text(place, "image") {
                return Image {
                    path: format!("{path}.image"),
                    name,
                    source: "image",
                };
            }
        }
        Image {
            path: format!("{}.image", self.path),
            name: "dstackai/base",
            source: "base",
        }
    }
}

/// The resources of one machine.
pub(super) struct Resources<'s> {
    path: String,
    value: Option<&'s Value>,
}

impl<'s> Resources<'s> {
    pub(super) fn of(part: &'s Value, path: &str) -> Self {
        Self {
            path: format!("{path}.resources"),
            value: field(part, "resources"),
        }
    }

    fn field(&self, key: &str) -> Option<&'s Value> {
        self.value.and_then(|resources| field(resources, key))
    }

    /// The GPUs; `brought_by` says what may bring some that are not named.
    pub(super) fn gpus(&self, brought_by: Option<&'s str>) -> Gpus<'s> {
        let gpu = self.field("gpu");
        let of = |key| gpu.and_then(|gpu| field(gpu, key));
        let count = span(of("count").or(gpu.filter(|gpu| !gpu.is_object())), 0);
        let described = ["name", "memory", "total_memory", "compute_capability"];
        let unlimited = count.max == UNLIMITED;
        // What a spec without GPUs arrives as: at least none, at most any number of any.
        let named = count.min > 0
            || gpu.is_some_and(|gpu| !gpu.is_object())
            || described.iter().any(|key| of(key).is_some())
            || !unlimited && gpu.is_some();
        let brought_by = brought_by.filter(|_| !named);
        Gpus {
            path: format!("{}.gpu", self.path),
            min: count.min,
            max: match named || brought_by.is_some() {
                true => count.max,
                false => 0,
            },
            named,
            brought_by,
            names: gpu.and_then(|gpu| super::fields::lowered(gpu, "name")),
            vendor: of("vendor").and_then(Value::as_str).map(str::to_lowercase),
            memory: amounts(of("memory")),
        }
    }

    /// Up to dstack 0.20 `cpu` is the range itself, from 0.21 its member `count`.
    pub(super) fn cpus(&self) -> Span {
        let cpu = self.field("cpu");
        span(cpu.map(|cpu| field(cpu, "count").unwrap_or(cpu)), 0)
    }

    pub(super) fn memory(&self) -> Amounts {
        amounts(self.field("memory"))
    }

    pub(super) fn disk(&self) -> Amounts {
        amounts(self.field("disk").and_then(|disk| field(disk, "size")))
    }
}

impl Gpus<'_> {
    pub(super) fn span(&self) -> Span {
        Span {
            min: self.min,
            max: self.max,
        }
    }
}

pub(super) fn total<'s>(groups: &[Group<'s>], of: impl Fn(&Group<'s>) -> Span) -> Span {
    groups.iter().map(of).fold(Span::default(), Span::plus)
}

/// `dstack offer` asks for prices with a task that nobody named and that does nothing: it has no code
/// with it, which another shell or a shell's start-up files could run.
fn is_offer(fields: &Fields<'_>) -> bool {
    let configuration = fields.configuration;
    let commands = list(configuration, "commands");
    let nothing = [
        "entrypoint",
        "groups",
        "name",
        "registry_auth",
        "shell",
        "working_dir",
    ];
    let no_code = [
        "repo_id",
        "repo_data",
        "repo_code_hash",
        "repo_dir",
        "working_dir",
    ];
    let empty = ["volumes", "setup", "files", "repos", "env"];
    text(configuration, "type") == Some("task")
        && field(fields.spec, "run_name").is_none()
        && matches!(commands, [only] if only == OFFER_COMMAND)
        && text(configuration, "image").is_none_or(|image| image == OFFER_IMAGE)
        && !is_set(configuration, "privileged")
        && !is_set(configuration, "docker")
        && nothing
            .iter()
            .all(|key| field(configuration, key).is_none())
        && empty.iter().all(|key| is_empty(configuration, key))
        && no_code.iter().all(|key| field(fields.spec, key).is_none())
        && is_empty(fields.spec, "file_archives")
}

fn is_empty(configuration: &Value, key: &str) -> bool {
    match field(configuration, key) {
        None => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        Some(_) => false,
    }
}

/// Every flag that makes a container privileged.
fn privileged(configuration: &Value) -> Vec<String> {
    let groups = parts(configuration);
    let groups = groups.iter().filter(|part| part.path != "configuration");
    let places = groups.map(|part| (&*part.path, part.value));
    let mut found = Vec::new();
    for (path, place) in std::iter::once(("configuration", configuration)).chain(places) {
        for flag in ["privileged", "docker"] {
            if is_set(place, flag) {
                found.push(format!("{path}.{flag}"));
            }
        }
    }
    found
}

fn host_mounts(configuration: &Value) -> Vec<HostMount<'_>> {
    mounts(configuration)
        .filter_map(|(index, mount)| {
            Some(HostMount {
                path: format!("configuration.volumes[{index}]"),
                instance_path: text(mount, "instance_path")?,
                optional: is_set(mount, "optional"),
            })
        })
        .collect()
}

fn volumes(configuration: &Value) -> Vec<VolumeMount<'_>> {
    let mut found = Vec::new();
    for (index, mount) in mounts(configuration) {
        // A mount may name one volume for each region that the run may land in.
        let names = match mount.get("name") {
            Some(Value::Array(names)) => names.as_slice(),
            Some(name) => std::slice::from_ref(name),
            None => &[],
        };
        found.extend(names.iter().filter_map(Value::as_str).map(|name| {
            let path = format!("configuration.volumes[{index}]");
            VolumeMount { path, name }
        }));
    }
    found
}

fn mounts(configuration: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list(configuration, "volumes").iter().enumerate()
}

fn commands(configuration: &Value) -> Vec<Command<'_>> {
    let mut found = Vec::new();
    for key in ["commands", "init", "setup"] {
        listed(&mut found, "configuration", configuration, key);
    }
    for key in ["entrypoint", "shell"] {
        if let Some(text) = text(configuration, key) {
            let path = format!("configuration.{key}");
            found.push(Command { path, text });
        }
    }
    for part in parts(configuration) {
        if part.path != "configuration" {
            listed(&mut found, &part.path, part.value, "commands");
        }
    }
    found
}

fn listed<'s>(found: &mut Vec<Command<'s>>, path: &str, place: &'s Value, key: &str) {
    let items = list(place, key).iter().enumerate();
    found.extend(items.filter_map(|(index, item)| {
        Some(Command {
            path: format!("{path}.{key}[{index}]"),
            text: item.as_str()?,
        })
    }));
}

fn fleets<'s>(fields: &Fields<'s>) -> Option<Vec<FleetReference<'s>>> {
    let (path, value) = fields.placed("fleets")?;
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    // An empty list names none, and so leaves all open.
    if items.is_empty() {
        return None;
    }
    let reference = |(index, item): (usize, &'s Value)| {
        let (project, name) = reference(item)?;
        let path = format!("{path}[{index}]");
        Some(FleetReference {
            path,
            project,
            name,
        })
    };
    Some(items.iter().enumerate().filter_map(reference).collect())
}

/// A project and a name: `{project, name}`, or `project/name` before dstack 0.20.
fn reference(item: &Value) -> Option<(Option<&str>, &str)> {
    match item.as_str() {
        Some(text) => Some(match text.split_once('/') {
            Some((project, name)) => (Some(project), name),
            None => (None, text),
        }),
        None => Some((text(item, "project"), text(item, "name")?)),
    }
}

fn instances<'s>(fields: &Fields<'s>) -> Option<Vec<InstanceReference<'s>>> {
    let (path, value) = fields.placed("instances")?;
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let instance = |(index, item): (usize, &'s Value)| {
        let fleet = field(item, "fleet").and_then(reference);
        InstanceReference {
            path: format!("{path}[{index}]"),
            project: fleet.and_then(|(project, _)| project),
            fleet: fleet.map(|(_, name)| name),
            name: text(item, "name").or_else(|| item.as_str()),
            hostname: text(item, "hostname"),
        }
    };
    Some(items.iter().enumerate().map(instance).collect())
}

fn exposure(configuration: &Value) -> Exposure<'_> {
    let gateway = field(configuration, "gateway");
    let named = gateway.and_then(reference);
    Exposure {
        https: match field(configuration, "https") {
            None | Some(Value::Bool(true)) => "always",
            Some(Value::Bool(false)) => "never",
            Some(_) => "auto",
        },
        auth: configuration.get("auth") != Some(&Value::Bool(false)),
        gateway: match gateway {
            None => "default",
            Some(Value::Bool(false)) => "none",
            Some(Value::Bool(true)) => "any",
            Some(_) => "named",
        },
        gateway_name: named.map(|(_, name)| name),
        gateway_project: named.and_then(|(project, _)| project),
    }
}
