//! Texts of logs on a terminal.

/// A text from a log as one line, without what would steer a terminal.
pub fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    Vec::from_iter(words.filter(|word| !word.is_empty())).join(" ")
}
