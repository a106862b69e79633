//! Options of a service, by its own names for them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::layer::Context;
use crate::types::units::{Secret, SecretText};

/// Why settings do not go together.
pub(crate) const READS_NO_CONDITIONS: &str =
    "conditions are about writes, and with `read_only: true` there are none; leave one of them out";

/// Options of a service, by its own names for them. See [`Setting`] for an example.
pub type Options = BTreeMap<String, Setting>;

/// One option: text, a number or a boolean, or where a secret is: `{ env: NAME }`, `{ file: PATH }`.
/// An option that holds a secret must say where it is. Prints as `<redacted>` in any case.
///
/// ```
/// use tierstack::backends::ObjectConfig;
/// use tierstack::backends::object::Setting;
/// use tierstack::units::Secret;
/// use tierstack::{BackendConfig, ErrorKind};
///
/// let mut config = ObjectConfig::new("s3://acme/orders");
/// config.options.insert("region".into(), Setting::from("eu-central-1"));
/// config.options.insert("secret_access_key".into(), Secret::Env("S3_SECRET".into()).into());
/// config.profile()?;
///
/// config.options.insert("secret_access_key".into(), Setting::from("hunter2"));
/// let refused = config.profile().unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Config);
/// assert!(!format!("{refused:?} {config:?}").contains("hunter2"));
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema), schemars(untagged))]
pub enum Setting {
    /// The value.
    Text(String),
    /// A boolean.
    Switch(bool),
    /// A number.
    Number(i64),
    /// Where the value is.
    Secret(Secret),
}

impl From<&str> for Setting {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Secret> for Setting {
    fn from(secret: Secret) -> Self {
        Self::Secret(secret)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// By hand, as a derived one quotes what it does not understand.
impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Switch(bool),
            Number(i64),
            Text(String),
            Secret(Secret),
            Other(serde::de::IgnoredAny),
        }
        match Form::deserialize(deserializer)? {
            Form::Switch(switch) => Ok(Self::Switch(switch)),
            Form::Number(number) => Ok(Self::Number(number)),
            Form::Text(text) => Ok(Self::Text(text)),
            Form::Secret(secret) => Ok(Self::Secret(secret)),
            Form::Other(_) => Err(serde::de::Error::custom(
                "an option is text, a number, a boolean, or { env: NAME } or { file: PATH }",
            )),
        }
    }
}

/// Parts of the names of options that hold secrets, and whole names that hold none all the same.
const SECRETS: [&str; 9] = [
    "secret",
    "password",
    "token",
    "credential",
    "signature",
    "key",
    "sas",
    "private",
    "service_account",
];
const PUBLIC: [&str; 12] = [
    "access_key_id",
    "account_name",
    "application_key_id",
    "aws_access_key_id",
    "azure_storage_account_name",
    "bucket_key_enabled",
    "credential_scope",
    "server_side_encryption_aws_kms_key_id",
    "sse_kms_key_id",
    "key_path",
    "service_account_path",
    "tokens",
];

fn holds_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !PUBLIC.contains(&name.as_str())
        && !name.starts_with("disable_")
        && !name.starts_with("allow_")
        && SECRETS.iter().any(|part| name.contains(part))
}

/// Refuses secrets that are in the config.
pub(crate) fn check(options: &Options) -> Result<()> {
    let written = |(name, setting): &(&String, &Setting)| {
        holds_a_secret(name) && matches!(setting, Setting::Text(_) | Setting::Number(_))
    };
    match options.iter().find(written) {
        Some((name, _)) => Err(Error::config(format!(
            "`options.{name}` holds a secret, which must not be in the config; say where it is: {{ env: NAME }} or {{ file: PATH }}"
        ))),
        None => Ok(()),
    }
}

/// The values, secrets read.
pub(crate) async fn read(
    options: &Options,
    context: &Context,
) -> Result<Vec<(String, SecretText)>> {
    let mut values = Vec::new();
    for (name, setting) in options {
        let value = match setting {
            Setting::Text(text) => text.clone().into(),
            Setting::Switch(switch) => switch.to_string().into(),
            Setting::Number(number) => number.to_string().into(),
            Setting::Secret(secret) => context.secret(secret).await?,
        };
        values.push((name.clone(), value));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_the_names_of_their_options() {
        for name in [
            "secret_access_key",
            "account_key",
            "sas_token",
            "password",
            "application_key",
            "credential",
        ] {
            assert!(holds_a_secret(name), "{name}");
        }
        for name in
            ["access_key_id", "region", "endpoint", "bucket", "root", "allow_http", "username"]
        {
            assert!(!holds_a_secret(name), "{name}");
        }
    }
}
