//! A JSON object whose fields are columns of a row.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::{Error, Result};

/// A column that is a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    /// Whether it cannot be null.
    pub(crate) not_null: bool,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The fields of the object of a row, in the order of its columns; `None` is null.
///
/// # Errors
/// `InvalidInput`: it is no object with each of them once and nothing else. The names in an object are of the value, so no
/// message has them.
pub(crate) fn fields<'de, T: Deserialize<'de>>(
    value: &'de [u8],
    columns: &[Field<'_>],
) -> Result<Vec<Option<T>>> {
    let list = || {
        let names: Vec<_> = columns.iter().map(|column| quoted(column.name)).collect();
        names.join(", ")
    };
    let Ok(Object(given)) = serde_json::from_slice::<Object<T>>(value) else {
        return Err(Error::invalid(format!(
            "the value must be a JSON object with the fields {}: the columns of the row",
            list()
        )));
    };
    let mut found: Vec<Option<Option<T>>> = columns.iter().map(|_| None).collect();
    for (name, value) in given {
        let place = columns.iter().position(|column| column.name == name);
        let Some(place) = place.and_then(|at| found.get_mut(at)) else {
            return Err(Error::invalid(format!(
                "the object has a field that is no column of the value; its fields are {}",
                list()
            )));
        };
        if place.replace(value).is_some() {
            // The name is that of a column.
            return Err(Error::invalid(format!(
                "the object has the field {} twice",
                quoted(&name)
            )));
        }
    }
    let checked = columns.iter().zip(found).map(|(column, value)| {
        let name = quoted(column.name);
        match value {
            None => Err(Error::invalid(format!(
                "the object lacks the field {name}; a put writes all of {}, null where there is nothing",
                list()
            ))),
            Some(None) if column.not_null => Err(Error::invalid(format!(
                "the field {name} is null, but its column is NOT NULL"
            ))),
            Some(value) => Ok(value),
        }
    });
    checked.collect()
}

/// The fields of a JSON object in the order in which they are.
struct Object<T>(Vec<(String, Option<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<T>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        from.deserialize_map(Fields(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn an_object_has_the_fields_of_the_row() {
        let row =
            [Field { name: "name", not_null: true }, Field { name: "email", not_null: false }];
        let check = |value: &str| {
            fields::<IgnoredAny>(value.as_bytes(), &row)
                .map(|found| found.iter().map(Option::is_some).collect::<Vec<_>>())
        };
        let found = check(r#"{"email": null, "name": {"of": [1]}}"#).unwrap();
        assert_eq!(found, [true, false]);
        for (value, says) in [
            (r#"{"name": "Ada"}"#, "lacks the field \"email\""),
            (r#"{"name": null, "email": "a"}"#, "\"name\" is null"),
            (r#"{"name": "Ada", "email": "a", "emial": 1}"#, "no column of the value"),
            (r#"{"name": "Ada", "email": "a", "name": "Bo"}"#, "\"name\" twice"),
            (r#"{"name": "Ada", "email": null, "email": "a"}"#, "\"email\" twice"),
            ("[1]", "must be a JSON object"),
            ("{", "must be a JSON object"),
            (r#"{"name": "Ada", "email": "a"} x"#, "must be a JSON object"),
        ] {
            let refused = check(value).unwrap_err();
            assert!(refused.message().contains(says), "{refused}");
        }
    }
}
