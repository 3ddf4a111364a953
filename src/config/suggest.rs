//! The nearest right name to a misspelt one.

/// Of `known`, the name that whoever typed `typed` most likely meant.
///
/// Case, `_` and `-` do not count, so `failure_policy` finds `failurePolicy`. One edit in three
/// characters is forgiven, and so is a name that was left unfinished, when only one goes on that way.
pub(crate) fn nearest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = folded(typed);
    let length = typed.chars().count();
    // The distance is quadratic in the length, and no name of ours is this long.
    if length == 0 || length > 64 {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    let mut finished = Vec::new();
    let allowed = (length / 3).max(1);
    for name in known {
        let candidate = folded(name);
        let longer = candidate.chars().count().abs_diff(length);
        if longer > allowed && !candidate.starts_with(&typed) {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&typed, &candidate);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
        if length >= 3 && candidate.starts_with(&typed) && !finished.contains(&name) {
            finished.push(name);
        }
    }
    match (best, finished.as_slice()) {
        (Some((_, name)), _) | (None, &[name]) => Some(name),
        (None, _) => None,
    }
}

/// `text` as far as a message can show it.
pub(crate) fn short(text: &str) -> String {
    const LIMIT: usize = 40;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn folded(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const KNOWN: [&str; 6] = [
        "timeout",
        "failurePolicy",
        "use",
        "match",
        "passwordFile",
        "caFile",
    ];

    #[rstest]
    #[case("tiemout", Some("timeout"))]
    #[case("failure_policy", Some("failurePolicy"))]
    #[case("FAILUREPOLICY", Some("failurePolicy"))]
    #[case("password", Some("passwordFile"))]
    #[case("uses", Some("use"))]
    #[case("use", Some("use"))]
    #[case("cat", None)]
    #[case("colour", None)]
    #[case("", None)]
    fn the_nearest_name_is_found(#[case] typed: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest(typed, KNOWN), expected);
    }

    #[test]
    fn an_unfinished_name_that_goes_on_two_ways_finds_none() {
        assert_eq!(nearest("cert", ["certFile", "certDirectory"]), None);
    }

    #[test]
    fn a_very_long_name_finds_none_at_once() {
        assert_eq!(nearest(&"x".repeat(1 << 20), KNOWN), None);
    }
}
