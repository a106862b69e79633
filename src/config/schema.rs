//! The JSON Schema of a config file.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::registry::{Registry, Schemas};
use super::serve::ServeConfig;

/// The pattern of the name of a store or a shared backend.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$";

/// The JSON Schema (draft 2020-12) of a config file whose layers and backends are those of the
/// registry. `tierstack schema` prints it; editors check and complete a config with it.
///
/// It decides what can be decided from one place of the file and the type of a setting. The order of layers,
/// ranges, settings that need another one, schedules, addresses, and whether a secret is there is for [`Stack::check`](crate::Stack::check) and
/// [`Stack::open`](crate::Stack::open).
///
/// ```
/// use tierstack::config::{Registry, schema};
///
/// let schema = schema(&Registry::standard());
/// assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
/// ```
#[must_use]
pub fn schema(registry: &Registry) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let layers =
        choices(&mut generator, registry.layers().map(|(name, entry)| (name, entry.schema)));
    let backends =
        choices(&mut generator, registry.backends().map(|(name, entry)| (name, entry.schema)));
    let shared = shared(&mut generator, registry);
    let serve = generator.subschema_for::<ServeConfig>();
    let mut definitions = generator.take_definitions(true);
    definitions.insert("layer".to_owned(), layers);
    definitions.insert("backend".to_owned(), backends);
    definitions.insert("shared".to_owned(), shared);
    definitions.insert("store".to_owned(), store());
    let name = json!({ "type": "string", "pattern": NAME });
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tierstack",
        "description": "Stores, the layers in front of each, and telemetry.",
        "type": "object",
        "required": ["stores"],
        "additionalProperties": false,
        "properties": {
            "$schema": {
                "type": "string",
                "description": "Where this schema is, for editors.",
            },
            "backends": {
                "type": "object",
                "description": "Backends that several stores use, by name.",
                "propertyNames": name,
                "additionalProperties": { "$ref": "#/$defs/backend" },
            },
            "stores": {
                "type": "object",
                "description": "The stores by name.",
                "minProperties": 1,
                "propertyNames": name,
                "additionalProperties": { "$ref": "#/$defs/store" },
            },
            "default": {
                "type": "string",
                "description": "The store that is meant when none is named. Needed with several stores.",
            },
            "telemetry": {
                "type": "object",
                "description": "Where metrics are served.",
                "required": ["listen"],
                "additionalProperties": false,
                "properties": {
                    "listen": {
                        "type": "string",
                        "description": "The address and port on which Prometheus text is served.",
                        "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$",
                        "examples": ["127.0.0.1:9187"],
                    },
                    "anyone": {
                        "type": "boolean",
                        "description": "Whether an address that other machines reach may be listened on: any client there can read the metrics.",
                        "default": false,
                    },
                },
            },
            "control": {
                "type": "string",
                "description": "The path of the Unix domain socket on which the running process can be reached.",
                "minLength": 1,
                "examples": ["./orders.sock"],
            },
            "serve": serve,
        },
        "if": { "properties": { "stores": { "minProperties": 2 } } },
        "then": { "required": ["default"] },
        "$defs": definitions,
    });
    bound(&mut schema);
    schema
}

/// Says of a type of 32 bits what its derived schema leaves out, and the loader knows.
fn bound(schema: &mut Value) {
    match schema {
        Value::Object(parts) => {
            if parts.get("format").is_some_and(|format| format == "uint32") {
                parts.entry("maximum").or_insert(json!(u32::MAX));
            }
            parts.values_mut().for_each(bound);
        }
        Value::Array(parts) => parts.iter_mut().for_each(bound),
        _ => {}
    }
}

fn store() -> Value {
    json!({
        "type": "object",
        "description": "Layers, outermost first, over a backend.",
        "required": ["backend"],
        "additionalProperties": false,
        "properties": {
            "layers": {
                "type": "array",
                "description": "The layers, outermost first: a read enters at the top. \
                    From the outside in: cache, compress, encrypt, expire, backup.",
                "items": { "$ref": "#/$defs/layer" },
            },
            "backend": {
                "anyOf": [{ "$ref": "#/$defs/backend" }, { "$ref": "#/$defs/shared" }],
            },
            "sealed": {
                "description": "`required`: the stack is refused if values rest unsealed anywhere.",
                "const": "required",
            },
        },
    })
}

/// One of `backends`, and which part of it is this store's. The settings are those that a store may have for itself,
/// of any backend.
fn shared(generator: &mut SchemaGenerator, registry: &Registry) -> Value {
    let mut properties = serde_json::Map::new();
    properties.insert(
        "shared".to_owned(),
        json!({
            "type": "string",
            "description": "The name of one of `backends`.",
            "pattern": NAME,
        }),
    );
    properties.insert(
        "prefix".to_owned(),
        json!({
            "type": "string",
            "description": "What every key of this store begins with in the shared backend. \
                No prefix of a store begins with that of another one over the same part.",
            "minLength": 1,
        }),
    );
    for (_, entry) in registry.backends() {
        let settings = (entry.schema.of)(generator).to_value();
        let definition =
            definition_of(&settings).and_then(|name| generator.definitions().get(name));
        let known = definition.unwrap_or(&settings).get("properties");
        for own in entry.own {
            let Some(described) = known.and_then(|known| known.get(*own)).cloned() else {
                continue;
            };
            let all = properties.entry(*own).or_insert_with(|| json!({ "anyOf": [] }));
            if let Some(Value::Array(forms)) = all.get_mut("anyOf") {
                forms.push(described);
            }
        }
    }
    json!({
        "type": "object",
        "title": "shared",
        "description": "One of `backends`, and which part of it is this store's.",
        "required": ["shared"],
        "additionalProperties": false,
        "properties": properties,
    })
}

/// The name under which the settings are defined.
fn definition_of(settings: &Value) -> Option<&str> {
    settings.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// One of the names: bare, where no setting is needed, or with its settings.
fn choices(
    generator: &mut SchemaGenerator,
    parts: impl Iterator<Item = (&'static str, Schemas)>,
) -> Value {
    let mut bare = Vec::new();
    let mut forms = Vec::new();
    for (name, schemas) in parts {
        let mut settings = (schemas.of)(generator).to_value();
        let described = describe(generator, &mut settings, (schemas.open)());
        if (schemas.bare)() {
            bare.push(name);
            settings = json!({ "anyOf": [settings, { "type": "null" }] });
        }
        forms.push(json!({
            "type": "object",
            "title": name,
            "description": described,
            "required": [name],
            "additionalProperties": false,
            "properties": { name: settings },
        }));
    }
    if !bare.is_empty() {
        forms.insert(0, json!({ "type": "string", "enum": bare }));
    }
    // An empty `oneOf` is not a schema; nothing is taken.
    if forms.is_empty() { json!(false) } else { json!({ "oneOf": forms }) }
}

/// The description of settings; and says in the schema of those that are open for any name what the
/// registry does about it: it refuses the unknown ones.
fn describe(generator: &mut SchemaGenerator, settings: &mut Value, open: bool) -> String {
    let definition = definition_of(settings).map(str::to_owned);
    let target = match &definition {
        Some(name) => generator.definitions_mut().get_mut(name),
        None => Some(settings),
    };
    let Some(target) = target.and_then(Value::as_object_mut) else { return String::new() };
    if open {
        target.insert("additionalProperties".to_owned(), json!(false));
    }
    target.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}
