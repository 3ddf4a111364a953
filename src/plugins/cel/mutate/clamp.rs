//! The mutation `clamp`: a number, or both ends of a range, brought between two bounds.

use std::cmp::Ordering;

use json_patch::PatchOperation;
use json_patch::jsonptr::{Pointer, PointerBuf};
use serde_json::{Map, Number, Value};

use super::{Evaluation, Failure};
use crate::plugins::cel::program::{Compiler, Program};
use crate::plugins::cel::source::{self, Negative, Unset};
use crate::plugins::cel::write::{json_type, set};

/// How dstack spells that a duration has no limit.
const OFF: &str = "off";

/// The members of dstack's ranges. Only a fleet's `nodes` has a target.
const RANGE: [&str; 3] = ["min", "max", "target"];

/// What a number is brought between.
pub(super) struct Clamp {
    min: Option<Bound>,
    max: Option<Bound>,
    negative: Negative,
    unset: Unset,
}

enum Bound {
    Fixed(Number),
    Computed(Program),
}

/// The bounds of one evaluation.
struct Bounds {
    min: Option<Number>,
    max: Option<Number>,
}

impl Clamp {
    /// Compiles the bounds; `None` with the reasons among the compiler's errors.
    pub(super) fn compile(
        compiler: &mut Compiler<'_>,
        field: &str,
        source: &source::Clamp,
    ) -> Option<Self> {
        let before = compiler.errors.len();
        let min = (&source.min, &source.min_expression);
        let max = (&source.max, &source.max_expression);
        let min = bound(compiler, field, "min", min);
        let max = bound(compiler, field, "max", max);
        if compiler.errors.len() > before {
            return None;
        }
        if min.is_none() && max.is_none() {
            let problem = "at least one of min, max, minExpression and maxExpression is needed";
            compiler.report(field, problem.to_owned());
        }
        if let (Some(Bound::Fixed(min)), Some(Bound::Fixed(max))) = (&min, &max)
            && compare(min, max).is_gt()
        {
            compiler.report(
                &format!("{field}.max"),
                format!("max, {max}, is below min, {min}"),
            );
        }
        if let Some(Bound::Fixed(max)) = &max
            && source.negative == Negative::Unlimited
            && is_negative(max)
        {
            let problem = "a negative max is no limit where negative numbers are unlimited";
            compiler.report(&format!("{field}.max"), problem.to_owned());
        }
        (compiler.errors.len() == before).then_some(Self {
            min,
            max,
            negative: source.negative,
            unset: source.unset,
        })
    }

    /// The expressions within.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        let bounds = [&self.min, &self.max].into_iter().flatten();
        bounds.filter_map(|bound| match bound {
            Bound::Fixed(_) => None,
            Bound::Computed(program) => Some(program),
        })
    }

    /// The operations that bring what is at `path` between the bounds.
    pub(super) fn operations<'a>(
        &'a self,
        evaluation: Evaluation<'_, 'a>,
        spec: &Value,
        path: &Pointer,
    ) -> Result<Vec<PatchOperation>, Failure> {
        let bounds = self.bounds(evaluation)?;
        let there = path.resolve(spec).ok();
        let parent = path.parent().and_then(|parent| parent.resolve(spec).ok());
        let wanted = match there {
            Some(Value::Object(members)) if is_range(members) => bounds.range(members, path),
            // Without a GPU there is no count of GPUs, and making one up would ask for some.
            None if !parent.is_some_and(Value::is_object) => Ok(Vec::new()),
            there => self.number(&bounds, there, path),
        };
        let mut operations = Vec::new();
        for (path, number) in wanted.map_err(Failure::rule)? {
            let operation = set(spec, &path, Value::Number(number)).map_err(Failure::rule)?;
            operations.extend(operation);
        }
        Ok(operations)
    }

    fn bounds<'a>(&'a self, evaluation: Evaluation<'_, 'a>) -> Result<Bounds, Failure> {
        let value = |bound: &'a Option<Bound>| match bound {
            None => Ok(None),
            Some(bound) => bound.value(evaluation),
        };
        let (min, max) = (value(&self.min)?, value(&self.max)?);
        if let (Some(min), Some(max)) = (&min, &max)
            && compare(min, max).is_gt()
        {
            return Err(Failure::rule("its min is above its max".to_owned()));
        }
        Ok(Bounds { min, max })
    }

    fn number(
        &self,
        bounds: &Bounds,
        there: Option<&Value>,
        path: &Pointer,
    ) -> Result<Vec<(PointerBuf, Number)>, String> {
        let number = match there {
            None | Some(Value::Null) => match self.unset {
                Unset::Unlimited => bounds.greatest(false),
                Unset::Keep => None,
            },
            Some(Value::String(text)) if text == OFF => bounds.greatest(true),
            Some(Value::Number(number)) => {
                match self.negative == Negative::Unlimited && is_negative(number) {
                    true => bounds.greatest(is_whole(number)),
                    false => Some(bounds.nearest(number)),
                }
            }
            Some(other) => return Err(not_clamped(other, path)),
        };
        Ok(number
            .map(|number| (path.to_buf(), number))
            .into_iter()
            .collect())
    }
}

