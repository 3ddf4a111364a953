//! What a spec really asks for, whatever dstack version sent it.
//!
//! A spec says the same thing in several places, and what it leaves out means something too. Here
//! the profile is merged, groups have what they inherit, old and new shapes are one shape, and
//! what is unlimited is a number larger than any limit. A rule that looks here is not sidestepped
//! by another way of saying the same.
//!
//! The rules are those of dstack 0.19.11 to 0.22.5 (`core/models/{configurations,profiles,fleets}.py`
//! and `server/services/jobs/configurators/`). A value of a shape that no dstack server sends
//! counts as the most it could mean.

#[cfg(test)]
mod captured;
mod fields;
mod fleet;
mod run;
#[cfg(test)]
mod tests;
mod tree;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use self::fields::{Fields, field, text};
pub use self::tree::Tree;
use super::review::Kind;

/// Stands for "no limit" among whole numbers: counts and seconds.
pub const UNLIMITED: i64 = i64::MAX;

/// Stands for "no limit" among prices and sizes.
pub const UNLIMITED_AMOUNT: f64 = f64::MAX;

/// What a spec really asks for. Every member is there for every kind of spec; where a kind has no
/// such setting it is the one that no rule minds: 0, false, null or empty.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Effective<'s> {
    /// `task`, `service`, `dev-environment`, `fleet`, `volume` or `gateway`.
    pub r#type: &'s str,
    /// Whether this is the task that `dstack offer` makes up to ask for prices. It runs nothing: it
    /// has no name, repo, files or shell of its own.
    pub offer: bool,
    /// The tags: the configuration's if it has any member `tags`, even an empty one, else the profile's.
    pub tags: Option<&'s Map<String, Value>>,
    /// The environment variables of runs and fleets.
    pub env: Vec<Variable<'s>>,

    /// The parts of a run or fleet that get machines of their own: its groups, or itself.
    pub groups: Vec<Group<'s>>,
    /// Machines at once, over all groups: nodes times replicas. Of a fleet, its nodes or hosts.
    pub nodes: Span,
    /// Replicas of a service at once, over all groups.
    pub replicas: Span,
    /// GPUs at once, over all groups, nodes and replicas.
    pub gpus: Span,

    /// Every place that makes a container privileged, for instance `configuration.groups[0].docker`.
    pub privileged: Vec<String>,
    /// The host's directories that are mounted into containers.
    pub host_mounts: Vec<HostMount<'s>>,
    /// The network volumes that are mounted into containers.
    pub volumes: Vec<VolumeMount<'s>>,
    /// Everything that a spec has run: `commands`, `init`, `setup`, `entrypoint` and `shell`, of groups too.
    pub commands: Vec<Command<'s>>,
    /// Whether the run may use the dstack API in its owner's name (`dstack: true`).
    pub dstack: bool,
    /// The run's priority, 0 to 100.
    pub priority: i64,

    /// Dollars an hour for each machine. Unlimited when nothing is said.
    pub max_price: f64,
    /// Seconds that the run may last. Unlimited when 0, `off` or nothing is said.
    pub max_duration: i64,
    /// Seconds that the run may take to stop: 300 when nothing is said.
    pub stop_duration: i64,
    /// Seconds that a machine may idle: 300 for a run and 259200 for a fleet when nothing is said,
    /// unlimited when `off` or negative.
    pub idle_duration: i64,
    /// Seconds that a dev environment may be left alone. Unlimited when `off` or nothing is said.
    pub inactivity_duration: i64,

    /// In lower case, as dstack compares them. Null: any.
    pub backends: Option<Vec<String>>,
    /// In lower case, as dstack compares them. Null: any.
    pub regions: Option<Vec<String>>,
    /// In lower case, as dstack compares them. Null: any.
    pub availability_zones: Option<Vec<String>>,
    /// In lower case, as dstack compares them. Null: any.
    pub instance_types: Option<Vec<String>>,
    /// The fleets that the run may use. Null: any of its project, and from dstack 0.20 any that other
    /// projects export to it.
    pub fleets: Option<Vec<FleetReference<'s>>>,
    /// The machines that the run asks for by name. Null: any.
    pub instances: Option<Vec<InstanceReference<'s>>>,
    /// `reuse`, `reuse-or-create`, or null.
    pub creation_policy: Option<&'s str>,

    /// How a service is reached. Null for all else.
    pub exposure: Option<Exposure<'s>>,
    /// What only a fleet has. Null for all else.
    pub fleet: Option<Fleet<'s>>,
    /// What only a volume has. Null for all else.
    pub volume: Option<Volume<'s>>,
    /// What only a gateway has. Null for all else.
    pub gateway: Option<Gateway<'s>>,
}

