//! What functions do, for the arguments that policies give them.

use std::sync::Arc;

use super::Fast;
use super::datum::{Datum, Text};
use super::step::Function;
use crate::admission::effective::{UNLIMITED, UNLIMITED_AMOUNT};
use crate::plugins::cel::functions::{globs, images};
use crate::plugins::cel::meter;

impl<'a> Fast<'a> {
    /// A function of arguments, of which there are as many as it takes.
    pub(super) fn call(&self, function: Function, arguments: [Datum<'a>; 3]) -> Option<Datum<'a>> {
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
                let pairs = (range.elements()? as u64).saturating_mul(3);
                self.pay(range.copying().saturating_add(pairs))?;
                let entries = range.entries()?.into_iter();
                Some(Datum::List(
                    entries
                        .map(|(key, value)| Datum::List([key, value].into()))
                        .collect(),
                ))
            }
            (Function::ToMap, Datum::List(pairs), _) => {
                self.pay(Datum::List(Arc::clone(&pairs)).copying())?;
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
