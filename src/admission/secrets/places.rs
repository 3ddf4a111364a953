//! Which places of a spec hold secrets: those that dstack knows, and those that a configuration
//! adds.

/// What a place in a spec is about, as far as secrets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Plain,
    /// Whatever is here or below is a secret.
    Secret,
    Repos,
    Repo,
    /// What dstack takes for a path may be the rest of a URL, cut at the colon before its password.
    RepoPath,
    Probes,
    Probe,
    Headers,
    Header,
}

impl Place {
    pub(super) fn child(self, token: &str) -> Self {
        match (self, token) {
            (Place::Secret, _) => Place::Secret,
            (Place::Plain, "env" | "registry_auth" | "private") => Place::Secret,
            (Place::Plain, "probes") => Place::Probes,
            (Place::Plain, "repos") => Place::Repos,
            (Place::Plain, _) => Place::Plain,
            (Place::Repos, _) => Place::Repo,
            (Place::Repo, "path") => Place::RepoPath,
            (Place::Probes, _) => Place::Probe,
            (Place::Probe, "headers") => Place::Headers,
            (Place::Probe, "url" | "body") => Place::Secret,
            (Place::Headers, _) => Place::Header,
            (Place::Header, "value") => Place::Secret,
            (Place::Repo | Place::RepoPath | Place::Probe | Place::Header, _) => Place::Plain,
        }
    }

    /// The place of any element of a list.
    pub(super) fn element(self) -> Self {
        self.child("0")
    }

    /// The place that a JSON Pointer leads to.
    pub(super) fn of(pointer: &str) -> Self {
        tokens(pointer).fold(Place::Plain, |place, token| {
            place.child(&token.replace("~1", "/").replace("~0", "~"))
        })
    }
}

/// A JSON Pointer in which a token `*` stands for any one, as `/configuration/labels/*`. It covers
/// the place and all below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<String>);

impl Pattern {
    /// # Errors
    /// In words, when it is no JSON Pointer or covers everything.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let found: Vec<String> = tokens(text).map(str::to_owned).collect();
        if !text.starts_with('/') || found.is_empty() || found.iter().all(|token| token == "*") {
            return Err(format!(
                "`{text}` is no place in a spec; write a JSON Pointer such as `/configuration/labels/*`, where `*` is any name or index"
            ));
        }
        Ok(Self(found))
    }

    pub(super) fn covers(&self, pointer: &str) -> bool {
        let mut path = tokens(pointer);
        self.0
            .iter()
            .all(|own| path.next().is_some_and(|token| own == "*" || own == token))
    }
}

/// The tokens of a JSON Pointer as they are written, escapes and all (RFC 6901).
fn tokens(pointer: &str) -> impl Iterator<Item = &str> {
    pointer.split('/').skip(1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/configuration/labels", "/configuration/labels", true)]
    #[case("/configuration/labels", "/configuration/labels/a/b", true)]
    #[case("/configuration/labels", "/configuration/label", false)]
    #[case("/configuration/labels", "/configuration", false)]
    #[case("/a/*/c", "/a/7/c", true)]
    #[case("/a/*/c", "/a/x/y/c", false)]
    #[case("/a~1b", "/a~1b", true)]
    fn a_pattern_covers_its_place_and_what_is_below(
        #[case] pattern: &str,
        #[case] pointer: &str,
        #[case] covered: bool,
    ) {
        assert_eq!(Pattern::parse(pattern).unwrap().covers(pointer), covered);
    }

    #[rstest]
    #[case("configuration/env")]
    #[case("")]
    #[case("/*")]
    fn what_is_no_place_is_refused(#[case] text: &str) {
        assert!(Pattern::parse(text).unwrap_err().contains("JSON Pointer"));
    }
}
