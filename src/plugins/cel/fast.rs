//! The fast way through an expression: what policies mostly do, without the interpreter.
//!
//! The interpreter looks every name and function up by its text and allocates every value. Here
//! that is done once, when a policy is compiled ([`Step`]), and values are small and borrowed
//! ([`Datum`]). It is a shortcut and decides nothing on its own: wherever an operation is not the
//! plain case, errors above all, the evaluation gives up, and the interpreter, which alone defines
//! what an expression means, evaluates it from the start. Where an answer is given, it is the
//! interpreter's; every evaluation of a build with debug assertions compares the two.

mod datum;
mod step;

use std::sync::OnceLock;

use serde_json::Value;

use self::datum::{Datum, Text};
use self::step::{Binary, Body, Function, Loop, Operand, Optional, Tree};
pub(super) use self::step::{Lowering, Step};
use super::functions::{Pattern, globs, images};
use super::meter::{self, Meter};
use super::scope::Variable;
use crate::admission::effective::{UNLIMITED, UNLIMITED_AMOUNT};
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
    /// A budget like the interpreter's: whoever has spent it leaves the rest to that.
    meter: Meter,
}

/// What is bound by the comprehensions around a step, outermost first.
type Locals<'a> = Vec<Datum<'a>>;

impl<'a> Fast<'a> {
    pub(super) fn new(
        review: &'a Review,
        spec: &'a Revision,
        patterns: &'a [Pattern],
        variables: &'a [Variable],
        meter: Meter,
    ) -> Self {
        Self {
            review,
            spec,
            patterns,
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
        let json = value.to_json()?;
        // One text of the spec may be in it many times over.
        self.pay(meter::reading_json(&json))?;
        Some(json)
    }

    fn pay(&self, units: u64) -> Option<()> {
        self.meter.pay(units).ok()
    }

    fn value(&self, step: &'a Step, locals: &mut Locals<'a>) -> Option<Datum<'a>> {
        match step {
            Step::Fixed(value) => Datum::of(value),
            Step::Tree(tree, path) => Datum::of(self.tree(*tree, path)?),
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

    fn tree(&self, tree: Tree, path: &[Box<str>]) -> Option<&'a Value> {
        let tree: &'a Value = match tree {
            Tree::Spec => self.spec,
            Tree::Original => self.review.spec.value(),
            Tree::Effective => self.spec.effective(),
        };
        path.iter().try_fold(tree, |tree, key| tree.get(&**key))
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
        let holds = match operation {
            Binary::Equal => a.equals(&b)?,
            Binary::Unequal => !a.equals(&b)?,
            Binary::Less => a.order(&b)?.is_lt(),
            Binary::LessOrEqual => a.order(&b)?.is_le(),
            Binary::Greater => a.order(&b)?.is_gt(),
            Binary::GreaterOrEqual => a.order(&b)?.is_ge(),
            Binary::In => {
                self.pay(1 + b.elements().unwrap_or(0) as u64)?;
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
                self.pay(1 + a.elements()? as u64 + b.elements()? as u64)?;
                let items = a.items()?.chain(b.items()?);
                items.collect::<Option<_>>().map(Datum::List)
            }
            _ => None,
        }
    }

    fn rounds(&self, round: &'a Loop, locals: &mut Locals<'a>) -> Option<Datum<'a>> {
        let range = self.value(&round.range, locals)?;
        let rounds = range.elements()? as u64;
        self.pay(1 + rounds.saturating_mul(round.weight))?;
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

