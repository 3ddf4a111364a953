//! Quantities, as Kubernetes has them: `quantity`, `isQuantity` and arithmetic on them.
//!
//! A quantity is a whole number of billionths, so nothing is lost to floating point. What is
//! finer is rounded away from zero, as Kubernetes does it; what is beyond 128 bits stays at the
//! end of the scale.

use ::cel::common::types::{CelBool, CelDouble, CelInt, CelString};
use ::cel::common::value::Val;
use ::cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};

use super::arguments::opaque;

/// Billionths in one.
const ONE: i128 = 1_000_000_000;

/// Digits of a fraction that are read; whatever follows only rounds up.
const FRACTION: u32 = 18;

/// Digits that no number of 128 bits has.
const MOST_DIGITS: usize = 40;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(Quantity::cel_type().to_owned())?;
    add_overload!(env, fn quantity: (CelString) -> Result<Quantity>)?;
    add_overload!(env, fn is_quantity: (CelString) -> CelBool)?;
    add_overload!(env, fn text: (Quantity) -> CelString, name = "string")?;
    // Kubernetes documents the method and declares the function.
    add_overload!(env, fn sign: (Quantity) -> CelInt)?;
    add_member_overload!(env, fn sign: (Quantity) -> CelInt)?;
    add_member_overload!(env, fn is_integer: (Quantity) -> CelBool)?;
    add_member_overload!(env, fn as_integer: (Quantity) -> Result<CelInt>)?;
    add_member_overload!(env, fn as_approximate_float: (Quantity) -> CelDouble)?;
    add_member_overload!(env, fn add: (Quantity, Quantity) -> Quantity)?;
    add_member_overload!(env, fn add_int: (Quantity, CelInt) -> Quantity, name = "add")?;
    add_member_overload!(env, fn sub: (Quantity, Quantity) -> Quantity)?;
    add_member_overload!(env, fn sub_int: (Quantity, CelInt) -> Quantity, name = "sub")?;
    add_member_overload!(env, fn is_less_than: (Quantity, Quantity) -> CelBool)?;
    add_member_overload!(env, fn is_greater_than: (Quantity, Quantity) -> CelBool)?;
    add_member_overload!(env, fn compare_to: (Quantity, Quantity) -> CelInt)?;
    Ok(())
}

/// A number of billionths.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quantity(i128);

opaque!(Quantity, "kubernetes.Quantity");

/// How a quantity's number is scaled.
enum Scale {
    Ten(i64),
    /// A power of two.
    Two(u32),
}

fn parse(text: &str) -> Option<Quantity> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let end = unsigned.find(|c| !is_part(c)).unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let magnitude = match scale(suffix)? {
        Scale::Ten(power) => decimal(whole, fraction, power),
        Scale::Two(power) => scaled(whole, fraction, 1 << power),
    };
    let magnitude = magnitude.unwrap_or(i128::MAX);
    Some(Quantity(if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    }))
}

