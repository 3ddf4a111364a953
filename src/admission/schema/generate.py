"""Writes the JSON Schemas of the specs that the installed dstack reviews, structure only.

    python generate.py > dstack-VERSION.json

in an environment with that version of `dstack` (the bare package is enough). The output is what
`schema.rs` bundles: `{"dstack": VERSION, "kinds": {KIND: {"output": REF, "input": REF}}, "$defs": …}`.
The output form is what the server sends, the input form what it takes back; `input` is absent
where both are the same, as with pydantic 1 (dstack up to 0.20), which knows one form only.

Structure only: types, members, enums, bounds. Titles, descriptions, defaults, patterns and
formats are left out, and unions are rewritten so that an error is reported where it is:

- branches of different types become one schema with several types,
- a union with a discriminator becomes `if` the tag is this `then` that branch.
"""

import json
import sys
from importlib.metadata import version

import pydantic

from dstack._internal.core.models.fleets import FleetSpec
from dstack._internal.core.models.gateways import GatewaySpec
from dstack._internal.core.models.runs import RunSpec
from dstack._internal.core.models.volumes import VolumeSpec

KINDS = {"run": RunSpec, "fleet": FleetSpec, "volume": VolumeSpec, "gateway": GatewaySpec}
REF = "#/$defs/"

# Keywords whose value is copied. `uniqueItems` stays out: it is what makes a Python set, which takes duplicates.
PLAIN = [
    "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties",
]  # fmt: skip


def forms_v2():
    from pydantic.json_schema import GenerateJsonSchema, models_json_schema

    class Generator(GenerateJsonSchema):
        def function_before_schema(self, schema):
            before = {"before": True} if self.mode == "validation" else {}
            return {**super().function_before_schema(schema), **before}

        def model_schema(self, schema):
            result = super().model_schema(schema)
            if self.mode == "validation":
                with_hidden(result, schema["cls"].model_fields)
            return result

    modes = {"output": "serialization", "input": "validation"}
    pairs = [(model, mode) for model in KINDS.values() for mode in modes.values()]
    refs, document = models_json_schema(
        pairs, ref_template=REF + "{model}", schema_generator=Generator
    )
    definitions = document["$defs"]
    for name, schema in definitions.items():
        twin = definitions.get(name.removesuffix("-Output") + "-Input", {})
        # A model with a serializer of its own dumps members that pydantic does not know.
        if schema.get("type") == "object" and "properties" not in schema and "properties" in twin:
            definitions[name] = {key: value for key, value in twin.items() if key != "required"}
    # CPUSpec also takes the bare range that it was up to 0.20, which its schema does not say.
    resources = definitions["ResourcesSpec-Input"]["properties"]
    count = definitions["CPUSpec-Input"]["properties"]["count"]
    resources["cpu"] = {"anyOf": [resources["cpu"], count]}
    kinds = {
        kind: {form: refs[model, mode]["$ref"] for form, mode in modes.items()}
        for kind, model in KINDS.items()
    }
    return kinds, definitions


def forms_v1():
    import pydantic.schema

    field_type_schema = pydantic.schema.field_type_schema

    # pydantic 1 does not say that an Optional may be null.
    def with_null(field, **arguments):
        schema, definitions, nested = field_type_schema(field, **arguments)
        if field.pre_validators:
            schema = {**schema, "before": True}
        each = [check for check in (field.class_validators or {}).values() if check.each_item]
        if any(check.pre for check in each) and "items" in schema:
            schema = {**schema, "items": {**schema["items"], "before": True}}
        if parses(field.type_):
            schema = {"anyOf": [schema, {"type": "number"}, {"type": "string"}]}
        if field.allow_none:
            schema = {**schema, "nullable": True}
        return schema, definitions, nested

    model_process_schema = pydantic.schema.model_process_schema

    def with_leniency(model, **arguments):
        schema, definitions, nested = model_process_schema(model, **arguments)
        if issubclass(model, pydantic.BaseModel):
            with_hidden(schema, model.__fields__)
            # A root validator that runs first may fill in what is missing.
            if model.__pre_root_validators__:
                schema.pop("required", None)
        return schema, definitions, nested

    pydantic.schema.field_type_schema = with_null
    pydantic.schema.model_process_schema = with_leniency
    # The request half of each model is the one that refuses unknown fields.
    models = {kind: model.__request__ for kind, model in KINDS.items()}
    document = pydantic.schema.schema(list(models.values()), ref_template=REF + "{model}")
    kinds = {kind: {"output": REF + model.__name__} for kind, model in models.items()}
    return kinds, document["definitions"]


def with_hidden(schema, fields):
    """Adds the fields that dstack takes but keeps out of its schema: deprecated and internal ones."""
    if "properties" in schema:
        for name in fields:
            schema["properties"].setdefault(name, {})


def parses(kind):
    """Whether a type is one of dstack's own that pydantic 1 lets parse strings and numbers, such as Memory."""
    return isinstance(kind, type) and any(
        "__get_validators__" in vars(base)
        for base in kind.__mro__
        if base.__module__.startswith("dstack.")
    )


