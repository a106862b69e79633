//! Where a server is, without its password.

use std::fmt;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::secret::Secret;

/// The address of a server: written out, without a password, or where it is.
///
/// ```
/// use tierstack::units::{Secret, Url};
///
/// let plain: Url = "postgres://app@db/orders".into();
/// assert_eq!(format!("{plain:?}"), r#"Plain("postgres://app@db/orders")"#);
/// let hidden: Url = Secret::Env("REDIS_URL".into()).into();
/// assert!(matches!(hidden, Url::Secret(_)));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Url {
    /// The address itself. One that holds a password is refused.
    Plain(String),
    /// Where the address is, which may hold a password.
    Secret(Secret),
}

impl From<&str> for Url {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl From<String> for Url {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl From<Secret> for Url {
    fn from(secret: Secret) -> Self {
        Self::Secret(secret)
    }
}

/// Whether a text is not to be printed. What a password is in it, only the client of the backend knows; this
/// takes more for one, in the forms of all of them: `//user:password@`, and `password=` after a `?` or in a
/// list of words.
fn may_hold_password(text: &str) -> bool {
    let address = text.split_once("://").map_or(text, |(_, rest)| rest);
    let user = address.rsplit_once('@').map_or("", |(user, _)| user);
    let names = text.rsplit_once('=').map_or("", |(names, _)| names);
    let is_password = |name: &str| {
        let name = name.trim_end().rsplit(|c: char| c.is_whitespace() || "?&;".contains(c)).next();
        name.is_none_or(|name| name.contains('%') || name.to_ascii_lowercase().contains("pass"))
    };
    user.contains(':')
        || names.split('=').any(is_password)
        // Clients leave them out, and read what is around them as one.
        || text.contains(|c: char| c.is_control())
        // It is no address, but perhaps a password in its place.
        || !text.contains(['/', '='])
}

/// Prints no password, also of an address that is going to be refused.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) if may_hold_password(text) => f.write_str("Plain(<redacted>)"),
            Self::Plain(text) => f.debug_tuple("Plain").field(text).finish(),
            Self::Secret(secret) => f.debug_tuple("Secret").field(secret).finish(),
        }
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) if may_hold_password(text) => serializer.serialize_str("<redacted>"),
            Self::Plain(text) => serializer.serialize_str(text),
            Self::Secret(secret) => secret.serialize(serializer),
        }
    }
}

/// The last takes everything, so that what fails is only what is no value at all, such as a setting that
/// is missing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Place(Secret),
    Other(IgnoredAny),
}

/// By hand, as the derived one might quote what it does not understand.
impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self::Plain(text)),
            Form::Place(secret) => Ok(Self::Secret(secret)),
            Form::Other(_) => Err(D::Error::custom(
                "an address is a text such as scheme://user@host, or where it is: { env: NAME } or { file: PATH }",
            )),
        }
    }
}

#[cfg(feature = "config")]
impl schemars::JsonSchema for Url {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Url".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let secret = generator.subschema_for::<Secret>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, secret] })
    }
}

#[cfg(all(test, feature = "config"))]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let url = Url::from(text);
        format!("{url:?} {}", serde_json::to_string(&url).unwrap())
    }

    #[test]
    fn what_may_be_a_password_is_not_printed() {
        for text in [
            "postgres://app:hunter2@db/orders",
            "postgres://app:hunter2/with@signs@db/orders",
            "postgres://db/orders?user=app&password=hunter2",
            "host=db password = hunter2 user=app",
            "host=db PASSWORD=hunter2",
            "redis://:hunter2@db",
            "redis:app:hunter2@db",
            "unix:///run/redis?pass=hunter2",
            "unix:///run/redis?p%61ss=hunter2",
            "unix:///run/redis?pa\nss=hunter2",
            "hunter2",
        ] {
            assert!(!printed(text).contains("hunter2"), "{text}");
            assert!(printed(text).contains("<redacted>"), "{text}");
        }
    }

    #[test]
    fn what_holds_none_is_printed() {
        for text in [
            "postgres://app@one,two:5433/passports?sslmode=require",
            "host=/run/postgresql user=app dbname=passports",
            "redis://me@127.0.0.1:6379/3",
            "redis://[::1]:6379",
            "redis+unix:///run/pass/redis.sock?db=1",
        ] {
            assert_eq!(printed(text), format!("Plain({text:?}) {text:?}"));
        }
    }

    #[test]
    fn it_is_read_from_a_config() {
        let url: Url = serde_json::from_str(r#""postgres://app@db/orders""#).unwrap();
        assert_eq!(url, "postgres://app@db/orders".into());
        let url: Url = serde_json::from_str(r#"{"env": "DATABASE_URL"}"#).unwrap();
        assert_eq!(url, Secret::Env("DATABASE_URL".into()).into());
        for text in [r#"{"hunter2": 1}"#, r#"["hunter2"]"#, "12", "{}"] {
            let error = serde_json::from_str::<Url>(text).unwrap_err().to_string();
            assert!(error.contains("{ env: NAME }") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn one_that_is_missing_is_missing() {
        #[derive(Debug, Deserialize)]
        struct Settings {
            #[expect(dead_code, reason = "it is never there")]
            url: Url,
        }
        let error = serde_json::from_str::<Settings>("{}").unwrap_err().to_string();
        assert!(error.starts_with("missing field `url`"), "{error}");
    }
}
