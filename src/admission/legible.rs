//! What a plugin says, as a person may be shown it: of a length that can be read, and without the
//! characters that command a terminal or turn the direction in which its text runs.

use super::verdict::{Denial, Fault, Outcome, Verdict};

/// How many characters of one text are kept; an ellipsis stands for the rest. The workers of Python
/// plugins keep as many.
const LENGTH: usize = 8 * 1024;

impl Outcome {
    /// The same outcome with each of its texts legible. Annotations, which go to the audit alone, keep their
    /// length.
    #[must_use]
    pub fn legible(self) -> Self {
        match self {
            Outcome::Verdict(verdict) => Outcome::Verdict(Verdict {
                denials: verdict.denials.into_iter().map(denial).collect(),
                warnings: verdict.warnings.into_iter().map(legible).collect(),
                annotations: verdict
                    .annotations
                    .into_iter()
                    .map(|(key, value)| (harmless(key), harmless(value)))
                    .collect(),
                ..verdict
            }),
            Outcome::Skipped(condition) => Outcome::Skipped(condition),
            Outcome::Fault(fault) => Outcome::Fault(Fault {
                kind: fault.kind,
                message: legible(fault.message),
                detail: fault.detail.map(legible),
            }),
        }
    }
}

fn denial(denial: Denial) -> Denial {
    Denial {
        message: legible(denial.message),
        reason: denial.reason.map(legible),
    }
}

/// A text of at most [`LENGTH`] characters and an ellipsis, each of them harmless.
fn legible(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LENGTH) {
        text.truncate(end);
        text.push('…');
    }
    harmless(text)
}

/// A text in which U+FFFD stands for each character that no message needs.
fn harmless(text: String) -> String {
    replaced(&text).unwrap_or(text)
}

/// The same, of a text that has such characters.
pub(super) fn replaced(text: &str) -> Option<String> {
    if !text.contains(is_harmful) {
        return None;
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let ends_a_line = c == '\r' && rest.peek() == Some(&'\n');
        let replaced = is_harmful(c) && !ends_a_line;
        shown.push(if replaced { '\u{fffd}' } else { c });
    }
    Some(shown)
}

/// Control characters but for line breaks and tabs, and what overrides or isolates a direction (UAX #9).
fn is_harmful(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::admission::verdict::FaultKind;

    #[rstest]
    #[case::lines("no:\n\t- a\r\n\t- b", "no:\n\t- a\r\n\t- b")]
    #[case::escape("\u{1b}[2Jno", "\u{fffd}[2Jno")]
    #[case::bell("no\u{7}", "no\u{fffd}")]
    #[case::carriage_return("no\ryes", "no\u{fffd}yes")]
    #[case::next_line("no\u{85}yes\u{9b}1m", "no\u{fffd}yes\u{fffd}1m")]
    #[case::right_to_left("no \u{202e}sey", "no \u{fffd}sey")]
    #[case::isolate("no \u{2067}sey\u{2069}", "no \u{fffd}sey\u{fffd}")]
    #[case::other_writing("ללא GPU – 不可 🙂", "ללא GPU – 不可 🙂")]
    fn what_commands_a_terminal_is_replaced(#[case] said: &str, #[case] shown: &str) {
        assert_eq!(legible(said.to_owned()), shown);
    }

    #[test]
    fn a_message_of_megabytes_is_cut_and_says_so() {
        let shown = legible("ü".repeat(2_000_000));
        assert_eq!(shown, format!("{}…", "ü".repeat(LENGTH)));
        let just = "ü".repeat(LENGTH);
        assert_eq!(legible(just.clone()), just);
    }

    fn said() -> impl Strategy<Value = String> {
        let strange = prop::sample::select(vec!['\u{1b}', '\u{202e}', '\r', '\n', 'é', '…', 'x']);
        let characters = prop_oneof![any::<char>(), strange];
        let few = prop::collection::vec(characters, 0..40);
        (few, 0..500usize).prop_map(|(few, times)| String::from_iter(few).repeat(times))
    }

    /// Every text of an outcome but the annotations.
    fn texts(outcome: &Outcome) -> Vec<&String> {
        match outcome {
            Outcome::Verdict(verdict) => {
                let denials = verdict.denials.iter();
                let denials = denials.flat_map(|d| [Some(&d.message), d.reason.as_ref()]);
                denials.flatten().chain(&verdict.warnings).collect()
            }
            Outcome::Skipped(_) => Vec::new(),
            Outcome::Fault(fault) => [Some(&fault.message), fault.detail.as_ref()]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_a_plugin_says_can_be_shown(said in said()) {
            let denial = Denial { message: said.clone(), reason: Some(said.clone()) };
            let verdict = Outcome::Verdict(Verdict {
                denials: vec![denial],
                warnings: vec![said.clone()],
                annotations: vec![("k".to_owned(), said.clone())],
                ..Verdict::default()
            });
            let fault = Fault::new(FaultKind::Exception, said.clone()).with_detail(said.clone());
            for outcome in [verdict, Outcome::Fault(fault)] {
                let once = outcome.legible();
                for text in texts(&once) {
                    prop_assert!(text.chars().count() <= LENGTH + 1);
                    prop_assert!(!text.replace("\r\n", "").contains(is_harmful));
                    prop_assert_eq!(&legible(text.clone()), text);
                }
                if let Outcome::Verdict(verdict) = &once {
                    let value = verdict.annotations[0].1.replace("\r\n", "");
                    prop_assert!(!value.contains(is_harmful));
                }
            }
        }

        #[test]
        fn a_harmless_text_of_common_length_stays(said in "[^\\p{Cc}\\p{Cf}]{0,200}") {
            prop_assert_eq!(legible(said.clone()), said);
        }
    }
}
