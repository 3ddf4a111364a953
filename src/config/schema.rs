//! The JSON Schema of the configuration file, made from its types.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::file::AdmissionConfiguration;
use crate::plugins::library;

/// The JSON Schema (2020-12) of the configuration file, for editors and for our own validation.
pub fn schema() -> Value {
    schema_of::<AdmissionConfiguration>()
}

/// The JSON Schema (2020-12) of a kind of file.
pub fn schema_of<D: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<D>();
    RecursiveTransform(without_null).transform(&mut schema);
    RecursiveTransform(bounded).transform(&mut schema);
    let mut schema = schema.to_value();
    with_policies(&mut schema);
    schema
}

/// The JSON Schema (2020-12) of what is written and never read as configuration.
pub fn schema_of_written<D: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<D>();
    RecursiveTransform(without_null).transform(&mut schema);
    schema.to_value()
}

/// Says which built-in policies there are and what stands under `with` for each.
fn with_policies(schema: &mut Value) {
    let Some(entry) = schema.pointer_mut("/$defs/PluginEntry") else {
        return;
    };
    let parameters = library::all().map(|mut policy| {
        policy.parameters["description"] = policy.summary.clone().into();
        policy.parameters["examples"] = json!([policy.example]);
        let needs_some = policy.parameters.get("required").is_some();
        let required: &[&str] = if needs_some { &["with"] } else { &[] };
        json!({
            "if": {
                "properties": {"use": {"const": policy.name, "description": policy.summary}},
                "required": ["use"],
            },
            "then": {"properties": {"with": policy.parameters}, "required": required},
        })
    });
    entry["allOf"] = parameters.collect();
    entry["properties"]["use"]["enum"] = library::names().collect();
}

/// Says how large a number may be that is read into 32 bits.
fn bounded(schema: &mut Schema) {
    let is_short = schema
        .get("format")
        .is_some_and(|format| format == "uint32");
    if is_short && schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), u32::MAX.into());
    }
}

/// Takes `null` out of what an `Option` may be: a key is given or left out, and an editor need not
/// offer a third way.
fn without_null(schema: &mut Schema) {
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    if keywords.get("default").is_some_and(Value::is_null) {
        keywords.remove("default");
    }
    if let Some(Value::Array(types)) = keywords.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            keywords.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = keywords.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let is_null = |schema: &Value| schema.get("type").is_some_and(|name| name == "null");
    if let Some(Value::Array(branches)) = keywords.get_mut("anyOf") {
        branches.retain(|branch| !is_null(branch));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            keywords.remove("anyOf");
            keywords.extend(only);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema below `schema`, with its place.
    fn each<'s>(schema: &'s Value, at: &str, visit: &mut impl FnMut(&str, &'s Value)) {
        visit(at, schema);
        match schema {
            Value::Object(members) => {
                for (key, value) in members {
                    each(value, &format!("{at}/{key}"), visit);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| each(item, at, visit)),
            _ => {}
        }
    }

    #[test]
    fn every_key_has_a_description() {
        let schema = schema();
        let mut keys = 0;
        each(&schema, "", &mut |at, schema| {
            if let (true, Value::Object(properties)) = (at.ends_with("/properties"), schema) {
                for (key, schema) in properties {
                    let description = schema.get("description").and_then(Value::as_str);
                    assert!(
                        description.is_some_and(|text| text.ends_with('.')),
                        "{at}/{key}"
                    );
                    keys += 1;
                }
            }
        });
        assert!(keys > 80, "{keys}");
    }

    #[test]
    fn unknown_keys_are_refused_everywhere_but_in_parameters() {
        let schema = schema();
        each(&schema, "", &mut |at, schema| {
            // What policies take, they say themselves.
            let parameter = at.contains("/allOf/");
            if schema.get("type").is_some_and(|name| name == "object") && !parameter {
                let open = schema.get("additionalProperties") != Some(&Value::Bool(false));
                let named_by_the_user = [
                    "/with",
                    "/labels",
                    "/headers",
                    "/headerFiles",
                    "/resourceAttributes",
                ]
                .iter()
                .any(|key| at.ends_with(key));
                assert_eq!(open, named_by_the_user, "{at}");
            }
        });
    }

    #[test]
    fn null_is_no_value_that_an_editor_offers() {
        assert!(!schema().to_string().contains("\"null\""));
    }

    #[test]
    fn each_default_and_example_fits_its_own_schema() {
        let root = schema();
        each(&root, "", &mut |at, schema| {
            let examples = schema.get("examples").and_then(Value::as_array);
            let values = examples.into_iter().flatten().chain(schema.get("default"));
            for value in values {
                let mut alone = schema.clone();
                alone["$defs"] = root["$defs"].clone();
                let validator = jsonschema::validator_for(&alone).unwrap();
                assert!(validator.is_valid(value), "{at}: {value}");
            }
        });
    }
}
