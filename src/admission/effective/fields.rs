//! Reading the fields of a spec with dstack's meaning: what null, `off`, negative numbers, ranges
//! and absent members stand for.

use serde_json::Value;

use super::{Amounts, Span, UNLIMITED, UNLIMITED_AMOUNT, Variable};

static NOTHING: Value = Value::Null;

/// The two places of a run or fleet spec that say the same things.
pub(super) struct Fields<'s> {
    original: &'s Value,
    pub(super) spec: &'s Value,
    pub(super) configuration: &'s Value,
    profile: &'s Value,
}

impl<'s> Fields<'s> {
    pub(super) fn of(original: &'s Value, spec: &'s Value) -> Self {
        Self {
            original,
            spec,
            configuration: spec.get("configuration").unwrap_or(&NOTHING),
            profile: spec.get("profile").unwrap_or(&NOTHING),
        }
    }

    /// The merged profile's value: the configuration's if it is not null, else the profile's.
    pub(super) fn merged(&self, key: &str) -> Option<&'s Value> {
        field(self.configuration, key).or_else(|| field(self.profile, key))
    }

    /// What may bring GPUs that nobody names.
    pub(super) fn brings_gpus(&self, reservation: Option<&str>) -> Option<&'static str> {
        let places = ["configuration", "profile"];
        let chosen = |key| {
            let mut places = places.iter().filter_map(|place| self.original.get(place));
            places.any(|place| field(place, key).is_some())
        };
        ["instance_types", "instances"]
            .into_iter()
            .find(|key| chosen(key))
            .or(reservation.map(|_| "reservation"))
    }

    /// As [`Fields::merged`], with the place it stands at.
    pub(super) fn placed(&self, key: &str) -> Option<(String, &'s Value)> {
        let at = |place, from| field(from, key).map(|value| (format!("{place}.{key}"), value));
        at("configuration", self.configuration).or_else(|| at("profile", self.profile))
    }

    pub(super) fn merged_text(&self, key: &str) -> Option<&'s str> {
        self.merged(key).and_then(Value::as_str)
    }

    /// The texts of a list, in lower case. Null: any.
    pub(super) fn lowered(&self, key: &str) -> Option<Vec<String>> {
        self.merged(key).map(lower)
    }

    /// Dollars an hour.
    pub(super) fn price(&self) -> f64 {
        let price = self.merged("max_price");
        price.and_then(Value::as_f64).unwrap_or(UNLIMITED_AMOUNT)
    }

    /// The variables of `configuration.env`.
    pub(super) fn env(&self) -> Vec<Variable<'s>> {
        let members = field(self.configuration, "env").and_then(Value::as_object);
        let variable = |(name, value): (&'s String, &'s Value)| Variable {
            path: format!("configuration.env.{name}"),
            name,
            value: value.as_str(),
        };
        members.into_iter().flatten().map(variable).collect()
    }
}

/// A member that is there and not null.
pub(super) fn field<'s>(of: &'s Value, key: &str) -> Option<&'s Value> {
    of.get(key).filter(|value| !value.is_null())
}

pub(super) fn text<'s>(of: &'s Value, key: &str) -> Option<&'s str> {
    field(of, key).and_then(Value::as_str)
}

pub(super) fn list<'s>(of: &'s Value, key: &str) -> &'s [Value] {
    let items = field(of, key).and_then(Value::as_array);
    items.map(Vec::as_slice).unwrap_or_default()
}

/// Whether a flag is set. What is no flag counts as one that is.
pub(super) fn is_set(of: &Value, key: &str) -> bool {
    field(of, key).is_some_and(|value| value != &Value::Bool(false))
}

/// A text or the texts of a list, in lower case.
pub(super) fn lowered(of: &Value, key: &str) -> Option<Vec<String>> {
    field(of, key).map(lower)
}

fn lower(value: &Value) -> Vec<String> {
    let lower = |value: &Value| value.as_str().map(str::to_lowercase);
    match value {
        Value::Array(items) => items.iter().filter_map(lower).collect(),
        // A Kubernetes volume without a region has an empty one.
        one => lower(one)
            .filter(|text| !text.is_empty())
            .into_iter()
            .collect(),
    }
}

/// Seconds. `off`, negative numbers and what is no duration are unlimited, `true` is the default.
pub(super) fn seconds(value: Option<&Value>, default: i64) -> i64 {
    match value {
        None | Some(Value::Null | Value::Bool(true)) => default,
        Some(Value::Number(number)) => {
            let whole = number.as_i64().filter(|seconds| *seconds >= 0);
            whole.unwrap_or(UNLIMITED)
        }
        Some(_) => UNLIMITED,
    }
}

/// A whole number or a range of them; `least` is what an absent minimum stands for.
///
/// dstack takes negative counts, of GPUs for instance: they are none, and make no room elsewhere.
pub(super) fn span(value: Option<&Value>, least: i64) -> Span {
    let whole = |value: &Value| {
        let number = value.as_i64().or_else(|| exact(value.as_f64()?));
        number.map(|number| number.max(0))
    };
    match value {
        Some(value @ Value::Number(_)) => match whole(value) {
            Some(number) => Span {
                min: number,
                max: number,
            },
            None => Span {
                min: least,
                max: UNLIMITED,
            },
        },
        Some(range) => Span {
            min: field(range, "min").and_then(whole).unwrap_or(least),
            max: field(range, "max").and_then(whole).unwrap_or(UNLIMITED),
        },
        None => Span {
            min: least,
            max: UNLIMITED,
        },
    }
}

/// A double that is a whole number, as a whole number.
fn exact(double: f64) -> Option<i64> {
    double.to_string().parse().ok()
}

/// An amount or a range of them.
pub(super) fn amounts(value: Option<&Value>) -> Amounts {
    let bound = |key| value.and_then(|range| field(range, key)?.as_f64());
    match value.and_then(Value::as_f64) {
        Some(amount) => Amounts {
            min: amount,
            max: amount,
        },
        None => Amounts {
            min: bound("min").unwrap_or(0.0),
            max: bound("max").unwrap_or(UNLIMITED_AMOUNT),
        },
    }
}

impl Span {
    pub(super) const ONE: Span = Span { min: 1, max: 1 };

    /// As many times as another span says.
    pub(super) fn times(self, other: Span) -> Span {
        Span {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    pub(super) fn plus(self, other: Span) -> Span {
        Span {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }
}
