//! Which line each key of a YAML document stands on, and whether it is a document to read at all.
//!
//! One pass over the parser's events, before anything is built from the text: it bounds what
//! aliases can unfold to, so that what is built afterwards is bounded too.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, Span, Tag};

use super::problem::{Place, Problem, Problems};
use super::suggest;

/// The largest file that is read, in bytes: what a Kubernetes `ConfigMap` can hold.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// How many values a file may have, and how many bytes of them, once its aliases are unfolded.
const MAX_VALUES: usize = 20_000;
const MAX_UNFOLDED: usize = 4 << 20;
const MAX_DEPTH: usize = 64;
/// Longer key paths than this are not remembered, their values stand where their parents do.
const MAX_PATH: usize = 1024;

/// The line of each key path of one file.
#[derive(Clone, Debug)]
pub struct Places {
    file: Arc<str>,
    lines: HashMap<String, usize>,
}

impl Places {
    fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            lines: HashMap::new(),
        }
    }

    /// The place of a key path such as `plugins[2].use`. A path that is not in the file stands
    /// where its nearest parent does; the empty path is the whole file.
    pub fn place(&self, path: &str) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: self.line(path),
        }
    }

    /// The line of [`Places::place`], counted from 1.
    pub fn line(&self, path: &str) -> Option<usize> {
        let parents = path
            .char_indices()
            .rev()
            .filter(|&(_, c)| c == '.' || c == '[')
            .map(|(end, _)| &path[..end]);
        std::iter::once(path)
            .chain(parents)
            .filter(|path| !path.is_empty())
            .find_map(|path| self.lines.get(path).copied())
    }

    /// A problem at a key path of this file.
    pub fn problem(&self, path: impl Into<String>, message: impl Into<String>) -> Problem {
        let path = path.into();
        Problem {
            place: self.place(&path),
            path,
            message: message.into(),
        }
    }
}

/// The path of the member `key` of the map at `path`.
pub fn member(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '$');
    if key.is_empty() || !key.chars().all(plain) {
        // Quoted as JSON quotes it, so that a path stays readable whatever the key.
        return format!("{path}[{}]", serde_json::Value::from(key));
    }
    if path.is_empty() {
        return key.to_owned();
    }
    format!("{path}.{key}")
}

/// The path of the item `index` of the list at `path`.
pub fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// What one pass over a document found.
pub(super) struct Scan {
    pub places: Places,
    /// What is wrong, but leaves a document that can be read.
    pub problems: Problems,
}

/// Finds the line of each key in `text`.
///
/// # Errors
/// When there is no one document to read: bad syntax, several documents, aliases that unfold
/// without bound.
pub(super) fn scan(text: &str, file: &str) -> Result<Scan, Problem> {
    let mut scanner = Scanner {
        places: Places::new(file),
        problems: Problems::default(),
        open: Vec::new(),
        anchors: HashMap::new(),
        documents: 0,
    };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => scanner.take(event, span)?,
            Err(error) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                let message = format!("not valid YAML: {} (column {column})", error.info());
                return Err(scanner.at(line, "", message));
            }
        }
    }
    Ok(Scan {
        places: scanner.places,
        problems: scanner.problems,
    })
}

/// How much a value is, with its aliases unfolded.
#[derive(Clone, Copy, Default)]
struct Size {
    values: usize,
    bytes: usize,
}

/// A map or list whose end has not come yet.
struct Open {
    /// None when the path grew too long to remember.
    path: Option<String>,
    shape: Shape,
    anchor: usize,
    size: Size,
}

enum Shape {
    Map {
        /// The keys so far, each with its line.
        keys: HashMap<String, usize>,
        next: Next,
    },
    List {
        next: usize,
    },
}

/// What comes next in a map.
enum Next {
    Key,
    /// With its path, None when that grew too long to remember.
    Value(Option<String>),
}

struct Scanner {
    places: Places,
    problems: Problems,
    open: Vec<Open>,
    anchors: HashMap<usize, Size>,
    documents: usize,
}

