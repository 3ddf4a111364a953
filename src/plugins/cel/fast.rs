//! The fast way through an expression: what policies mostly do, without the interpreter.
//!
//! The interpreter looks every name and function up by its text and allocates every value. Here
//! that is done once, when a policy is compiled ([`Step`]), and values are small and borrowed
//! ([`Datum`]). It is a shortcut and decides nothing on its own: wherever an operation is not the
//! plain case, errors above all, the evaluation gives up, and the interpreter, which alone defines
//! what an expression means, evaluates it from the start. Where an answer is given, it is the
//! interpreter's; every evaluation of a build with debug assertions compares the two.

mod datum;
mod functions;
mod lower;
mod step;

use std::sync::OnceLock;

use serde_json::Value;

use self::datum::Datum;
pub(super) use self::lower::Lowering;
pub(super) use self::step::Step;
use self::step::{Binary, Body, Loop, Operand, Optional};
use super::functions::Pattern;
use super::meter::{self, Meter};
use super::scope::{Globals, Variable};
use crate::admission::review::Review;
use crate::admission::revision::Revision;

/// What the names of one call's expressions stand for.
pub(super) struct Fast<'a> {
    review: &'a Review,
    spec: &'a Revision,
    patterns: &'a [Pattern],
    variables: &'a [Variable],
    /// What each variable is, once it has been asked for; `None` where the interpreter has to say.
    values: Vec<OnceLock<Option<Datum<'a>>>>,
    /// A budget of its own: whoever has spent it leaves the rest to the interpreter.
    meter: Meter,
    interpreter: &'a Meter,
}

/// What is bound by the comprehensions around a step, outermost first.
type Locals<'a> = Vec<Datum<'a>>;

impl<'a> Fast<'a> {
    pub(super) fn new(globals: &Globals<'a>, variables: &'a [Variable], meter: Meter) -> Self {
        Self {
            review: globals.review,
            spec: globals.spec,
            patterns: globals.patterns,
            interpreter: globals.meter,
            variables,
            values: variables.iter().map(|_| OnceLock::new()).collect(),
            meter,
        }
    }

    /// Whether a condition holds; `None` where the interpreter has to say.
    pub(super) fn holds(&self, step: &'a Step) -> Option<bool> {
        self.truth(step, &mut Vec::new())
    }

    /// What an expression gives, as JSON; `None` where the interpreter has to say.
    pub(super) fn json(&self, step: &'a Step) -> Option<Value> {
        let value = self.value(step, &mut Vec::new())?;
        // One text of the spec may be in it many times over.
        self.pay(value.reading_whole(self.meter.left()))?;
        value.to_json()
    }

    /// Whether an answer is the interpreter's, as far as that can afford one.
    pub(super) fn is_right<T: PartialEq>(
        &self,
        answer: &T,
        interpreted: impl FnOnce() -> Option<T>,
    ) -> bool {
        let interpreted = self.interpreter.unpaid(interpreted);
        interpreted.is_none_or(|known| known.as_ref() == Some(answer))
    }

    fn pay(&self, units: u64) -> Option<()> {
        self.meter.pay(units).ok()
    }

