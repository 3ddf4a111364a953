//! Durations and sizes as dstack users write them.
//!
//! - `seconds(x)`: a duration as an int of seconds: `"90s"`, `"30m"`, `"8h"`, `"1d"`, `"2w"`; a
//!   bare number is seconds. `"off"` and negative numbers, which dstack takes for no limit, are
//!   [`UNLIMITED`].
//! - `gigabytes(x)`: a size as a double of GB: `"512MB"`, `"16GB"`, `"1TB"`, whatever the case and
//!   the blanks, in steps of 1024; a bare number is GB.
//! - `isUnlimited(x)`: whether an int or a double stands for no limit.
//! - `durationText(x)`: seconds for people: `3d`, `90m`, `1d 2h`, `no limit`.
//!
//! The rules are those of dstack's `core/models/duration.py` and `core/models/resources.py`.

use ::cel::common::types::{CelBool, CelDouble, CelInt, CelString};
use ::cel::{DeclarationError, Env, ExecutionError, add_overload};

use crate::admission::effective::{UNLIMITED, UNLIMITED_AMOUNT};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    add_overload!(env, fn seconds_of_text: (CelString) -> Result<CelInt>, name = "seconds")?;
    add_overload!(env, fn seconds_of_int: (CelInt) -> CelInt, name = "seconds")?;
    add_overload!(env, fn gigabytes_of_text: (CelString) -> Result<CelDouble>, name = "gigabytes")?;
    add_overload!(env, fn gigabytes_of_int: (CelInt) -> CelDouble, name = "gigabytes")?;
    add_overload!(env, fn gigabytes_of_double: (CelDouble) -> CelDouble, name = "gigabytes")?;
    add_overload!(env, fn is_unlimited_int: (CelInt) -> CelBool, name = "isUnlimited")?;
    add_overload!(env, fn is_unlimited_double: (CelDouble) -> CelBool, name = "isUnlimited")?;
    add_overload!(env, fn duration_text: (CelInt) -> CelString)?;
    Ok(())
}

fn seconds_of_text(text: &CelString<'_>) -> Result<CelInt, ExecutionError> {
    let error = || {
        ExecutionError::function_error(
            "seconds",
            "not a duration: it is a number and one of s, m, h, d, w, for instance 90m, or off",
        )
    };
    seconds(text.inner()).map(CelInt::from).ok_or_else(error)
}

fn seconds_of_int(seconds: &CelInt) -> CelInt {
    limited(*seconds.inner()).into()
}

/// Negative numbers are off.
fn limited(seconds: i64) -> i64 {
    if seconds < 0 { UNLIMITED } else { seconds }
}

/// A duration as a dstack user writes it, in seconds.
pub fn seconds(text: &str) -> Option<i64> {
    if text == "off" {
        return Some(UNLIMITED);
    }
    if let Some(digits) = text.trim().strip_prefix('-') {
        return is_digits(digits).then_some(UNLIMITED);
    }
    if is_digits(text.trim()) {
        return Some(amount(text.trim()));
    }
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => MINUTE,
        b'h' => HOUR,
        b'd' => DAY,
        b'w' => WEEK,
        _ => return None,
    };
    let digits = text[..text.len() - 1].trim_end_matches(' ');
    is_digits(digits).then(|| amount(digits).saturating_mul(unit))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number that digits spell; what does not fit is no limit.
fn amount(digits: &str) -> i64 {
    digits.parse().unwrap_or(UNLIMITED)
}

fn gigabytes_of_text(text: &CelString<'_>) -> Result<CelDouble, ExecutionError> {
    let error = || {
        ExecutionError::function_error(
            "gigabytes",
            "not a size: it is a number and one of MB, GB, TB, for instance 16GB",
        )
    };
    gigabytes(text.inner())
        .map(CelDouble::from)
        .ok_or_else(error)
}

/// A size as a dstack user writes it, in GB.
pub fn gigabytes(text: &str) -> Option<f64> {
    let text = text.replace(' ', "").to_ascii_lowercase();
    let units = [("tb", 1024.0), ("gb", 1.0), ("mb", 1.0 / 1024.0)];
    let unit = units
        .iter()
        .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (number, size) = unit.unwrap_or((&text, 1.0));
    let plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| plain)?;
    Some(number * size)
}

#[expect(clippy::cast_precision_loss, reason = "a size is a double")]
fn gigabytes_of_int(gigabytes: &CelInt) -> CelDouble {
    match *gigabytes.inner() {
        UNLIMITED => UNLIMITED_AMOUNT.into(),
        gigabytes => (gigabytes as f64).into(),
    }
}

fn gigabytes_of_double(gigabytes: &CelDouble) -> CelDouble {
    (*gigabytes.inner()).into()
}

fn is_unlimited_int(number: &CelInt) -> CelBool {
    (*number.inner() == UNLIMITED).into()
}

fn is_unlimited_double(number: &CelDouble) -> CelBool {
    (*number.inner() >= UNLIMITED_AMOUNT).into()
}

fn duration_text(seconds: &CelInt) -> CelString<'static> {
    text(limited(*seconds.inner())).into()
}

/// Days, and what is left of them in one unit if that is short, else in each that is needed.
fn text(seconds: i64) -> String {
    if seconds == UNLIMITED {
        return "no limit".to_owned();
    }
    let units = [(HOUR, 'h'), (MINUTE, 'm'), (1, 's')];
    let mut parts = Vec::new();
    if seconds >= DAY {
        parts.push(format!("{}d", seconds / DAY));
    }
    let mut rest = seconds % DAY;
    let exact = units
        .iter()
        .find(|(size, _)| rest % size == 0 && rest / size < 100);
    match exact {
        Some(_) if rest == 0 && !parts.is_empty() => {}
        Some(_) if rest == 0 => parts.push("0s".to_owned()),
        Some((size, unit)) => parts.push(format!("{}{unit}", rest / size)),
        None => {
            for (size, unit) in units {
                if rest >= size {
                    parts.push(format!("{}{unit}", rest / size));
                }
                rest %= size;
            }
        }
    }
    parts.join(" ")
}
