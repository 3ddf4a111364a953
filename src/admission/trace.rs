//! Where a review stands in a distributed trace, after W3C Trace Context: what a caller says of its
//! span, and the names of our own. It makes no span and draws no random number.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// The header that names the caller's span.
pub const TRACEPARENT: &str = "traceparent";
/// The header of what tracing systems add to that. Passed on as it is.
pub const TRACESTATE: &str = "tracestate";

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// The flags that are known (level 2: sampled, random). Others are not passed on.
const KNOWN_FLAGS: u8 = 3;

/// The name of a trace, 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// The name of a span in its trace, 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

/// A review's place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub id: TraceId,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// The review's own span. Without it no spans are made here.
    pub span: Option<SpanId>,
    /// As `traceparent` has them, those that are known.
    pub flags: u8,
    /// The caller's `tracestate`.
    pub state: Option<String>,
}

impl TraceId {
    /// Nothing for 0, which names no trace.
    pub const fn new(id: u128) -> Option<Self> {
        match NonZeroU128::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    pub const fn get(self) -> u128 {
        self.0.get()
    }
}

impl SpanId {
    /// Nothing for 0, which names no span.
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The name of one span below this one, the same for the same `nth` and as good as random.
    #[must_use]
    pub const fn below(self, nth: u32) -> Self {
        // The finalizer of SplitMix64, which no two numbers share a result of.
        let mut z = self.get().wrapping_add(
            (nth as u64)
                .wrapping_add(1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        match Self::new(z ^ (z >> 31)) {
            Some(id) => id,
            None => self,
        }
    }
}

impl Trace {
    /// A trace that begins with `span`.
    pub const fn begin(id: TraceId, span: SpanId) -> Self {
        Self {
            id,
            parent: None,
            span: Some(span),
            flags: 0,
            state: None,
        }
    }

    /// Reads a `traceparent` as the recommendation asks: of a version that is newer than `00`, what is
    /// known is read. Nothing if it is invalid, which is as good as none.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let bytes = traceparent.trim().as_bytes();
        let (known, rest) = bytes.split_at_checked(55)?;
        let part = |from: usize, until: usize| hex(&known[from..until]);
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let version = part(0, 2)?;
        let longer = match version {
            0 => !rest.is_empty(),
            _ => !rest.is_empty() && !rest.starts_with(b"-"),
        };
        if !dashes || longer || version == 0xff {
            return None;
        }
        Some(Self {
            id: TraceId::new(part(3, 35)?)?,
            parent: Some(SpanId::new(part(36, 52)? as u64)?),
            span: None,
            flags: part(53, 55)? as u8 & KNOWN_FLAGS,
            state: None,
        })
    }

    pub const fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub const fn set_sampled(&mut self, sampled: bool) {
        self.flags = self.flags & !SAMPLED | if sampled { SAMPLED } else { 0 };
    }

    /// The `traceparent` of what is called by `span`.
    pub fn traceparent(&self, span: SpanId) -> String {
        format!("00-{}-{span}-{:02x}", self.id, self.flags)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Up to 32 hex digits, lower case alone.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::sampled("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true))]
    #[case::not_sampled("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false))]
    #[case::flags_of_later_versions(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
        Some(true)
    )]
    #[case::white_space(
        " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\t",
        Some(true)
    )]
    #[case::a_later_version("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true))]
    #[case::more_of_a_later_version(
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
        Some(true)
    )]
    #[case::glued_to_a_later_version(
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
        None
    )]
    #[case::more_of_this_version(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
        None
    )]
    #[case::forbidden_version("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None)]
    #[case::upper_case("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None)]
    #[case::no_trace("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None)]
    #[case::no_span("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None)]
    #[case::no_hex("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", None)]
    #[case::no_dash("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", None)]
    #[case::short("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None)]
    #[case::empty("", None)]
    #[case::other_letters("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bé-1", None)]
    fn a_traceparent_is_read_as_the_recommendation_says(
        #[case] text: &str,
        #[case] sampled: Option<bool>,
    ) {
        let trace = Trace::parse(text);
        assert_eq!(trace.as_ref().map(Trace::sampled), sampled);
        if let Some(trace) = trace {
            assert_eq!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(trace.parent.unwrap().to_string(), "00f067aa0ba902b7");
            assert_eq!(trace.span, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_on_is_read_as_it_was_meant(id in 1u128.., span in 1u64.., sampled: bool) {
            let (id, span) = (TraceId::new(id).unwrap(), SpanId::new(span).unwrap());
            let mut trace = Trace::begin(id, span);
            trace.set_sampled(sampled);
            let read = Trace::parse(&trace.traceparent(span)).unwrap();
            prop_assert_eq!((read.id, read.parent, read.sampled()), (id, Some(span), sampled));
        }

        #[test]
        fn no_text_is_too_strange(text: String) {
            let _ = Trace::parse(&text);
        }

        #[test]
        fn spans_below_one_are_all_different(span in 1u64..) {
            let span = SpanId::new(span).unwrap();
            let below: HashSet<_> = (0..500).map(|nth| span.below(nth)).collect();
            prop_assert_eq!(below.len(), 500);
            prop_assert!(!below.contains(&span));
        }
    }
}