/// A number that may end up anywhere from `min` to `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Span {
    pub min: i64,
    /// 9223372036854775807 when unlimited.
    pub max: i64,
}

/// An amount that may end up anywhere from `min` to `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Amounts {
    pub min: f64,
    /// 1.7976931348623157e308 when unlimited.
    pub max: f64,
}

/// An environment variable.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Variable<'s> {
    /// For instance `configuration.env.HF_TOKEN`.
    pub path: String,
    pub name: &'s str,
    /// Null when the spec names the variable alone.
    pub value: Option<&'s str>,
}

/// A part of a run or fleet that gets machines of its own.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Group<'s> {
    /// `configuration`, or for instance `configuration.groups[0]`.
    pub path: String,
    /// The same as a JSON Pointer: `/configuration`, or `/configuration/groups/0`.
    pub pointer: String,
    pub name: Option<&'s str>,
    /// Machines at once: nodes times replicas.
    pub nodes: Span,
    pub image: Image<'s>,
    pub privileged: bool,
    /// GPUs of one machine.
    pub gpus: Gpus<'s>,
    /// CPUs of one machine.
    pub cpus: Span,
    /// GB of memory of one machine.
    pub memory: Amounts,
    /// GB of disk of one machine.
    pub disk: Amounts,
    /// `spot`, `on-demand` or `auto`.
    pub spot_policy: &'s str,
    pub reservation: Option<&'s str>,
}

/// What a container is made from.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Image<'s> {
    /// Where it is said, for instance `configuration.groups[0].image`.
    pub path: String,
    /// As it is written; for dstack's own images `dstackai/base` and `dstackai/dind`.
    pub name: &'s str,
    /// `image`: the spec names it. `base`: dstack's own, since the spec names none. `docker`:
    /// dstack's own with a Docker daemon in it.
    pub source: &'s str,
}

/// The GPUs of one machine.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Gpus<'s> {
    /// For instance `configuration.resources.gpu`.
    pub path: String,
    pub min: i64,
    /// 9223372036854775807 when unlimited, 0 when the spec names no GPU and nothing in it can bring one.
    pub max: i64,
    /// Whether the spec says anything about GPUs.
    pub named: bool,
    /// What brings GPUs that the spec does not name: `reservation`, or `instance_types` or `instances`
    /// that the user chose. Those that a plugin set bring none.
    pub brought_by: Option<&'s str>,
    /// Names in lower case, as dstack compares them. Null: any.
    pub names: Option<Vec<String>>,
    /// In lower case.
    pub vendor: Option<String>,
    /// GB of memory of each GPU.
    pub memory: Amounts,
}

/// A directory of the host in a container.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct HostMount<'s> {
    /// For instance `configuration.volumes[0]`.
    pub path: String,
    pub instance_path: &'s str,
    /// Whether the run goes on without it where a machine cannot mount it.
    pub optional: bool,
}

/// A network volume in a container.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct VolumeMount<'s> {
    /// For instance `configuration.volumes[0]`.
    pub path: String,
    pub name: &'s str,
}

/// A shell command.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Command<'s> {
    /// For instance `configuration.groups[0].commands[1]`.
    pub path: String,
    pub text: &'s str,
}

/// A fleet that a run may use.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct FleetReference<'s> {
    /// For instance `configuration.fleets[0]`.
    pub path: String,
    /// Null: the run's own project.
    pub project: Option<&'s str>,
    pub name: &'s str,
}

/// A machine that a run asks for by name.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct InstanceReference<'s> {
    /// For instance `configuration.instances[0]`.
    pub path: String,
    /// The project of its fleet. Null: the run's own, or where the machine is named without its fleet
    /// any that exports to it.
    pub project: Option<&'s str>,
    pub fleet: Option<&'s str>,
    pub name: Option<&'s str>,
    pub hostname: Option<&'s str>,
}

/// How a service is reached.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Exposure<'s> {
    /// `always`, `never`, or `auto`: as the gateway has it.
    pub https: &'s str,
    /// Whether callers need a dstack token.
    pub auth: bool,
    /// Whether a gateway serves it: `default`: the project's, if it has one. `none`: the dstack
    /// server itself. `any`: one is demanded. `named`: the one that `gateway_name` says.
    pub gateway: &'s str,
    pub gateway_name: Option<&'s str>,
    /// The gateway's project. Null: the run's own.
    pub gateway_project: Option<&'s str>,
}

