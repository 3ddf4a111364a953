//! `${NAME}` in the few values whose keys say that it is expanded.

/// Why a text with `${NAME}` in it cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("the environment variable `{0}` is not set")]
    Unset(String),
    #[error("`${{` without the `}}` that ends it")]
    Unclosed,
    #[error("`${{{0}}}` names no environment variable")]
    Name(String),
}

/// Puts the values that `lookup` knows in the place of each `${NAME}`.
///
/// A `$` without a brace stays as it is, and so does what a value brings along.
///
/// # Errors
/// When a variable is not set, a brace is not closed or a name is none.
pub fn expand_env(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, EnvError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').ok_or(EnvError::Unclosed)?;
        if !is_name(name) {
            return Err(EnvError::Name(super::suggest::short(name)));
        }
        let value = lookup(name).ok_or_else(|| EnvError::Unset(name.to_owned()))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn is_name(name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(part) && name.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("policy.example.com".to_owned()),
            "NESTED" => Some("${HOST}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[rstest]
    #[case("https://${HOST}:8000/x", Ok("https://policy.example.com:8000/x"))]
    #[case("${HOST}${EMPTY}${HOST}", Ok("policy.example.compolicy.example.com"))]
    #[case("${NESTED}", Ok("${HOST}"))]
    #[case("$HOST costs 5$ {x}", Ok("$HOST costs 5$ {x}"))]
    #[case("${PORT}", Err("the environment variable `PORT` is not set"))]
    #[case("https://${HOST", Err("`${` without the `}` that ends it"))]
    #[case("${}", Err("`${}` names no environment variable"))]
    #[case("${A-B}", Err("`${A-B}` names no environment variable"))]
    fn variables_are_expanded(#[case] text: &str, #[case] expected: Result<&str, &str>) {
        let expanded = expand_env(text, lookup).map_err(|error| error.to_string());
        assert_eq!(expanded.as_deref().map_err(String::as_str), expected);
    }
}
