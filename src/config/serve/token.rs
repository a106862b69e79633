//! A token: its name, where it is kept, and what it is good for.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::grants::Grants;
use crate::types::units::Secret;

/// A token of a listener. The name stands for it in logs. See [`ServeConfig`](super::ServeConfig) for an example.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Token")]
#[non_exhaustive]
pub struct TokenConfig {
    /// What stands for it in logs.
    pub name: String,
    /// Where it is.
    pub secret: Secret,
    /// What it is good for, within what the listener serves. `None`: all of that.
    pub stores: Option<Grants>,
}

impl TokenConfig {
    /// A token that is good for all that the listener serves.
    pub fn new(name: impl Into<String>, secret: Secret) -> Self {
        Self { name: name.into(), secret, stores: None }
    }
}

/// A token as it is in a file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TokenConfig")]
#[schemars(extend("oneOf" = [{ "required": ["env"] }, { "required": ["file"] }]))]
struct Token {
    /// What stands for it in logs: 1 to 64 letters, digits, `_`, `-` and `.`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{1,64}$"))]
    name: String,
    /// The environment variable that holds it.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    env: Option<String>,
    /// The file that holds it.
    #[serde(default)]
    #[schemars(length(min = 1))]
    file: Option<PathBuf>,
    /// What it is good for, within what the listener serves. Left out: all of that. `{}`: metrics and health alone.
    #[serde(default)]
    stores: Option<Grants>,
}

impl JsonSchema for TokenConfig {
    fn schema_name() -> Cow<'static, str> {
        Token::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Token::json_schema(generator)
    }
}

impl TryFrom<Token> for TokenConfig {
    type Error = String;

    fn try_from(from: Token) -> Result<Self, String> {
        let Token { name, env, file, stores } = from;
        let secret = match (env, file) {
            (Some(env), None) => Secret::Env(env),
            (None, Some(file)) => Secret::File(file),
            _ => {
                return Err(
                    "a token must not be in the config; say where it is: `env: NAME` or `file: PATH`"
                        .to_owned(),
                );
            }
        };
        secret.check()?;
        Ok(Self { name, secret, stores })
    }
}
