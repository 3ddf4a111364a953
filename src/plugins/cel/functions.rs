//! The functions of ours: what Kubernetes adds to CEL, under its names and with its semantics
//! (<https://kubernetes.io/docs/reference/using-api/cel/>), and what policies about dstack need.
//!
//! Each file is one library. A function whose cost may exceed one reading of its arguments takes
//! the meter as its last argument, which only a rewritten expression can hand over. Errors never
//! repeat a value.

pub(super) mod arguments;
mod comprehensions;
mod entries;
pub(super) mod globs;
pub(super) mod images;
mod lists;
mod net;
mod quantities;
mod regex;
mod semvers;
mod sets;
mod texts;
mod units;
mod urls;

use ::cel::{DeclarationError, Env};

pub(super) use self::regex::Pattern;
pub use self::units::{gigabytes, seconds};

/// Declares all libraries.
///
/// # Errors
/// When the interpreter refuses a declaration, which a test rules out.
pub(super) fn libraries(env: &mut Env) -> Result<(), DeclarationError> {
    let libraries = [
        comprehensions::library,
        entries::library,
        globs::library,
        images::library,
        lists::library,
        net::library,
        quantities::library,
        regex::library,
        semvers::library,
        sets::library,
        texts::library,
        units::library,
        urls::library,
    ];
    libraries.into_iter().try_for_each(|library| library(env))
}

/// Functions that take the meter as their last argument, besides what an expression writes.
pub(super) const METERED: &[&str] = &[
    "find",
    "findAll",
    "getQuery",
    "globMatches",
    "indexOf",
    "isSorted",
    "lastIndexOf",
    "max",
    "min",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "split",
    "sum",
    "@entries",
    "@toMap",
];

/// What may stand before a function's name without being a value.
pub(super) const NAMESPACES: &[&str] = &["ip", "lists", "math", "optional", "sets", "strings"];

/// Every function that can be typed, for suggestions. Whether one exists the interpreter itself
/// is asked.
pub(super) const NAMES: &[&str] = &[
    "add",
    "asApproximateFloat",
    "asInteger",
    "bool",
    "bytes",
    "charAt",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "distinct",
    "double",
    "duration",
    "durationText",
    "dyn",
    "endsWith",
    "family",
    "find",
    "findAll",
    "flatten",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "gigabytes",
    "globMatches",
    "hasValue",
    "imageReference",
    "indexOf",
    "int",
    "ip",
    "ip.isCanonical",
    "isCIDR",
    "isGlobalUnicast",
    "isGreaterThan",
    "isImageReference",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnlimited",
    "isUnspecified",
    "join",
    "lastIndexOf",
    "lists.range",
    "lowerAscii",
    "major",
    "masked",
    "matches",
    "math.abs",
    "math.bitAnd",
    "math.bitNot",
    "math.bitOr",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "math.bitXor",
    "math.ceil",
    "math.floor",
    "math.greatest",
    "math.isFinite",
    "math.isInf",
    "math.isNaN",
    "math.least",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
    "max",
    "min",
    "minor",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "or",
    "orValue",
    "patch",
    "prefixLength",
    "quantity",
    "replace",
    "reverse",
    "seconds",
    "semver",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "sign",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "strings.quote",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "url",
    "value",
];

/// Macros and how each is written. They are gone after parsing, so one that is still there was
/// written wrongly.
pub(super) const MACROS: &[(&str, &str)] = &[
    ("has", "has(spec.a.b)"),
    (
        "all",
        "list.all(x, condition) or map.all(key, value, condition)",
    ),
    (
        "exists",
        "list.exists(x, condition) or map.exists(key, value, condition)",
    ),
    (
        "exists_one",
        "list.exists_one(x, condition) or map.exists_one(key, value, condition)",
    ),
    (
        "existsOne",
        "list.existsOne(x, condition) or map.existsOne(key, value, condition)",
    ),
    ("map", "list.map(x, value) or list.map(x, condition, value)"),
    ("filter", "list.filter(x, condition)"),
    ("sortBy", "list.sortBy(x, key)"),
    (
        "transformList",
        "map.transformList(key, value, item) or map.transformList(key, value, condition, item)",
    ),
    (
        "transformMap",
        "map.transformMap(key, value, newValue) or map.transformMap(key, value, condition, newValue)",
    ),
    (
        "transformMapEntry",
        "map.transformMapEntry(key, value, {newKey: newValue})",
    ),
    ("bind", "cel.bind(name, value, expression)"),
    ("optMap", "optional.optMap(x, value)"),
    ("optFlatMap", "optional.optFlatMap(x, optional)"),
];
