//! Texts of logs on a terminal.

/// A text from a log as one line, without what would steer a terminal or turn the direction of text.
pub fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let words = text.split(|c: char| c.is_whitespace() || c.is_control() || turns(c));
    Vec::from_iter(words.filter(|word| !word.is_empty())).join(" ")
}
