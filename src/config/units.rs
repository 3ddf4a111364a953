//! Durations, quantities and dates as a person types them, after Kubernetes and Go.
//!
//! They are read once, when the file is loaded, and are plain numbers from then on. Nothing
//! here knows which key a value belongs to.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::suggest;

/// Why a text is no duration, quantity or date. The message shows the accepted form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

impl UnitError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A span of time, such as `5s`, `1m30s` or `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes, such as `8MiB`, `8Mi`, `100MB` or `8388608`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

/// The moment from which something no longer holds.
///
/// Typed as a date, it is the end of that day in UTC: what expires on 2026-12-31 still holds on
/// 2026-12-31. Typed as an RFC 3339 timestamp, it is that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(pub SystemTime);

/// Says whether a text is of some form.
type Check = fn(&str) -> Result<(), UnitError>;

/// The names of the JSON Schema formats of these values. Editors ignore them, our own
/// validation of the file checks them.
pub(super) const FORMATS: [(&str, Check); 3] = [
    (Period::FORMAT, |text| Period::parse(text).map(drop)),
    (ByteCount::FORMAT, |text| ByteCount::parse(text).map(drop)),
    (Expiry::FORMAT, |text| Expiry::parse(text).map(drop)),
];

/// Go's units of time, and days.
const TIME_UNITS: [&str; 8] = ["ns", "us", "µs", "ms", "s", "m", "h", "d"];

impl Period {
    const FORMAT: &str = "kubernetes-duration";
    const SHAPE: &str = "a duration is written like `5s`, `1m30s` or `500ms`";

    /// Reads a duration of Go's `time.ParseDuration`, which Kubernetes uses, plus `d` for days.
    ///
    /// # Errors
    /// When a unit is missing or unknown, and for negative or absurdly long durations.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let refuse = |why: &str| Err(UnitError::new(format!("{why}; {}", Self::SHAPE)));
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if text.starts_with('-') {
            return refuse("a duration cannot be negative");
        }
        if text.chars().any(char::is_whitespace) {
            return refuse("a duration has no spaces");
        }
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        // `humantime` also reads words, months and years, where `1M` would be a month.
        for unit in text.split(is_number).filter(|unit| !unit.is_empty()) {
            if !TIME_UNITS.contains(&unit) {
                return refuse(&format!("`{}` is no unit of time", suggest::short(unit)));
            }
        }
        let longest = text.split(|c| !is_number(c)).map(str::len).max();
        if text.len() > 32 || longest > Some(12) {
            return refuse("too long");
        }
        match humantime::parse_duration(text) {
            Ok(duration) => Ok(Self(duration)),
            Err(humantime::DurationError::Empty) => refuse("empty"),
            Err(humantime::DurationError::UnknownUnit { .. }) => refuse("the unit is missing"),
            Err(_) => refuse("not a duration"),
        }
    }
}

/// As Go writes durations: `1m30s`, hours the largest unit.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let (millis, nanos) = (self.0.subsec_millis(), self.0.subsec_nanos() % 1_000_000);
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let parts = [
            (hours, "h"),
            (minutes, "m"),
            (rest, "s"),
            (millis.into(), "ms"),
            (nanos.into(), "ns"),
        ];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

/// Kubernetes' suffixes of quantities, and the same with the customary `B`.
const BYTE_UNITS: [(&str, u64); 28] = [
    ("", 1),
    ("B", 1),
    ("k", 1_000),
    ("K", 1_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("G", 1_000_000_000),
    ("GB", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("EB", 1_000_000_000_000_000_000),
    ("Ki", 1 << 10),
    ("KiB", 1 << 10),
    ("Mi", 1 << 20),
    ("MiB", 1 << 20),
    ("Gi", 1 << 30),
    ("GiB", 1 << 30),
    ("Ti", 1 << 40),
    ("TiB", 1 << 40),
    ("Pi", 1 << 50),
    ("PiB", 1 << 50),
    ("Ei", 1 << 60),
    ("EiB", 1 << 60),
];

impl ByteCount {
    const FORMAT: &str = "kubernetes-quantity";
    const SHAPE: &str = "a size is written like `8MiB`, `8Mi`, `100MB` or `8388608`";

    /// Reads a Kubernetes quantity of bytes: `k`, `M`, `G`… count in thousands, `Ki`, `Mi`, `Gi`…
    /// in 1024s; a `B` at the end changes nothing.
    ///
    /// # Errors
    /// When the number or the unit cannot be read, or the size is no whole number of bytes.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let refuse = |why: &str| Err(UnitError::new(format!("{why}; {}", Self::SHAPE)));
        if text.starts_with('-') {
            return refuse("a size cannot be negative");
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let Some(&(_, factor)) = BYTE_UNITS.iter().find(|(name, _)| *name == unit) else {
            let names = BYTE_UNITS.iter().map(|(name, _)| *name);
            let hint = match suggest::nearest(unit, names) {
                Some(name) => format!(", did you mean `{name}`?"),
                None => String::new(),
            };
            let unit = suggest::short(unit);
            return refuse(&format!("`{unit}` is no unit of size{hint}"));
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        // Twelve digits keep every product below within 128 bits.
        if whole.is_empty() || fraction.is_empty() || fraction.len() > 12 {
            return refuse("not a size");
        }
        let (Ok(whole), Ok(fraction), Ok(places)) = (
            whole.parse::<u64>(),
            fraction.parse::<u64>(),
            u32::try_from(fraction.len()),
        ) else {
            return refuse("not a size");
        };
        let scale = 10_u128.pow(places);
        let part = u128::from(fraction) * u128::from(factor);
        if part % scale != 0 {
            return refuse("not a whole number of bytes");
        }
        match u64::try_from(u128::from(whole) * u128::from(factor) + part / scale) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => refuse("too large"),
        }
    }
}

/// In the largest binary unit that gives a whole number: `8MiB`; else in bytes.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB"];
        for (unit, shift) in units.into_iter().zip([60, 50, 40, 30, 20, 10]) {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Expiry {
    const FORMAT: &str = "expiry-date";
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Reads a date, `2026-12-31`, or an RFC 3339 timestamp in UTC, `2026-12-31T18:00:00Z`.
    ///
    /// # Errors
    /// When the text is neither, or the day does not exist.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let moment = humantime::parse_rfc3339(text).ok();
        let day = || {
            let start = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok()?;
            start.checked_add(Self::DAY)
        };
        moment.or_else(day).map(Self).ok_or_else(|| {
            UnitError::new(
                "not a date; a date is written like `2026-12-31` or `2026-12-31T18:00:00Z`",
            )
        })
    }
}

/// A value that stands in the file as a text of its own form.
macro_rules! typed_as_text {
    ($name:ident, $schema:expr, $expected:literal) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::parse(text).map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

typed_as_text!(
    Period,
    json_schema!({"type": "string", "format": Period::FORMAT, "examples": ["5s", "1m30s", "500ms"]}),
    "a duration such as 5s"
);
typed_as_text!(
    ByteCount,
    json_schema!({
        "type": ["string", "integer"],
        "format": ByteCount::FORMAT,
        "minimum": 0,
        "examples": ["8MiB", "100MB", 8_388_608],
    }),
    "a size such as 8MiB"
);
typed_as_text!(
    Expiry,
    json_schema!({"type": "string", "format": Expiry::FORMAT, "examples": ["2026-12-31"]}),
    "a date such as 2026-12-31"
);

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("5s", 5_000)]
    #[case("1m30s", 90_000)]
    #[case("500ms", 500)]
    #[case("1h", 3_600_000)]
    #[case("2d", 172_800_000)]
    #[case("1.5s", 1_500)]
    #[case("1500us", 1)]
    #[case("0", 0)]
    #[case("0s", 0)]
    fn durations_are_read_as_go_reads_them(#[case] text: &str, #[case] millis: u128) {
        assert_eq!(Period::parse(text).map(|p| p.0.as_millis()), Ok(millis));
    }

    #[rstest]
    #[case("90s", "1m30s")]
    #[case("2d", "48h")]
    #[case("1.5ms", "1ms500000ns")]
    #[case("0", "0s")]
    fn a_duration_is_shown_in_a_form_that_reads_back(#[case] typed: &str, #[case] shown: &str) {
        let period = Period::parse(typed).unwrap();
        assert_eq!(period.to_string(), shown);
        assert_eq!(Period::parse(shown), Ok(period));
    }

    #[rstest]
    #[case("8388608", "8MiB")]
    #[case("100MB", "100000000")]
    #[case("0", "0")]
    fn a_size_is_shown_in_a_form_that_reads_back(#[case] typed: &str, #[case] shown: &str) {
        let size = ByteCount::parse(typed).unwrap();
        assert_eq!(size.to_string(), shown);
        assert_eq!(ByteCount::parse(shown), Ok(size));
    }

    #[rstest]
    #[case("5", "the unit is missing")]
    #[case("", "empty")]
    #[case("five seconds", "a duration has no spaces")]
    #[case("1M", "`M` is no unit of time")]
    #[case("2weeks", "`weeks` is no unit of time")]
    #[case("-5s", "a duration cannot be negative")]
    #[case("s", "not a duration")]
    #[case("1..5s", "not a duration")]
    #[case("1e9999s", "`e` is no unit of time")]
    #[case("18446744073709551615s1000ms", "too long")]
    #[case("213503982334601d7h15s1000ms", "too long")]
    fn other_durations_are_refused_with_the_accepted_form(#[case] text: &str, #[case] why: &str) {
        let expected = format!("{why}; a duration is written like `5s`, `1m30s` or `500ms`");
        assert_eq!(
            Period::parse(text).map_err(|e| e.to_string()),
            Err(expected)
        );
    }

    #[rstest]
    #[case("8MiB", 8 << 20)]
    #[case("8Mi", 8 << 20)]
    #[case("100MB", 100_000_000)]
    #[case("1G", 1_000_000_000)]
    #[case("1.5Gi", 3 << 29)]
    #[case("64k", 64_000)]
    #[case("8388608", 8_388_608)]
    #[case("0", 0)]
    fn quantities_are_read_as_kubernetes_reads_them(#[case] text: &str, #[case] bytes: u64) {
        assert_eq!(ByteCount::parse(text), Ok(ByteCount(bytes)));
    }

    #[rstest]
    #[case("8mib", "`mib` is no unit of size, did you mean `MiB`?")]
    #[case("8 MiB", "` MiB` is no unit of size, did you mean `MiB`?")]
    #[case("8 furlongs", "` furlongs` is no unit of size")]
    #[case("MiB", "not a size")]
    #[case("", "not a size")]
    #[case("1.5", "not a whole number of bytes")]
    #[case("1.2.3k", "not a size")]
    #[case("99999999999E", "too large")]
    #[case("-1k", "a size cannot be negative")]
    fn other_quantities_are_refused_with_the_accepted_form(#[case] text: &str, #[case] why: &str) {
        let expected = format!("{why}; {}", ByteCount::SHAPE);
        assert_eq!(
            ByteCount::parse(text).map_err(|e| e.to_string()),
            Err(expected)
        );
    }

    #[test]
    fn what_expires_on_a_day_holds_until_the_end_of_that_day() {
        let midnight = Expiry::parse("2027-01-01T00:00:00Z").unwrap();
        assert_eq!(Expiry::parse("2026-12-31"), Ok(midnight));
    }

    #[rstest]
    #[case("2026-02-30")]
    #[case("31.12.2026")]
    #[case("tomorrow")]
    #[case("")]
    fn other_dates_are_refused_with_the_accepted_form(#[case] text: &str) {
        let error = Expiry::parse(text).unwrap_err().to_string();
        assert_eq!(
            error,
            "not a date; a date is written like `2026-12-31` or `2026-12-31T18:00:00Z`"
        );
    }
}
