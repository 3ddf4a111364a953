//! What functions are written with: their arguments and answers, and how a type of ours becomes
//! a CEL value.
//!
//! Nothing here says what a value is: an argument may be a secret.

use ::cel::ExecutionError;
use ::cel::common::types::{CelBool, CelString};
use ::cel::common::value::{CowVal, Val};

use super::super::meter::Meter;

pub(crate) type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
pub(crate) type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The error of a function that is not there for these arguments.
pub(crate) fn mismatch(function: &str, args: &Args<'_, '_>) -> ExecutionError {
    let types = args
        .iter()
        .map(|arg| arg.get_type().name().to_owned())
        .collect();
    ExecutionError::no_such_overload(function, types)
}

/// The meter that the rewritten expression hands over.
///
/// # Errors
/// When a function was called without one, which no expression can do.
pub(crate) fn meter_in(val: &dyn Val) -> Result<&Meter, ExecutionError> {
    let meter = val.downcast_ref::<Meter>();
    meter.ok_or_else(|| ExecutionError::InternalError("no meter".to_owned()))
}

/// The argument at a position, if it is a string.
pub(crate) fn string<'b>(args: &'b Args<'_, '_>, position: usize) -> Option<&'b str> {
    let string = args.get(position)?.downcast_ref::<CelString>()?;
    Some(string.inner())
}

/// A bool as an answer.
pub(crate) fn boolean<'b, 'v>(value: bool) -> CowVal<'b, 'v> {
    CowVal::Borrowed(if value {
        &CelBool::TRUE
    } else {
        &CelBool::FALSE
    })
}

/// The elements of a list or the keys of a map; nothing for anything else.
pub(crate) fn items<'b, 'v>(val: &'b (dyn Val + 'v)) -> impl Iterator<Item = &'b (dyn Val + 'v)> {
    let mut items = val.as_iterable().map(|iterable| iterable.iter());
    std::iter::from_fn(move || items.as_mut()?.next())
}

/// Makes a type a CEL value that only functions look into, equal as `PartialEq` has it.
macro_rules! opaque {
    ($type:ty, $name:literal) => {
        impl ::cel::common::value::Val for $type {
            fn get_type(&self) -> &::cel::common::types::Type {
                <Self as ::cel::common::value::Val>::cel_type()
            }

            fn cel_type() -> &'static ::cel::common::types::Type {
                static TYPE: ::cel::common::types::Type =
                    ::cel::common::types::Type::new_unspecified_type($name);
                &TYPE
            }

            fn equals(&self, other: &dyn ::cel::common::value::Val) -> bool {
                let other = other.downcast_ref::<Self>();
                other.is_some_and(|other| self == other)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn ::cel::common::value::Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn std::any::Any> {
                Some(self)
            }
        }

        impl ::cel::common::value::StaticVal for $type {}
    };
}
pub(crate) use opaque;
