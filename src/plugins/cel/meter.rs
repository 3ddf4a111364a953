//! What an evaluation may cost, and what it has cost.
//!
//! The interpreter knows no limit, so the expressions are rewritten when they are compiled: each
//! operation whose cost depends on data pays here before it runs. One unit stands for one node
//! of an expression evaluated once, or for [`BYTES`] of text read or copied.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::cel::ExecutionError;
use ::cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString, Kind, Type};
use ::cel::common::value::{StaticVal, Val};

use regex::Regex;
use serde_json::Value;

use crate::admission::verdict::{Fault, FaultKind};

/// What all rules of one policy may cost together on one call: around 5 ms of one core.
pub(super) const BUDGET: u64 = 60_000;

/// The same for the fast way, which takes a quarter of the time for a unit.
pub(super) const FAST_BUDGET: u64 = 4 * BUDGET;

/// Bytes of text for one unit.
const BYTES: usize = 64;

static METER: Type = Meter::TYPE;

/// The budget of one evaluation. A value, so that an expression can hand it to a function; no
/// expression that is typed can name it.
#[derive(Debug)]
pub(super) struct Meter {
    left: AtomicU64,
    exhausted: AtomicBool,
    known: Option<Arc<Known>>,
}

/// Regular expressions by their text, made when the policy was compiled: those among its
/// parameters, which an expression may pick from.
pub(super) type Known = HashMap<String, Regex>;

impl Meter {
    /// What a function that takes the meter declares.
    pub(super) const TYPE: Type = Type::new_unspecified_type("@meter");

    pub(super) fn new(units: u64) -> Self {
        Self {
            left: AtomicU64::new(units),
            exhausted: AtomicBool::new(false),
            known: None,
        }
    }

    /// A budget for expressions that may use these patterns.
    pub(super) fn knowing(self, known: Option<&Arc<Known>>) -> Self {
        Self {
            known: known.cloned(),
            ..self
        }
    }

    /// The regular expression of a text, if it is a parameter's.
    pub(super) fn known(&self, pattern: &str) -> Option<&Regex> {
        self.known.as_ref()?.get(pattern)
    }

    /// Takes `units` off the budget.
    ///
    /// # Errors
    /// When less is left. From then on every payment fails, and [`Meter::check`] tells, so
    /// that an error which `||` or `all()` swallows still ends the evaluation.
    pub(super) fn pay(&self, units: u64) -> Result<(), ExecutionError> {
        if let Some(rest) = self.left().checked_sub(units.max(1)) {
            self.left.store(rest, Ordering::Relaxed);
            return Ok(());
        }
        self.left.store(0, Ordering::Relaxed);
        self.exhausted.store(true, Ordering::Relaxed);
        Err(ExecutionError::InternalError("budget".to_owned()))
    }

    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Does work that nobody pays for; `None` if it costs more than is left.
    pub(super) fn unpaid<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let left = self.left();
        let done = work();
        self.left.store(left, Ordering::Relaxed);
        let exhausted = self.exhausted.swap(false, Ordering::Relaxed);
        (!exhausted).then_some(done)
    }

    /// Whatever value came out of a rule that spent the budget, it does not count.
    ///
    /// # Errors
    /// When a payment has failed, naming the rule that was on.
    pub(super) fn check(&self, rule: impl Fn() -> String) -> Result<(), Fault> {
        if !self.exhausted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let message = format!(
            "{} was stopped: it goes through more than an evaluation may cost",
            rule()
        );
        Err(Fault::new(FaultKind::Budget, message))
    }
}

impl Val for Meter {
    fn get_type(&self) -> &Type {
        &METER
    }

    fn cel_type() -> &'static Type {
        &METER
    }

    /// A copy has nothing to spend: the budget is one.
    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Meter::new(0))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Meter {}

/// Units for text of this length.
pub(super) fn text(bytes: usize) -> u64 {
    1 + (bytes / BYTES) as u64
}

/// The elements of a list or map, 0 for anything else.
pub(super) fn elements(val: &dyn Val) -> u64 {
    let size = val
        .as_sizer()
        .filter(|_| matches!(val.get_type().kind(), Kind::List | Kind::Map));
    size.map_or(0, |sizer| u64::try_from(*sizer.size().inner()).unwrap_or(0))
}

/// What copying a value costs. Values over JSON copy as a pointer; what an expression has built
/// copies whole.
pub(super) fn copying(val: &dyn Val) -> u64 {
    if let Some(string) = val.downcast_ref::<CelString>() {
        string
            .as_borrowed()
            .map_or_else(|| text(string.len()), |_| 1)
    } else if let Some(list) = val.downcast_ref::<CelList>() {
        1 + list
            .inner()
            .iter()
            .map(|item| copying(item.as_ref()))
            .sum::<u64>()
    } else if let Some(map) = val.downcast_ref::<CelMap>() {
        let entries = map.inner().iter();
        1 + entries
            .map(|(key, value)| copying(key.inner()) + copying(value.as_ref()))
            .sum::<u64>()
    } else if let Some(optional) = val.downcast_ref::<CelOptional>() {
        1 + optional.option().map_or(0, copying)
    } else if let Some(bytes) = val.downcast_ref::<CelBytes>() {
        text(bytes.inner().len())
    } else {
        1
    }
}

/// What reading a value once costs, its elements looked at but not gone into.
pub(super) fn reading(val: &dyn Val) -> u64 {
    match val.downcast_ref::<CelString>() {
        Some(string) => text(string.len()),
        None => 1 + elements(val),
    }
}

/// What reading a value costs with everything in it. Counting ends above `most`, since a value
/// over JSON may hold far more than it has cost.
pub(super) fn reading_whole(val: &dyn Val, most: u64) -> u64 {
    let mut units = reading(val);
    // Going through a value over JSON makes its elements.
    let Some(items) = val.as_iterable().filter(|_| units <= most) else {
        return units;
    };
    let members = val
        .as_indexer()
        .filter(|_| val.get_type().kind() == Kind::Map);
    let mut items = items.iter();
    while let Some(item) = items.next()
        && units <= most
    {
        units += reading_whole(item, most - units);
        if let Some(Ok(member)) = members.map(|members| members.get(item)) {
            units += reading_whole(member.as_ref(), most.saturating_sub(units));
        }
    }
    units
}

/// What going through a JSON tree costs.
pub(super) fn reading_json(tree: &Value) -> u64 {
    match tree {
        Value::String(string) => text(string.len()),
        Value::Array(items) => 1 + items.iter().map(reading_json).sum::<u64>(),
        Value::Object(members) => 1 + members.values().map(reading_json).sum::<u64>(),
        _ => 1,
    }
}
