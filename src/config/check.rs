//! A whole document against the schema: every problem at once, in plain words.
//!
//! What is wrong is also mended with stand-ins, so that the stages after this one can look for
//! problems of their own in the rest. A mended document is never served.

use std::collections::HashSet;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};

use super::keys::Keys;
use super::places::{Places, item, member};
use super::problem::Problems;
use super::{suggest, units, words};
use crate::plugins::library;

/// How often a document is mended: a stand-in may itself lack what its schema requires.
const MENDS: usize = 16;

/// What was found of one document.
pub(super) struct Checked {
    pub problems: Problems,
    /// The document, valid: without its wrong values, with stand-ins where one has to be.
    pub mended: Option<Value>,
}

/// A schema, ready to hold documents against.
pub(super) struct Checker<'s> {
    validator: Validator,
    schema: &'s Value,
    keys: Keys<'s>,
}

/// One thing that is wrong, and what makes the document valid in its place.
struct Finding {
    path: String,
    message: String,
    mend: Mend,
    /// The path of a missing key that this misspelt one was meant to be.
    explains: Option<String>,
    /// Whether what is wrong is a key with nothing after it.
    is_absent: bool,
}

/// A change to the document, by JSON Pointer.
enum Mend {
    Remove {
        map: String,
        key: String,
    },
    Put {
        map: String,
        key: String,
        value: Value,
    },
    Replace {
        at: String,
        value: Value,
    },
}

impl Mend {
    fn apply(self, document: &mut Value) {
        let (map, key, value) = match self {
            Mend::Replace { at, value } => {
                if let Some(place) = document.pointer_mut(&at) {
                    *place = value;
                }
                return;
            }
            Mend::Remove { map, key } => (map, key, None),
            Mend::Put { map, key, value } => (map, key, Some(value)),
        };
        let Some(Value::Object(members)) = document.pointer_mut(&map) else {
            return;
        };
        match value {
            Some(value) => members.insert(key, value),
            None => members.swap_remove(&key),
        };
    }
}

impl<'s> Checker<'s> {
    /// # Errors
    /// When `schema` is no JSON Schema.
    pub(super) fn new(schema: &'s Value) -> Result<Self, String> {
        let mut options = jsonschema::draft202012::options().should_validate_formats(true);
        for (name, parse) in units::FORMATS {
            options = options.with_format(name, move |text: &str| parse(text).is_ok());
        }
        for (name, parse) in library::FORMATS {
            options = options.with_format(name, move |text: &str| parse(text).is_ok());
        }
        Ok(Self {
            validator: options.build(schema).map_err(|error| error.to_string())?,
            schema,
            keys: Keys::of(schema),
        })
    }

    /// Holds `document` against the schema.
    pub(super) fn check(&self, mut document: Value, places: &Places) -> Checked {
        // A key with nothing after it is as good as none: what it holds is not wrong but absent.
        for finding in self.findings(&document) {
            if finding.is_absent {
                finding.mend.apply(&mut document);
            }
        }
        let mut findings = self.findings(&document);
        let explained: HashSet<&str> = findings
            .iter()
            .filter_map(|finding| finding.explains.as_deref())
            .collect();
        let said = findings
            .iter()
            .filter(|finding| !explained.contains(finding.path.as_str()))
            .map(|finding| places.problem(&finding.path, &finding.message));
        let problems = said.collect();
        for _ in 0..MENDS {
            if findings.is_empty() {
                break;
            }
            for finding in findings {
                finding.mend.apply(&mut document);
            }
            findings = self.findings(&document);
        }
        Checked {
            problems,
            mended: findings.is_empty().then_some(document),
        }
    }

    fn findings(&self, document: &Value) -> Vec<Finding> {
        let mut findings = Vec::new();
        for error in self.validator.iter_errors(document) {
            self.translate(&error, document, &mut findings);
        }
        findings
    }