fn scale(suffix: &str) -> Option<Scale> {
    let scale = match suffix {
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "" => Scale::Ten(0),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        _ => Scale::Ten(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(scale)
}

/// The billionths of a number times a power of ten, or `None` if they do not fit: the point moves.
fn decimal(whole: &str, fraction: &str, power: i64) -> Option<i128> {
    let mut digits = [whole, fraction].concat();
    if digits.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    let before = i64::try_from(whole.len()).ok()?;
    let point = before.saturating_add(power);
    let Ok(point) = usize::try_from(point) else {
        // Far behind the point there is next to nothing, which rounds up to the smallest quantity.
        let zeros = usize::try_from(point.unsigned_abs().min(u64::from(FRACTION))).ok()?;
        return scaled("", &("0".repeat(zeros) + &digits), 1);
    };
    let zeros = point.saturating_sub(digits.len());
    if zeros > MOST_DIGITS {
        return None;
    }
    digits.push_str(&"0".repeat(zeros));
    let (whole, fraction) = digits.split_at(point);
    scaled(whole, fraction, 1)
}

/// The billionths of a number times a factor, rounded up, or `None` if they do not fit.
fn scaled(whole: &str, fraction: &str, factor: i128) -> Option<i128> {
    let whole = match whole.trim_start_matches('0') {
        "" => 0,
        digits => digits.parse::<i128>().ok()?,
    };
    let whole = whole.checked_mul(factor)?.checked_mul(ONE)?;
    let mut numerator: i128 = 0;
    let mut digits = fraction.bytes();
    for _ in 0..FRACTION {
        let digit = digits.next().map_or(0, |digit| i128::from(digit - b'0'));
        numerator = numerator * 10 + digit;
    }
    let rest = digits.any(|digit| digit != b'0');
    let fraction = match numerator {
        0 => 0,
        // The fraction has 18 places, the result nine.
        numerator => divided_up(numerator.checked_mul(factor)?, ONE),
    };
    whole.checked_add(fraction)?.checked_add(i128::from(rest))
}

fn divided_up(number: i128, divisor: i128) -> i128 {
    number / divisor + i128::from(number % divisor != 0)
}

fn quantity(text: &CelString<'_>) -> Result<Quantity, ExecutionError> {
    parse(text.inner()).ok_or_else(|| {
        ExecutionError::function_error(
            "quantity",
            "not a quantity: it is written as a number and a suffix, for instance 500m or 16Gi",
        )
    })
}

fn is_quantity(text: &CelString<'_>) -> CelBool {
    parse(text.inner()).is_some().into()
}

/// The number without a suffix.
fn text(quantity: &Quantity) -> CelString<'static> {
    let magnitude = quantity.0.unsigned_abs();
    let sign = if quantity.0 < 0 { "-" } else { "" };
    let one = ONE.unsigned_abs();
    let fraction = format!("{:09}", magnitude % one);
    let number = format!("{sign}{}.{fraction}", magnitude / one);
    number
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
        .into()
}

fn sign(quantity: &Quantity) -> CelInt {
    (quantity.0.signum() as i64).into()
}

fn integer(quantity: &Quantity) -> Option<i64> {
    let whole = i64::try_from(quantity.0 / ONE).ok();
    whole.filter(|_| quantity.0 % ONE == 0)
}

fn is_integer(quantity: &Quantity) -> CelBool {
    integer(quantity).is_some().into()
}

fn as_integer(quantity: &Quantity) -> Result<CelInt, ExecutionError> {
    let error =
        || ExecutionError::function_error("asInteger", "the quantity is not an integer of 64 bits");
    integer(quantity).map(CelInt::from).ok_or_else(error)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the function is named after its being approximate"
)]
fn as_approximate_float(quantity: &Quantity) -> CelDouble {
    (quantity.0 as f64 / ONE as f64).into()
}

fn add(a: &Quantity, b: &Quantity) -> Quantity {
    Quantity(a.0.saturating_add(b.0))
}

fn add_int(a: &Quantity, b: &CelInt) -> Quantity {
    Quantity(a.0.saturating_add(whole(b)))
}

fn sub(a: &Quantity, b: &Quantity) -> Quantity {
    Quantity(a.0.saturating_sub(b.0))
}

fn sub_int(a: &Quantity, b: &CelInt) -> Quantity {
    Quantity(a.0.saturating_sub(whole(b)))
}

fn whole(int: &CelInt) -> i128 {
    i128::from(*int.inner()) * ONE
}

fn is_less_than(a: &Quantity, b: &Quantity) -> CelBool {
    (a.0 < b.0).into()
}

fn is_greater_than(a: &Quantity, b: &Quantity) -> CelBool {
    (a.0 > b.0).into()
}

fn compare_to(a: &Quantity, b: &Quantity) -> CelInt {
    (a.0.cmp(&b.0) as i64).into()
}
