//! Where the database is, without its password.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio_postgres::Config;

use crate::error::{Error, Result};
use crate::types::units::{Secret, SecretText};

/// The address of a database: written out, without a password, or where it stands.
///
/// ```
/// use tierstack::backends::postgres::Url;
/// use tierstack::units::Secret;
///
/// let plain: Url = "postgres://app@db/orders".into();
/// assert_eq!(format!("{plain:?}"), r#"Plain("postgres://app@db/orders")"#);
/// let hidden: Url = Secret::Env("DATABASE_URL".into()).into();
/// assert!(matches!(hidden, Url::Secret(_)));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Url {
    /// The address itself. One that holds a password is refused.
    Plain(String),
    /// Where the address stands, which may hold a password.
    Secret(Secret),
}

impl Url {
    /// Refuses an address that is none, or that holds a password where it can be read.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Secret(_) => Ok(()),
            Self::Plain(text) => match parse(text)?.get_password() {
                None => Ok(()),
                Some(_) => Err(Error::config(
                    "`url` holds a password, which does not stand in a config; leave it out and say where it is with `password: { env: NAME }`, or give the whole `url` as `{ env: NAME }`",
                )),
            },
        }
    }

    /// What the client makes of the address and the password.
    pub(super) fn read(&self, password: Option<&Secret>) -> Result<Config> {
        self.check()?;
        let mut config = match self {
            Self::Plain(text) => parse(text)?,
            Self::Secret(secret) => {
                let text: SecretText = secret.read()?;
                parse(text.expose())?
            }
        };
        if let Some(secret) = password {
            if config.get_password().is_some() {
                return Err(Error::config(
                    "`url` and `password` both hold a password; leave one of them out",
                ));
            }
            config.password(secret.read()?.expose());
        }
        Ok(config)
    }
}

fn parse(text: &str) -> Result<Config> {
    // What the parser says may quote the text, so it is not passed on.
    let config: Config = text.parse().map_err(|_| {
        Error::config(
            "`url` is not the address of a database; write postgres://user@host:5432/database, with `sslmode` as `disable` or `require` where it is given (`require` checks the certificate)",
        )
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::config("`url` names no host; write postgres://user@host:5432/database"));
    }
    Ok(config)
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

/// Prints no password, also of an address that is going to be refused.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) if self.check().is_ok() => {
                f.debug_tuple("Plain").field(text).finish()
            }
            Self::Plain(_) => f.write_str("Plain(<redacted>)"),
            Self::Secret(secret) => f.debug_tuple("Secret").field(secret).finish(),
        }
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) if self.check().is_ok() => serializer.serialize_str(text),
            Self::Plain(_) => serializer.serialize_str("<redacted>"),
            Self::Secret(secret) => secret.serialize(serializer),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Place(Secret),
}

/// By hand, as the derived one might quote what it does not understand.
impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Form::deserialize(deserializer) {
            Ok(Form::Text(text)) => Ok(Self::Plain(text)),
            Ok(Form::Place(secret)) => Ok(Self::Secret(secret)),
            Err(_) => Err(D::Error::custom(
                "an address is a text such as postgres://user@host/database, or where it stands: { env: NAME } or { file: PATH }",
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
        schemars::json_schema!({
            "anyOf": [
                { "type": "string", "examples": ["postgres://app@db.example.com/orders"] },
                secret,
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_address_is_refused_and_never_printed() {
        for text in ["postgres://app:hunter2@db/orders", "host=db password=hunter2 user=app"] {
            let url = Url::from(text);
            let error = url.check().unwrap_err();
            assert!(error.message().contains("password: { env: NAME }"), "{error}");
            let printed = format!("{error:?} {url:?} {}", serde_json::to_string(&url).unwrap());
            assert!(!printed.contains("hunter2"), "{printed}");
        }
        let error = Url::from("postgres://app:hunter2@db/orders?sslmode=verify-full").check();
        let error = error.unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(error.message().contains("sslmode"), "{error}");
    }

    #[test]
    fn an_address_needs_a_host() {
        assert!(Url::from("user=app").check().is_err());
        assert!(Url::from("nonsense").check().is_err());
        Url::from("postgres://app@one,two:5433/orders").check().unwrap();
        Url::from("host=/run/postgresql user=app").check().unwrap();
    }

    #[test]
    fn it_is_read_from_a_config() {
        let url: Url = serde_json::from_str(r#""postgres://app@db/orders""#).unwrap();
        assert_eq!(url, "postgres://app@db/orders".into());
        let url: Url = serde_json::from_str(r#"{"env": "DATABASE_URL"}"#).unwrap();
        assert_eq!(url, Secret::Env("DATABASE_URL".into()).into());
        let error = serde_json::from_str::<Url>(r#"{"hunter2": 1}"#).unwrap_err().to_string();
        assert!(error.contains("{ env: NAME }") && !error.contains("hunter2"), "{error}");
    }
}