impl Scanner {
    fn take(&mut self, event: Event, span: Span) -> Result<(), Problem> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.at(line, "", "a second YAML document; only one is read"));
                }
            }
            Event::Scalar(text, _, anchor, tag) => {
                let size = Size {
                    values: 1,
                    bytes: text.len(),
                };
                self.remember(anchor, size);
                if self.awaits_key() {
                    self.key(&text, line)?;
                } else {
                    let path = self.value_path(line);
                    self.refuse_tag(tag.as_deref(), path.as_deref(), line);
                }
                self.count(size, line)?;
            }
            Event::Alias(anchor) => {
                if self.awaits_key() {
                    return Err(self.at(line, "", "an alias cannot be a key"));
                }
                self.value_path(line);
                // An anchor is known once its value has ended, so not to an alias inside it.
                let Some(size) = self.anchors.get(&anchor).copied() else {
                    return Err(self.at(line, "", "an alias to the value that holds it"));
                };
                self.count(size, line)?;
            }
            Event::MappingStart(anchor, tag) => {
                let shape = Shape::Map {
                    keys: HashMap::new(),
                    next: Next::Key,
                };
                self.begin(shape, anchor, tag.as_deref(), line)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Shape::List { next: 0 }, anchor, tag.as_deref(), line)?;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(ended) = self.open.pop() {
                    self.remember(ended.anchor, ended.size);
                    self.count(ended.size, line)?;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(
        &mut self,
        shape: Shape,
        anchor: usize,
        tag: Option<&Tag>,
        line: usize,
    ) -> Result<(), Problem> {
        if self.awaits_key() {
            return Err(self.at(line, "", "a map or list cannot be a key"));
        }
        let path = self.value_path(line);
        self.refuse_tag(tag, path.as_deref(), line);
        if self.open.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(self.at(line, "", message));
        }
        self.open.push(Open {
            path,
            shape,
            anchor,
            size: Size {
                values: 1,
                bytes: 0,
            },
        });
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last().map(|open| &open.shape),
            Some(Shape::Map {
                next: Next::Key,
                ..
            })
        )
    }

    /// Takes the key of the value that comes next.
    fn key(&mut self, key: &str, line: usize) -> Result<(), Problem> {
        let Some(Open {
            path,
            shape: Shape::Map { keys, next },
            ..
        }) = self.open.last_mut()
        else {
            return Ok(());
        };
        let member = path.as_deref().map(|path| member(path, key));
        let member = member.filter(|path| path.len() <= MAX_PATH);
        *next = Next::Value(member.clone());
        let first = keys.insert(key.to_owned(), line);
        if let Some(path) = &member {
            self.places.lines.insert(path.clone(), line);
        }
        if key == "<<" {
            let message = "merge keys (`<<`) are not read; write the keys out";
            return Err(self.at(line, "", message));
        }
        if let Some(first) = first {
            let path = member.unwrap_or_default();
            let message = format!("written twice, first on line {first}");
            let problem = self.at(line, &path, message);
            self.problems.push(problem);
        }
        Ok(())
    }

    /// The path of the value that begins here; the items of lists get their lines by it.
    fn value_path(&mut self, line: usize) -> Option<String> {
        let Some(open) = self.open.last_mut() else {
            return Some(String::new());
        };
        match &mut open.shape {
            Shape::Map { next, .. } => match std::mem::replace(next, Next::Key) {
                Next::Value(path) => path,
                Next::Key => None,
            },
            Shape::List { next } => {
                let path = open.path.as_deref().map(|path| item(path, *next));
                *next += 1;
                let path = path.filter(|path| path.len() <= MAX_PATH)?;
                self.places.lines.insert(path.clone(), line);
                Some(path)
            }
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, path: Option<&str>, line: usize) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            let name = suggest::short(&tag.to_string());
            let message = format!("the YAML tag `{name}` has no meaning here");
            let problem = self.at(line, path.unwrap_or_default(), message);
            self.problems.push(problem);
        }
    }

    fn remember(&mut self, anchor: usize, size: Size) {
        // The parser gives 0 to what has no anchor.
        if anchor > 0 {
            self.anchors.insert(anchor, size);
        }
    }

    /// Counts a value to the map or list that holds it.
    fn count(&mut self, size: Size, line: usize) -> Result<(), Problem> {
        let Some(holder) = self.open.last_mut() else {
            return Ok(());
        };
        holder.size.values = holder.size.values.saturating_add(size.values);
        holder.size.bytes = holder.size.bytes.saturating_add(size.bytes);
        if holder.size.values > MAX_VALUES || holder.size.bytes > MAX_UNFOLDED {
            let message = "too large: with its aliases unfolded, the file has more than \
                           20,000 values or 4 MiB of text";
            return Err(self.at(line, "", message));
        }
        Ok(())
    }

    fn at(&self, line: usize, path: &str, message: impl Into<String>) -> Problem {
        Problem {
            place: Place {
                file: Arc::clone(&self.places.file),
                line: Some(line),
            },
            path: path.to_owned(),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NESTED: &str = "\
a: 1
plugins:
  - name: one
    cel:
      validations:
        - expression: 'true'
          message: >-
            several
            lines
        - {expression: x, message: y}
  - # a comment
    name: two
    tags: {plain: 1, a.b/c: 2}
";

    #[rstest]
    #[case("a", Some(1))]
    #[case("plugins", Some(2))]
    #[case("plugins[0]", Some(3))]
    #[case("plugins[0].cel.validations[0].message", Some(7))]
    #[case("plugins[0].cel.validations[1]", Some(10))]
    #[case("plugins[0].cel.validations[1].message", Some(10))]
    #[case("plugins[1].name", Some(12))]
    #[case("plugins[1].tags[\"a.b/c\"]", Some(13))]
    #[case("plugins[0].cel.validations[1].reason", Some(10))]
    #[case("plugins[0].cel.variables[4].name", Some(4))]
    #[case("plugins[7]", Some(2))]
    #[case("b.c", None)]
    #[case("", None)]
    fn each_path_has_its_line_or_its_parents(#[case] path: &str, #[case] line: Option<usize>) {
        let scan = scan(NESTED, "a.yaml").unwrap_or_else(|p| panic!("{p}"));
        assert!(scan.problems.is_empty(), "{}", scan.problems);
        assert_eq!(scan.places.line(path), line);
    }

    #[test]
    fn paths_are_written_as_people_write_them() {
        assert_eq!(member("", "listen"), "listen");
        assert_eq!(member(&item("plugins", 2), "use"), "plugins[2].use");
        assert_eq!(member("tags", "a.b/\"c\""), r#"tags["a.b/\"c\""]"#);
    }

    #[rstest]
    #[case("a: [1\nb: 2\n")]
    #[case("a: 1\n b: 2\n")]
    #[case("a:\n\t- b\n")]
    #[case("a: 'b\n")]
    #[case("a: @b\n")]
    #[case("a: *unknown\n")]
    #[case("? [a]\n: b\n")]
    #[case("a: &x [*x]\n")]
    #[case("a: 1\n---\nb: 2\n")]
    #[case("a: &x {b: 1}\nc:\n  <<: *x\n")]
    fn what_is_no_single_plain_document_is_refused_with_a_line(#[case] text: &str) {
        let problem = scan(text, "a.yaml").map(|_| ()).unwrap_err();
        assert!(problem.place.line.is_some(), "{problem}");
    }
}