impl Bound {
    fn value<'a>(&'a self, evaluation: Evaluation<'_, 'a>) -> Result<Option<Number>, Failure> {
        match self {
            Bound::Fixed(number) => Ok(Some(number.clone())),
            Bound::Computed(program) => match evaluation.compute(program)? {
                None | Some(Value::Null) => Ok(None),
                Some(Value::Number(number)) => Ok(Some(number)),
                Some(other) => {
                    let message = format!("it gives {}, not a number", json_type(&other));
                    Err(Failure::of(program, message))
                }
            },
        }
    }
}

impl Bounds {
    /// What becomes of the members of a range. An end that is null reaches as far as the bound.
    fn range(
        &self,
        members: &Map<String, Value>,
        path: &Pointer,
    ) -> Result<Vec<(PointerBuf, Number)>, String> {
        let ints = members
            .values()
            .any(|member| matches!(member, Value::Number(number) if is_whole(number)));
        let mut wanted = Vec::new();
        for name in RANGE {
            let place = path.with_trailing_token(name);
            let number = match (members.get(name), name) {
                (None | Some(Value::Null), "min") => self.least(ints),
                (None | Some(Value::Null), "max") => self.greatest(ints),
                (None | Some(Value::Null), _) => None,
                (Some(Value::Number(number)), _) => Some(self.nearest(number)),
                (Some(other), _) => return Err(not_clamped(other, &place)),
            };
            wanted.extend(number.map(|number| (place, number)));
        }
        Ok(wanted)
    }

    /// The number within the bounds that is nearest to `number`: a whole one for a whole one, if
    /// there is any.
    fn nearest(&self, number: &Number) -> Number {
        let exceeds = |max: &Number| compare(number, max).is_gt();
        let falls_short = |min: &Number| compare(number, min).is_lt();
        let ints = is_whole(number);
        let limit = if self.max.as_ref().is_some_and(exceeds) {
            self.greatest(ints)
        } else if self.min.as_ref().is_some_and(falls_short) {
            self.least(ints)
        } else {
            None
        };
        limit.unwrap_or_else(|| number.clone())
    }

    fn least(&self, ints: bool) -> Option<Number> {
        let min = self.min.as_ref()?;
        Some(
            self.whole(min, ints, f64::ceil)
                .unwrap_or_else(|| min.clone()),
        )
    }

    fn greatest(&self, ints: bool) -> Option<Number> {
        let max = self.max.as_ref()?;
        Some(
            self.whole(max, ints, f64::floor)
                .unwrap_or_else(|| max.clone()),
        )
    }

    /// A fractional bound as an int, where ints are wanted and one lies within the bounds.
    fn whole(&self, bound: &Number, ints: bool, round: fn(f64) -> f64) -> Option<Number> {
        let double = bound.as_f64().filter(|_| ints && !is_whole(bound))?;
        // Printed without a point, and out of range beyond 64 bits.
        let int: i64 = round(double).to_string().parse().ok()?;
        let int = Number::from(int);
        let above = self
            .min
            .as_ref()
            .is_none_or(|min| compare(&int, min).is_ge());
        let below = self
            .max
            .as_ref()
            .is_none_or(|max| compare(&int, max).is_le());
        (above && below).then_some(int)
    }
}

fn bound(
    compiler: &mut Compiler<'_>,
    field: &str,
    name: &str,
    source: (&Option<Number>, &Option<String>),
) -> Option<Bound> {
    match source {
        (None, None) => None,
        (Some(number), None) => Some(Bound::Fixed(number.clone())),
        (None, Some(expression)) => {
            let program = compiler.compile(&format!("{field}.{name}Expression"), expression);
            program.map(Bound::Computed)
        }
        (Some(_), Some(_)) => {
            compiler.report(
                &format!("{field}.{name}"),
                format!("{name} and {name}Expression exclude each other"),
            );
            None
        }
    }
}

fn not_clamped(value: &Value, path: &Pointer) -> String {
    let kind = match value {
        Value::String(_) => "a string other than `off`",
        Value::Object(_) => "a map that is no range of min and max",
        other => json_type(other),
    };
    format!("{path} is {kind}, so it cannot be clamped")
}

/// Whether an object is one of dstack's ranges.
fn is_range(members: &Map<String, Value>) -> bool {
    let ends = members.contains_key("min") || members.contains_key("max");
    ends && members.keys().all(|key| RANGE.contains(&key.as_str()))
}

/// Whether a number is spelled as an int, which a field of ints always is.
fn is_whole(number: &Number) -> bool {
    !number.is_f64()
}

fn is_negative(number: &Number) -> bool {
    number.as_f64().is_some_and(|number| number < 0.0)
}

fn compare(a: &Number, b: &Number) -> Ordering {
    let ordering = match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64().partial_cmp(&b.as_f64()),
    };
    ordering.unwrap_or(Ordering::Equal)
}
