//! Settings by which a part may open: the likely ones first.

use tierstack::survey::{Chosen, Column, Part};

use super::target::quoted;

/// Why there is nothing to try.
pub(super) const NO_KEY: &str = "it has no primary key, or no other column, so there is nothing by which an entry could be found";

const VALUES: [&str; 11] = [
    "value",
    "val",
    "data",
    "body",
    "payload",
    "content",
    "json",
    "doc",
    "document",
    "session_data",
    "blob",
];
const DEADLINES: [&str; 9] = [
    "expires",
    "expires_at",
    "expire",
    "expire_date",
    "expiry",
    "expiration",
    "ends_at",
    "valid_until",
    "until",
];

/// Each is the settings next to those of the place.
pub(super) fn candidates(backend: &str, part: &Part) -> Vec<Vec<Chosen>> {
    if !matches!(backend, "postgres" | "sqlite") {
        return vec![part.settings.clone()];
    }
    let keys: Vec<&Column> = match part.columns.iter().any(|column| column.key) {
        true => part.columns.iter().filter(|column| column.key).collect(),
        // Of a view no key is known: it is mostly in front.
        false if part.kind.contains("view") || part.kind.contains("foreign") => {
            part.columns.first().into_iter().collect()
        }
        false => Vec::new(),
    };
    let Some(value) = value(part, &keys).filter(|_| !keys.is_empty()) else { return Vec::new() };
    let mut all = Vec::new();
    for deadline in deadlines(part, &keys, value) {
        for how in key_forms(backend, &keys) {
            let settings = columns(backend, part, &keys, value, deadline.as_ref(), how);
            if !settings.iter().any(|setting| setting.name == "read_only") {
                all.push(settings.clone());
            }
            let mut reading = settings;
            if !reading.iter().any(|setting| setting.name == "read_only") {
                let why = "it does not open to be written as it is; leave this out to see why";
                reading.push(Chosen::new("read_only", "true", why));
            }
            all.push(reading);
        }
    }
    // To write comes before to read.
    all.sort_by_key(|settings| settings.iter().any(|setting| setting.name == "read_only"));
    all
}

/// The column that holds the value.
fn value<'a>(part: &'a Part, keys: &[&Column]) -> Option<&'a Column> {
    let free =
        || part.columns.iter().filter(|column| !keys.iter().any(|key| key.name == column.name));
    let named =
        VALUES.iter().find_map(|name| free().find(|column| column.name.eq_ignore_ascii_case(name)));
    let of = |kinds: &[&str]| {
        free().find(|column| {
            let kind = column.kind.to_lowercase();
            kinds.iter().any(|other| kind.starts_with(other))
        })
    };
    named
        .or_else(|| of(&["bytea", "blob", "json"]))
        .or_else(|| of(&["text", "character varying", "varchar"]))
        .or_else(|| free().next())
}

/// A column of deadlines and its unit, the likely one first; without one at the end.
fn deadlines(
    part: &Part,
    keys: &[&Column],
    value: &Column,
) -> Vec<Option<(String, Option<&'static str>)>> {
    let is_free = |column: &&Column| {
        column.name != value.name && !keys.iter().any(|key| key.name == column.name)
    };
    let named = DEADLINES.iter().find_map(|name| {
        part.columns.iter().filter(is_free).find(|column| column.name.eq_ignore_ascii_case(name))
    });
    let mut all = Vec::new();
    if let Some(column) = named {
        all.push(Some((column.name.clone(), None)));
        all.push(Some((column.name.clone(), Some("seconds"))));
    }
    all.push(None);
    all
}

/// How the bytes of a key stand for the columns.
fn key_forms(backend: &str, keys: &[&Column]) -> Vec<Vec<Chosen>> {
    let kinds: Vec<String> = keys.iter().map(|key| key.kind.to_lowercase()).collect();
    let text = || Chosen::new("keys", "text", "the key as a person would type it");
    let tuple =
        || Chosen::new("keys", "tuple", "the key as a tuple, which sorts as the columns do");
    match (backend, kinds.as_slice()) {
        ("postgres", [kind]) if kind == "bytea" => vec![Vec::new()],
        ("postgres", _) => {
            let why =
                "no index has the order of keys as bytes, so entries are found by their keys alone";
            let without = Chosen::new("scans", "false", why);
            vec![vec![text()], vec![tuple()], vec![text(), without]]
        }
        (_, [kind]) if kind.contains("blob") || kind.is_empty() => {
            vec![Vec::new(), vec![Chosen::new("keys", "text", "the column holds text")]]
        }
        (_, [kind]) if ["text", "char", "clob"].iter().any(|word| kind.contains(word)) => {
            vec![vec![Chosen::new("keys", "text", "the column holds text")]]
        }
        _ => vec![vec![text()], vec![tuple()]],
    }
}

fn columns(
    backend: &str,
    part: &Part,
    keys: &[&Column],
    value: &Column,
    deadline: Option<&(String, Option<&'static str>)>,
    keys_as: Vec<Chosen>,
) -> Vec<Chosen> {
    let names: Vec<_> = keys.iter().map(|key| quoted(&key.name)).collect();
    let key = match names.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", names.join(", ")),
    };
    let mut named = vec![format!("key: {key}"), format!("value: {}", quoted(&value.name))];
    if let Some((column, unit)) = deadline {
        named.push(format!("expires: {}", quoted(column)));
        named.extend(unit.map(|unit| format!("expires_unit: {unit}")));
    }
    let is_used = |column: &Column| {
        column.name == value.name
            || deadline.is_some_and(|(name, _)| *name == column.name)
            || keys.iter().any(|key| key.name == column.name)
    };
    let others = part.columns.iter().filter(|column| !is_used(column)).count();
    let how = if keys.iter().all(|key| key.key) { "the primary key" } else { "a guess" };
    let why = match others {
        0 => format!("key: {how}"),
        1 => format!("key: {how}; the other column is left alone"),
        n => format!("key: {how}; the other {n} columns are left alone"),
    };
    let mut settings = part.settings.clone();
    settings.push(Chosen::new("columns", format!("{{ {} }}", named.join(", ")), why));
    settings.extend(keys_as);
    let kind = value.kind.to_lowercase();
    let text = ["text", "char", "json", "clob"].iter().any(|word| kind.contains(word));
    if text {
        settings.push(Chosen::new("values", "text", format!("the column is {}", value.kind)));
    }
    let required = part.columns.iter().find(|column| column.required && !is_used(column));
    let reads = settings.iter().any(|setting| setting.name == "read_only");
    if let Some(column) = required.filter(|_| backend == "sqlite" && !reads) {
        let why = format!("a new row needs the column {}, which has no default", column.name);
        settings.push(Chosen::new("read_only", "true", why));
    }
    settings
}
