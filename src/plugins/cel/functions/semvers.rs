//! Semantic versions, as Kubernetes has them: `semver`, `isSemver` and what there is to ask of a
//! version. Build metadata neither orders nor tells versions apart.

use std::cmp::Ordering;
use std::sync::Arc;

use ::cel::common::types::{CelBool, CelInt, CelString};
use ::cel::common::value::Val;
use ::cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};
use semver::Version;

use super::arguments::opaque;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(Semver::cel_type().to_owned())?;
    add_overload!(env, fn semver: (CelString) -> Result<Semver>)?;
    add_overload!(env, fn semver_normalized: (CelString, CelBool) -> Result<Semver>, name = "semver")?;
    add_overload!(env, fn is_semver: (CelString) -> CelBool)?;
    add_overload!(env, fn is_semver_normalized: (CelString, CelBool) -> CelBool, name = "isSemver")?;
    add_overload!(env, fn text: (Semver) -> CelString, name = "string")?;
    add_member_overload!(env, fn major: (Semver) -> CelInt)?;
    add_member_overload!(env, fn minor: (Semver) -> CelInt)?;
    add_member_overload!(env, fn patch: (Semver) -> CelInt)?;
    add_member_overload!(env, fn is_less_than: (Semver, Semver) -> CelBool)?;
    add_member_overload!(env, fn is_greater_than: (Semver, Semver) -> CelBool)?;
    add_member_overload!(env, fn compare_to: (Semver, Semver) -> CelInt)?;
    Ok(())
}

/// A version, made once and shared.
#[derive(Clone, Debug)]
struct Semver(Arc<Version>);

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.0.cmp_precedence(&other.0) == Ordering::Equal
    }
}

opaque!(Semver, "kubernetes.Semver");

fn parse(text: &str, normalize: bool) -> Option<Version> {
    if normalize {
        Version::parse(&normalized(text)?).ok()
    } else {
        Version::parse(text).ok()
    }
}

/// Without `v` and leading zeros, with the minor and patch numbers that are missing.
fn normalized(text: &str) -> Option<String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<&str> = text.splitn(3, '.').collect();
    let short = parts.len() < 3;
    // Neither a pre-release nor build metadata follows a short version.
    if short && parts.last()?.contains(['+', '-']) {
        return None;
    }
    for part in &mut parts {
        let trimmed = part.trim_start_matches('0');
        let digits = trimmed.starts_with(|c: char| c.is_ascii_digit());
        let zero = part.len() - trimmed.len();
        // Of `0` and `00-rc.1` one zero stays.
        *part = match digits || zero == 0 {
            true => trimmed,
            false => &part[zero - 1..],
        };
    }
    parts.resize(3, "0");
    Some(parts.join("."))
}

fn semver(text: &CelString<'_>) -> Result<Semver, ExecutionError> {
    semver_normalized(text, &CelBool::FALSE)
}

fn semver_normalized(text: &CelString<'_>, normalize: &CelBool) -> Result<Semver, ExecutionError> {
    match parse(text.inner(), *normalize.inner()) {
        Some(version) => Ok(Semver(Arc::new(version))),
        None => Err(ExecutionError::function_error(
            "semver",
            "not a semantic version",
        )),
    }
}

fn is_semver(text: &CelString<'_>) -> CelBool {
    parse(text.inner(), false).is_some().into()
}

fn is_semver_normalized(text: &CelString<'_>, normalize: &CelBool) -> CelBool {
    parse(text.inner(), *normalize.inner()).is_some().into()
}

fn text(version: &Semver) -> CelString<'static> {
    version.0.to_string().into()
}

fn major(version: &Semver) -> CelInt {
    number(version.0.major)
}

fn minor(version: &Semver) -> CelInt {
    number(version.0.minor)
}

fn patch(version: &Semver) -> CelInt {
    number(version.0.patch)
}

fn number(number: u64) -> CelInt {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn is_less_than(a: &Semver, b: &Semver) -> CelBool {
    a.0.cmp_precedence(&b.0).is_lt().into()
}

fn is_greater_than(a: &Semver, b: &Semver) -> CelBool {
    a.0.cmp_precedence(&b.0).is_gt().into()
}

fn compare_to(a: &Semver, b: &Semver) -> CelInt {
    (a.0.cmp_precedence(&b.0) as i64).into()
}