    /// A function of arguments, of which there are as many as it takes.
    fn call(&self, function: Function, arguments: [Datum<'a>; 3]) -> Option<Datum<'a>> {
        let [a, b, c] = arguments;
        if let Datum::Text(text) = &a {
            self.pay(meter::text(text.len()))?;
        }
        match (function, a, b) {
            (Function::Size, of, _) => i64::try_from(of.size()?).ok().map(Datum::Int),
            (Function::String, Datum::Text(text), _) => Some(Datum::Text(text)),
            (Function::String, Datum::Int(int), _) => Some(Datum::made(int.to_string())),
            // As the interpreter converts.
            #[allow(clippy::cast_precision_loss)]
            (Function::Double, Datum::Int(int), _) => Some(Datum::Double(int as f64)),
            (Function::Double, Datum::Double(double), _) => Some(Datum::Double(double)),
            (Function::IsUnlimited, Datum::Int(int), _) => Some(Datum::Bool(int == UNLIMITED)),
            (Function::IsUnlimited, Datum::Double(double), _) => {
                Some(Datum::Bool(double >= UNLIMITED_AMOUNT))
            }
            (Function::IsImageReference, Datum::Text(text), _) => {
                Some(Datum::Bool(images::is_reference(&text)))
            }
            (Function::ImageReference, Datum::Text(text), _) => {
                let members = images::members(&text).ok()?;
                let members = members.into_iter();
                let members = members.map(|(key, value)| (Text::Borrowed(key), Datum::made(value)));
                Datum::map(members.collect())
            }
            (Function::Trim, Datum::Text(text), _) => Some(Datum::Text(match text {
                Text::Borrowed(text) => Text::Borrowed(text.trim()),
                Text::Made(text) => Text::Made(text.trim().into()),
            })),
            (Function::LowerAscii, Datum::Text(text), _) => {
                let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
                Some(match upper {
                    true => Datum::made(text.to_ascii_lowercase()),
                    false => Datum::Text(text),
                })
            }
            (Function::StartsWith, Datum::Text(text), Datum::Text(part)) => {
                Some(Datum::Bool(text.starts_with(&*part)))
            }
            (Function::EndsWith, Datum::Text(text), Datum::Text(part)) => {
                Some(Datum::Bool(text.ends_with(&*part)))
            }
            (Function::Contains, Datum::Text(text), Datum::Text(part)) => {
                Some(Datum::Bool(text.contains(&*part)))
            }
            (Function::Replace, Datum::Text(text), Datum::Text(old)) => {
                let Datum::Text(new) = c else { return None };
                if old.is_empty() {
                    return None;
                }
                if !text.contains(&*old) {
                    return Some(Datum::Text(text));
                }
                let places = text.len() / old.len();
                self.pay(meter::text(places.saturating_mul(new.len())))?;
                Some(Datum::made(text.replace(&*old, &new)))
            }
            (Function::Split, Datum::Text(text), Datum::Text(separator)) => {
                if separator.is_empty() {
                    return None;
                }
                let parts = text.split(&*separator).map(|part| {
                    self.pay(1)?;
                    Some(Datum::made(part.to_owned()))
                });
                parts.collect::<Option<_>>().map(Datum::List)
            }
            (Function::GlobMatches, Datum::Text(text), patterns) => {
                self.glob_matches(&text, &patterns).map(Datum::Bool)
            }
            (Function::Matches, Datum::Text(text), Datum::Text(pattern)) => {
                let regex = self.meter.known(&pattern)?;
                Some(Datum::Bool(regex.is_match(&text)))
            }
            (Function::Entries, range, _) => {
                self.pay(1 + range.elements()? as u64)?;
                let entries = range.entries()?.into_iter();
                Some(Datum::List(
                    entries
                        .map(|(key, value)| Datum::List([key, value].into()))
                        .collect(),
                ))
            }
            (Function::ToMap, Datum::List(pairs), _) => {
                let entries = pairs.iter().map(|pair| match pair {
                    Datum::List(pair) => match &**pair {
                        [Datum::Text(key), value] => Some((key.clone(), value.clone())),
                        _ => None,
                    },
                    _ => None,
                });
                Datum::map(entries.collect::<Option<_>>()?)
            }
            _ => None,
        }
    }

    fn glob_matches(&self, text: &str, patterns: &Datum<'a>) -> Option<bool> {
        let matches = |pattern: &Datum<'a>| match pattern {
            Datum::Text(pattern) => globs::matches(pattern, text, &self.meter).ok(),
            _ => None,
        };
        if let Datum::Text(_) = patterns {
            return matches(patterns);
        }
        if patterns.type_name() != "list" {
            return None;
        }
        self.pay(1 + patterns.elements()? as u64)?;
        let mut patterns = patterns.items()?;
        patterns.try_fold(false, |found, pattern| Some(found || matches(&pattern?)?))
    }
}