    /// Says in plain words what is wrong.
    fn translate(&self, error: &ValidationError, document: &Value, findings: &mut Vec<Finding>) {
        let at = error.instance_path().as_str();
        let schema = self.schema_of(error);
        let value = error.instance().as_ref();
        let message = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = schema.get("properties").and_then(Value::as_object);
                for key in unexpected {
                    findings.push(self.unknown_key(at, key, known, document));
                }
                return;
            }
            // A map without any key of its own, such as `stdout: {}`.
            ValidationErrorKind::FalseSchema => {
                let map = document.pointer(at).and_then(Value::as_object);
                for key in map.into_iter().flat_map(Map::keys) {
                    findings.push(self.unknown_key(at, key, None, document));
                }
                return;
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                findings.push(self.missing_key(at, key, schema, document));
                return;
            }
            ValidationErrorKind::OneOfNotValid { context }
            | ValidationErrorKind::AnyOf { context } => {
                let fits = |branch: &&Vec<ValidationError>| !branch.iter().any(|e| misses(e, at));
                if let Some(branch) = context.iter().find(fits) {
                    for error in branch {
                        self.translate(error, document, findings);
                    }
                    return;
                }
                words::none_of(value, context.iter().flatten())
            }
            ValidationErrorKind::Enum { options } => {
                let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
                words::not_an_option(value, options.iter().filter_map(Value::as_str))
            }
            ValidationErrorKind::Type { kind } => words::wrong_type(value, kind, schema),
            ValidationErrorKind::Format { format } => words::wrong_format(value, format),
            ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
            ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
            ValidationErrorKind::MinItems { limit: 1 }
            | ValidationErrorKind::MinLength { limit: 1 } => "must not be empty".to_owned(),
            ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} items"),
            _ => error.masked().to_string(),
        };
        let absent = value
            .is_null()
            .then(|| absent_member(at, document))
            .flatten();
        let is_absent = absent.is_some();
        let mend = absent.unwrap_or_else(|| Mend::Replace {
            at: at.to_owned(),
            value: self.stand_in(schema),
        });
        findings.push(Finding {
            path: path_of(at, document),
            message,
            mend,
            explains: None,
            is_absent,
        });
    }

    /// The schema that holds the keyword which failed.
    fn schema_of(&self, error: &ValidationError) -> &Value {
        let keyword = error.schema_path().as_str();
        let schema = keyword.rsplit_once('/').map_or("", |(schema, _)| schema);
        self.schema.pointer(schema).unwrap_or(&Value::Null)
    }

    fn unknown_key(
        &self,
        at: &str,
        key: &str,
        known: Option<&Map<String, Value>>,
        document: &Value,
    ) -> Finding {
        let map = path_of(at, document);
        let known: Vec<&str> = known
            .map(|known| known.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let near = suggest::nearest(key, known.iter().copied());
        Finding {
            path: member(&map, key),
            message: match near {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => self.keys.unknown(key, &map, &known),
            },
            mend: Mend::Remove {
                map: at.to_owned(),
                key: key.to_owned(),
            },
            explains: near.map(|near| member(&map, near)),
            is_absent: false,
        }
    }

    fn missing_key(&self, at: &str, key: &str, schema: &Value, document: &Value) -> Finding {
        let wanted = schema.pointer("/properties").and_then(|p| p.get(key));
        Finding {
            path: member(&path_of(at, document), key),
            message: "required, but missing".to_owned(),
            mend: Mend::Put {
                map: at.to_owned(),
                key: key.to_owned(),
                value: self.stand_in(wanted.unwrap_or(&Value::Null)),
            },
            explains: None,
            is_absent: false,
        }
    }

    /// Some value that fits `schema`, but for the keys it may require.
    fn stand_in(&self, schema: &Value) -> Value {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let target = name
                .strip_prefix('#')
                .and_then(|at| self.schema.pointer(at));
            return self.stand_in(target.unwrap_or(&Value::Null));
        }
        let one = |keyword: &str| schema.get(keyword).cloned();
        let first = |keyword: &str| schema.get(keyword).and_then(|values| values.get(0));
        let named = one("default").or_else(|| one("const"));
        if let Some(value) = named.or_else(|| first("examples").or_else(|| first("enum")).cloned())
        {
            return value;
        }
        if let Some(branch) = first("oneOf").or_else(|| first("anyOf")) {
            return self.stand_in(branch);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => Value::Object(Map::new()),
            Some("array") if schema.get("minItems").is_some() => {
                Value::Array(vec![self.stand_in(&schema["items"])])
            }
            Some("array") => Value::Array(Vec::new()),
            Some("string") => Value::from(""),
            Some("boolean") => Value::from(false),
            Some("integer" | "number") if schema.get("exclusiveMinimum").is_some() => {
                Value::from(1)
            }
            Some("integer" | "number") => one("minimum").unwrap_or_else(|| Value::from(0)),
            _ => Value::Null,
        }
    }
}

/// Takes the member at `pointer` out of the map that holds it. None for an item of a list.
fn absent_member(pointer: &str, document: &Value) -> Option<Mend> {
    let (map, key) = pointer.rsplit_once('/')?;
    document.pointer(map)?.is_object().then(|| Mend::Remove {
        map: map.to_owned(),
        key: unescaped(key),
    })
}

/// Whether `error` says that the value at `at` is none of a branch's kind at all.
fn misses(error: &ValidationError, at: &str) -> bool {
    error.instance_path().as_str() == at
        && matches!(
            error.kind(),
            ValidationErrorKind::Type { .. } | ValidationErrorKind::Constant { .. }
        )
}

/// A JSON Pointer as the path that messages show.
fn path_of(pointer: &str, document: &Value) -> String {
    let mut path = String::new();
    let mut value = Some(document);
    for segment in pointer.split('/').skip(1) {
        let key = unescaped(segment);
        match (value, key.parse::<usize>()) {
            (Some(Value::Array(items)), Ok(index)) => {
                path = item(&path, index);
                value = items.get(index);
            }
            (holder, _) => {
                path = member(&path, &key);
                value = holder.and_then(|holder| holder.get(&key));
            }
        }
    }
    path
}

/// A segment of a JSON Pointer as the key it stands for.
fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}