/// What only a fleet has.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Fleet<'s> {
    /// Whether the fleet is made of given hosts instead of a cloud's machines.
    pub ssh: bool,
    /// Machines that are made when the fleet is applied.
    pub target: i64,
    /// `any` or `cluster`.
    pub placement: &'s str,
}

/// What only a volume has.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Volume<'s> {
    /// GB. 0 for a volume that exists already.
    pub size: f64,
    /// Whether it stands for a volume that exists already, by `volume_id` or `claim_name`.
    pub external: bool,
    pub volume_id: Option<&'s str>,
    /// Of a Kubernetes backend.
    pub claim_name: Option<&'s str>,
    /// Of a Kubernetes backend.
    pub storage_class_name: Option<&'s str>,
}

/// What only a gateway has.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Gateway<'s> {
    pub public_ip: bool,
    pub domain: Option<&'s str>,
    /// Its kind: `lets-encrypt`, `acm`, or null for none.
    pub certificate: Option<&'s str>,
    pub load_balancer: Option<&'s str>,
    pub replicas: i64,
}

/// What a spec that came as `original` really asks for, as a JSON object of the shape of
/// [`Effective`].
pub fn effective(kind: Kind, original: &Value, spec: &Value) -> Value {
    // A value made of texts, numbers, lists and maps always is JSON.
    serde_json::to_value(Effective::of(kind, original, spec)).unwrap_or_default()
}

/// The same as a tree.
pub fn effective_tree(kind: Kind, original: &Value, spec: &Value) -> Tree {
    Tree::of(&Effective::of(kind, original, spec)).unwrap_or(Tree::Null)
}

impl<'s> Effective<'s> {
    /// What a spec asks for that came as `original`. Of that it matters who chose the instance
    /// types: the user, for what comes with them, or a plugin, which knows what it allows.
    pub fn of(kind: Kind, original: &'s Value, spec: &'s Value) -> Self {
        let fields = Fields::of(original, spec);
        let common = Self {
            r#type: text(fields.configuration, "type").unwrap_or(kind.as_str()),
            tags: fields.merged("tags").and_then(Value::as_object),
            ..Self::default()
        };
        match kind {
            Kind::Run => run::effective(&fields, common),
            Kind::Fleet => fleet::effective(&fields, common),
            Kind::Volume => volume(fields.configuration, common),
            Kind::Gateway => gateway(fields.configuration, common),
        }
    }
}

fn volume<'s>(configuration: &'s Value, common: Effective<'s>) -> Effective<'s> {
    let one = |key| fields::lowered(configuration, key).or_else(|| Some(Vec::new()));
    let volume_id = text(configuration, "volume_id");
    let claim_name = text(configuration, "claim_name");
    let external = volume_id.is_some() || claim_name.is_some();
    let size = field(configuration, "size").map(|size| size.as_f64().unwrap_or(UNLIMITED_AMOUNT));
    Effective {
        backends: one("backend"),
        regions: one("region"),
        availability_zones: one("availability_zone"),
        volume: Some(Volume {
            size: size.filter(|_| !external).unwrap_or(0.0),
            external,
            volume_id,
            claim_name,
            storage_class_name: text(configuration, "storage_class_name"),
        }),
        ..common
    }
}

fn gateway<'s>(configuration: &'s Value, common: Effective<'s>) -> Effective<'s> {
    let one = |key| fields::lowered(configuration, key).or_else(|| Some(Vec::new()));
    let kind_of = |key| field(configuration, key).and_then(|value| text(value, "type"));
    let replicas = field(configuration, "replicas");
    // Absent, a certificate is dstack's default; null, there is none.
    let certificate = match configuration.get("certificate") {
        None => Some("lets-encrypt"),
        Some(_) => kind_of("certificate"),
    };
    Effective {
        backends: one("backend"),
        regions: one("region"),
        instance_types: one("instance_type"),
        gateway: Some(Gateway {
            public_ip: configuration.get("public_ip") != Some(&Value::Bool(false)),
            domain: text(configuration, "domain"),
            certificate,
            load_balancer: kind_of("load_balancer"),
            replicas: replicas.map_or(1, |count| count.as_i64().unwrap_or(UNLIMITED)),
        }),
        ..common
    }
}