    fn value(&self, step: &'a Step, locals: &mut Locals<'a>) -> Option<Datum<'a>> {
        match step {
            Step::Fixed(value) => Datum::of(value),
            Step::Spec(path) => Datum::of(within(self.spec, path)?),
            Step::Original(path) => Datum::of(within(self.review.spec.value(), path)?),
            Step::Effective(path) => {
                let tree = self.spec.effective_tree();
                let mut keys = path.iter();
                Datum::of_effective(keys.try_fold(tree, |tree, key| tree.member(key))?)
            }
            Step::User => Some(Datum::text(&self.review.user)),
            Step::Project => Some(Datum::text(&self.review.project)),
            Step::Kind => Some(Datum::text(self.review.kind.as_str())),
            Step::Name => Some(self.review.name().map_or(Datum::Null, Datum::text)),
            Step::Variable(position) => self.variable(*position),
            Step::Local(position) => locals.get(*position).cloned(),
            Step::Select(of, field) => self.value(of, locals)?.member(field)?,
            Step::Has(of, field) => {
                let member = self.value(of, locals)?.member(field)?;
                Some(Datum::Bool(member.is_some()))
            }
            Step::OrValue(optional, default) => match self.optional(optional, locals)? {
                Some(value) => Some(value),
                None => self.value(default, locals),
            },
            Step::Paid(step) => {
                let value = self.value(step, locals)?;
                self.pay(value.copying().max(value.reading()))?;
                Some(value)
            }
            Step::Not(step) => Some(Datum::Bool(!self.truth(step, locals)?)),
            Step::If(steps) => {
                let [condition, one, other] = &**steps;
                match self.truth(condition, locals)? {
                    true => self.value(one, locals),
                    false => self.value(other, locals),
                }
            }
            Step::Binary(operation, sides) => self.binary(*operation, sides, locals),
            Step::Call(function, arguments) => {
                let mut values = [Datum::Null, Datum::Null, Datum::Null];
                for (value, argument) in values.iter_mut().zip(arguments) {
                    *value = self.value(argument, locals)?;
                }
                self.call(*function, values)
            }
            Step::HasType(of, name) => {
                Some(Datum::Bool(self.value(of, locals)?.type_name() == *name))
            }
            Step::Matches(text, position) => {
                let Datum::Text(text) = self.value(text, locals)? else {
                    return None;
                };
                self.pay(meter::text(text.len()))?;
                let pattern = self.patterns.get(*position)?;
                Some(Datum::Bool(pattern.0.is_match(&text)))
            }
            Step::List(items) => {
                let items = items.iter().map(|item| self.value(item, locals));
                items.collect::<Option<_>>().map(Datum::List)
            }
            Step::Map(entries) => {
                let mut made = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let Datum::Text(key) = self.value(key, locals)? else {
                        return None;
                    };
                    made.push((key, self.value(value, locals)?));
                }
                Datum::map(made)
            }
            Step::Loop(round) => self.rounds(round, locals),
            Step::Bind(steps) => {
                let [value, result] = &**steps;
                let value = self.value(value, locals)?;
                locals.push(value);
                let result = self.value(result, locals);
                locals.pop();
                result
            }
            Step::Interpreted => None,
        }
    }

    fn truth(&self, step: &'a Step, locals: &mut Locals<'a>) -> Option<bool> {
        self.value(step, locals)?.as_bool()
    }

    fn variable(&self, position: usize) -> Option<Datum<'a>> {
        let variable = self.variables.get(position)?;
        let value = self
            .values
            .get(position)?
            .get_or_init(|| match &variable.constant {
                Some(constant) => Datum::of(constant),
                None => self.value(&variable.program.fast, &mut Vec::new()),
            });
        value.clone()
    }

    /// `Some(None)` is `optional.none()`: what is asked for is not there, for whatever reason.
    fn optional(
        &self,
        optional: &'a Optional,
        locals: &mut Locals<'a>,
    ) -> Option<Option<Datum<'a>>> {
        let of = match &optional.of {
            Operand::Value(step) => self.value(step, locals)?,
            Operand::Optional(optional) => match self.optional(optional, locals)? {
                Some(value) => value,
                None => return Some(None),
            },
        };
        match self.value(&optional.key, locals)? {
            Datum::Text(key) if of.type_name() == "map" => of.member(&key),
            Datum::Int(position) if of.type_name() == "list" => of.element(position),
            Datum::Text(_) => Some(None),
            _ => None,
        }
    }

    fn binary(
        &self,
        operation: Binary,
        sides: &'a [Step; 2],
        locals: &mut Locals<'a>,
    ) -> Option<Datum<'a>> {
        let [a, b] = sides;
        // The other side is not asked where one decides. One that errors is the interpreter's.
        match operation {
            Binary::And => {
                let both = self.truth(a, locals)? && self.truth(b, locals)?;
                return Some(Datum::Bool(both));
            }
            Binary::Or => {
                let either = self.truth(a, locals)? || self.truth(b, locals)?;
                return Some(Datum::Bool(either));
            }
            _ => {}
        }
        let (a, b) = (self.value(a, locals)?, self.value(b, locals)?);
        if let (Datum::Text(a), Datum::Text(b)) = (&a, &b) {
            self.pay(meter::text(a.len().min(b.len())))?;
        }
        let holds = match operation {
            Binary::Equal => a.equals(&b)?,
            Binary::Unequal => !a.equals(&b)?,
            Binary::Less => a.order(&b)?.is_lt(),
            Binary::LessOrEqual => a.order(&b)?.is_le(),
            Binary::Greater => a.order(&b)?.is_gt(),
            Binary::GreaterOrEqual => a.order(&b)?.is_ge(),
            Binary::In => {
                let searched = 1 + b.elements().unwrap_or(0) as u64;
                self.pay(searched.saturating_mul(a.reading()))?;
                a.is_in(&b)?
            }
            Binary::Index => {
                return match b {
                    Datum::Text(key) => a.member(&key)?,
                    Datum::Int(position) => a.element(position)?,
                    _ => None,
                };
            }
            Binary::Add => return self.add(&a, &b),
            Binary::Multiply => {
                return match (a, b) {
                    (Datum::Int(a), Datum::Int(b)) => a.checked_mul(b).map(Datum::Int),
                    _ => None,
                };
            }
            Binary::And | Binary::Or => return None,
        };
        Some(Datum::Bool(holds))
    }

    fn add(&self, a: &Datum<'a>, b: &Datum<'a>) -> Option<Datum<'a>> {
        match (a, b) {
            (Datum::Int(a), Datum::Int(b)) => a.checked_add(*b).map(Datum::Int),
            (Datum::Text(a), Datum::Text(b)) => {
                self.pay(meter::text(a.len() + b.len()))?;
                Some(Datum::made([&**a, &**b].concat()))
            }
            _ if a.type_name() == "list" && b.type_name() == "list" => {
                self.pay(a.copying() + b.copying() + a.reading() + b.reading())?;
                let items = a.items()?.chain(b.items()?);
                items.collect::<Option<_>>().map(Datum::List)
            }
            _ => None,
        }
    }

    fn rounds(&self, round: &'a Loop, locals: &mut Locals<'a>) -> Option<Datum<'a>> {
        let range = self.value(&round.range, locals)?;
        let rounds = range.elements()? as u64;
        let weight = rounds.saturating_mul(round.weight);
        self.pay(range.copying().saturating_add(weight))?;
        let mut collected = Vec::new();
        let mut found = None;
        let bound = locals.len();
        for item in range.items()? {
            locals.push(item?);
            found = match &round.body {
                Body::All(holds) => (!self.truth(holds, locals)?).then_some(false),
                Body::Exists(holds) => self.truth(holds, locals)?.then_some(true),
                Body::Collect(condition, item) => {
                    let wanted = condition
                        .as_ref()
                        .map_or(Some(true), |condition| self.truth(condition, locals));
                    if wanted? {
                        collected.push(self.value(item, locals)?);
                    }
                    None
                }
            };
            locals.truncate(bound);
            if found.is_some() {
                break;
            }
        }
        Some(match &round.body {
            Body::All(_) => Datum::Bool(found.unwrap_or(true)),
            Body::Exists(_) => Datum::Bool(found.unwrap_or(false)),
            Body::Collect(..) => Datum::List(collected.into()),
        })
    }
}

fn within<'a>(tree: &'a Value, path: &[Box<str>]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |tree, key| tree.get(&**key))
}
