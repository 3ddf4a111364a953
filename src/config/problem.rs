//! What is wrong with a configuration: where, and in plain words.
//!
//! Problems are gathered, never thrown at the first: whoever mends a file sees all of them.

use std::fmt;
use std::sync::Arc;

/// Where in a configuration file something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line, counted from 1. None when the file as a whole is meant.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// The key's path, such as `plugins[2].cel.validations[0].expression`. Empty for the file.
    pub path: String,
    /// What is wrong and, where that is known, what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            write!(f, "{}: {}: {}", self.place, self.path, self.message)
        }
    }
}

/// All that is wrong with a configuration, in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Adds one problem at its place.
    pub fn push(&mut self, problem: Problem) {
        let after = self.0.partition_point(|known| known.place <= problem.place);
        self.0.insert(after, problem);
    }

    /// Adds what a later stage found, except for what only follows from a problem known already.
    ///
    /// A later stage works on a file from which wrong values were taken out, so a problem at a
    /// key that is known to be wrong, below one, or of a map that holds one, may not be real.
    pub fn add_later(&mut self, later: Problems) {
        let known: Vec<String> = self.0.iter().map(|p| p.path.clone()).collect();
        for problem in later {
            let follows = |path: &String| {
                is_below(&problem.path, path)
                    || is_below(path, &problem.path) && !is_list(path, &problem.path)
            };
            if !known.iter().any(follows) {
                self.push(problem);
            }
        }
    }
}

/// Whether `path` is `above` or lies below it. Everything but the file itself lies below no empty path.
fn is_below(path: &str, above: &str) -> bool {
    match path.strip_prefix(above) {
        Some(rest) => !above.is_empty() && (rest.is_empty() || rest.starts_with(['.', '['])),
        None => false,
    }
}

/// Whether `above`, which `path` lies below, is a list: its other items are as good as before.
fn is_list(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('[') && !rest.starts_with("[\""))
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        let mut problems: Vec<Problem> = problems.into_iter().collect();
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Self(problems)
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize, path: &str) -> Problem {
        Problem {
            place: Place {
                file: "a.yaml".into(),
                line: Some(line),
            },
            path: path.to_owned(),
            message: "wrong".to_owned(),
        }
    }

    fn paths(problems: &Problems) -> Vec<&str> {
        problems.iter().map(|p| p.path.as_str()).collect()
    }

    #[test]
    fn problems_stand_in_the_order_of_their_lines() {
        let problems: Problems = [problem(9, "b"), problem(2, "a"), problem(9, "c")]
            .into_iter()
            .collect();
        assert_eq!(
            problems.to_string(),
            "a.yaml:2: a: wrong\na.yaml:9: b: wrong\na.yaml:9: c: wrong"
        );
    }

    #[test]
    fn a_later_problem_that_may_follow_from_a_known_one_is_left_out() {
        let mut problems: Problems = [problem(3, "plugins[1].webhok")].into_iter().collect();
        let later = [
            problem(2, "plugins"),
            problem(3, "plugins[1]"),
            problem(3, "plugins[1].webhok.url"),
            problem(4, "plugins[10]"),
            problem(5, "plugins[1].name"),
        ];
        problems.add_later(later.into_iter().collect());
        assert_eq!(
            paths(&problems),
            [
                "plugins",
                "plugins[1].webhok",
                "plugins[10]",
                "plugins[1].name"
            ]
        );
    }
}