def structure(schema):
    """The same schema with nothing but structure, unions rewritten."""
    if schema is True or schema is False:
        return schema
    if schema.get("before"):
        # A validator that runs first may know other spellings of an enum's values or of an object.
        rest = structure({key: value for key, value in schema.items() if key != "before"})
        named = any("$ref" in branch for branch in rest.get("anyOf", [rest]))
        return union([rest, {"type": "string"}]) if named else rest
    if schema.get("nullable"):
        rest = {key: value for key, value in schema.items() if key != "nullable"}
        return union([structure(rest), {"type": "null"}])
    if "discriminator" in schema:
        return tagged(schema["discriminator"])
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return union([structure(branch) for branch in schema[keyword]])
    if "allOf" in schema:
        assert len(schema["allOf"]) == 1, schema
        return structure(schema["allOf"][0])
    if "const" in schema:
        return {"enum": [schema["const"]]}
    if "enum" in schema:
        return {"enum": schema["enum"]}
    result = {key: schema[key] for key in PLAIN if key in schema}
    if "type" in schema:
        result["type"] = schema["type"]
    if "properties" in schema:
        result["properties"] = {
            name: structure(member) for name, member in schema["properties"].items()
        }
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), (dict, bool)):
            result[keyword] = structure(schema[keyword])
    if "prefixItems" in schema or isinstance(schema.get("items"), list):
        raise ValueError(f"tuples are not known: {schema}")
    return result


def tagged(discriminator):
    """A union whose branch is named by one of its members."""
    tag, mapping = discriminator["propertyName"], discriminator["mapping"]
    return {
        "type": "object",
        "required": [tag],
        "properties": {tag: {"enum": list(mapping)}},
        "allOf": [
            {
                "if": {
                    "type": "object",
                    "required": [tag],
                    "properties": {tag: {"const": value}},
                },
                "then": {"$ref": ref},
            }
            for value, ref in mapping.items()
        ],
    }


def union(branches):
    """A value that fits any of the branches, in as few branches as can be."""
    flat = []
    for branch in branches:
        flat += branch["anyOf"] if list(branch) == ["anyOf"] else [branch]
    free = {kind for branch in flat if list(branch) == ["type"] for kind in types(branch)}
    values, merged, others = [], {}, []
    for branch in flat:
        if "enum" in branch:
            values += [value for value in branch["enum"] if NAMES[type(value)] not in free]
        elif list(branch) == ["type"]:
            continue
        elif mergeable(branch, merged, free):
            merged = {**merged, **branch, "type": types(merged) + types(branch)}
        elif branch not in others:
            others.append(branch)
    if values and "null" in free:
        values.append(None)
        free.remove("null")
    if "number" in free:
        free.discard("integer")
    if values:
        others.append({"enum": list(dict.fromkeys(values))})
    if free or merged:
        names = types(merged) + sorted(free, key=lambda name: (name == "null", name))
        others.append({**merged, "type": names[0] if len(names) == 1 else names})
    return others[0] if len(others) == 1 else {"anyOf": others}


NAMES = {str: "string", bool: "boolean", int: "integer", type(None): "null"}


def types(schema):
    """The types that a schema names itself."""
    named = schema.get("type", [])
    return [named] if isinstance(named, str) else named


def mergeable(branch, merged, free):
    """Whether a branch can share one schema with others: no type is in both, no keyword meets a type it was not made for."""
    taken = {*types(merged), *free}
    if {"integer", "number"} & {*types(branch)} and {"integer", "number"} & taken:
        return False
    if not types(branch) or {*types(branch)} & taken:
        return False
    return not ({*branch} - {"type"}) & {*merged}


def references(schema):
    """Every `$ref` in a schema, as the name of its definition."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(REF)
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def renamed(schema, names):
    """The same schema with its references following `names`."""
    if isinstance(schema, dict):
        return {
            key: REF + names[value.removeprefix(REF)]
            if key == "$ref" and isinstance(value, str)
            else renamed(value, names)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [renamed(value, names) for value in schema]
    return schema


def without_twins(kinds, definitions):
    """Keeps one of several definitions that say the same."""
    while True:
        first, names = {}, {}
        for name in sorted(definitions):
            text = json.dumps(definitions[name], sort_keys=True)
            names[name] = first.setdefault(text, name)
        if len(first) == len(definitions):
            return kinds, definitions
        kept = sorted(first.values())
        definitions = {name: renamed(definitions[name], names) for name in kept}
        for forms in kinds.values():
            for form, ref in forms.items():
                forms[form] = REF + names[ref.removeprefix(REF)]


def reachable(kinds, definitions):
    """The definitions that some kind refers to, in alphabetical order."""
    seen = set()
    waiting = [ref.removeprefix(REF) for forms in kinds.values() for ref in forms.values()]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += references(definitions[name])
    return {name: definitions[name] for name in sorted(seen)}


def main():
    kinds, definitions = forms_v1() if pydantic.VERSION.startswith("1.") else forms_v2()
    definitions = {name: structure(schema) for name, schema in definitions.items()}
    kinds, definitions = without_twins(kinds, definitions)
    definitions = reachable(kinds, definitions)
    for forms in kinds.values():
        if forms.get("input") == forms["output"]:
            del forms["input"]

    def compact(value):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    # One definition a line, so that a change of dstack's models reads as a change of lines.
    lines = [f"{compact(name)}:{compact(schema)}" for name, schema in definitions.items()]
    sys.stdout.write(
        f'{{"dstack":{compact(version("dstack"))},\n"kinds":{compact(kinds)},\n'
        '"$defs":{\n' + ",\n".join(lines) + "\n}}\n"
    )


if __name__ == "__main__":
    main()
