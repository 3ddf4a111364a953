//! Which reviews something is about, by their kind, project and user.

use std::fmt;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::review::{Kind, Review};

/// Which reviews a plugin, an exemption or a rule of the audit is about: each part covers all when it
/// is not given.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub kinds: Option<Vec<Kind>>,
    pub projects: Option<Globs>,
    pub users: Option<Globs>,
}

impl Scope {
    pub fn covers(&self, review: &Review) -> bool {
        self.kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&review.kind))
            && self
                .projects
                .as_ref()
                .is_none_or(|globs| globs.cover(&review.project))
            && self
                .users
                .as_ref()
                .is_none_or(|globs| globs.cover(&review.user))
    }
}

/// Name patterns such as `["*", "!research"]`: a name is covered when one pattern fits (or all
/// patterns exclude) and no excluding one does, whatever their order.
#[derive(Clone, Debug)]
pub struct Globs {
    patterns: Vec<String>,
    including: Option<GlobSet>,
    excluding: GlobSet,
}

impl Globs {
    /// # Errors
    /// The first pattern that is no glob, and why.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, String> {
        let (mut including, mut excluding) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        let mut included = 0;
        for pattern in patterns.iter().map(AsRef::as_ref) {
            let (set, pattern) = match pattern.strip_prefix('!') {
                Some(excluded) => (&mut excluding, excluded),
                None => {
                    included += 1;
                    (&mut including, pattern)
                }
            };
            set.add(
                Glob::new(pattern).map_err(|e| format!("`{pattern}` is no glob: {}", e.kind()))?,
            );
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|e| e.to_string());
        let including = if included > 0 {
            Some(build(including)?)
        } else {
            None
        };
        let patterns = patterns
            .iter()
            .map(|pattern| pattern.as_ref().to_owned())
            .collect();
        Ok(Self {
            patterns,
            including,
            excluding: build(excluding)?,
        })
    }

    pub fn cover(&self, name: &str) -> bool {
        self.including
            .as_ref()
            .is_none_or(|globs| globs.is_match(name))
            && !self.excluding.is_match(name)
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.patterns.join(","))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["*"], "research", true)]
    #[case(&["*", "!research"], "research", false)]
    #[case(&["!research", "*"], "research", false)]
    #[case(&["!research"], "main", true)]
    #[case(&["team-*"], "team-a", true)]
    #[case(&["team-*"], "main", false)]
    #[case(&[], "main", true)]
    fn patterns_include_and_exclude(
        #[case] patterns: &[&str],
        #[case] name: &str,
        #[case] covered: bool,
    ) {
        assert_eq!(Globs::parse(patterns).unwrap().cover(name), covered);
    }

    #[test]
    fn a_broken_pattern_is_named() {
        assert!(Globs::parse(&["a", "[z-"]).unwrap_err().contains("`[z-`"));
    }
}
