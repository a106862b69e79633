//! Where a secret comes from, and reading it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::path::check_path;
use super::scalar::Scalar;
use super::secret_file;
use super::secret_text::SecretText;

/// Where a secret comes from: `{ env: NAME }` or `{ file: PATH }`. Never the secret itself.
///
/// ```
/// use tierstack::units::Secret;
///
/// let secret = Secret::File("keys.txt".into());
/// assert!(matches!(secret, Secret::File(_)));
/// assert_eq!(format!("{:?}", tierstack::units::SecretText::from("hunter2".to_owned())), "<redacted>");
/// ```
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// The value of an environment variable.
    Env(#[cfg_attr(feature = "config", schemars(regex(pattern = r"^[A-Za-z0-9_.-]+$")))] String),
    /// The content of a file, without white space at its ends: UTF-8, or UTF-16 with a byte-order mark.
    File(std::path::PathBuf),
}

impl Secret {
    /// Reads the secret. A file may never answer, such as a pipe that nobody writes into: dropping the future gives
    /// it up.
    ///
    /// # Errors
    /// `Config` that names the variable or the file, and never its content.
    pub async fn load(&self) -> crate::error::Result<SecretText> {
        let secret = self.clone();
        match self {
            Self::Env(_) => self.read(),
            Self::File(_) => secret_file::apart(move || secret.read()).await,
        }
    }

    /// Like [`load`](Self::load), for a thread that may block.
    ///
    /// # Errors
    /// Like [`load`](Self::load).
    pub fn read(&self) -> crate::error::Result<SecretText> {
        let missing = |what: String| crate::error::Error::config(what);
        self.check().map_err(|why| missing(format!("a secret: {why}")))?;
        let (name, text) = match self {
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|error| {
                    let name = printable(name);
                    missing(match error {
                        std::env::VarError::NotPresent => format!(
                            "the secret is expected in the environment variable {name}, which is not set"
                        ),
                        std::env::VarError::NotUnicode(_) => {
                            format!("the environment variable {name} is not text")
                        }
                    })
                })?;
                (printable(name), text)
            }
            Self::File(path) => return secret_file::read(path),
        };
        let text = SecretText::from(text);
        match secret_file::trimmed(text.expose()) {
            "" => Err(missing(format!(
                "the environment variable {name} is empty; it must hold the secret"
            ))),
            text => Ok(text.to_owned().into()),
        }
    }

    /// Somebody may have written the secret itself in the place of the name.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        match self {
            Self::Env(name) if !is_name(name) => Err(
                "what follows `env:` is not the name of an environment variable; write a name, such as ORDERS_SECRET"
                    .to_owned(),
            ),
            Self::Env(_) => Ok(()),
            Self::File(path) => check_path(path).map_err(|why| format!("`file` {why}")),
        }
    }
}

/// The name of a variable, where it is one by its looks. It may also be a secret that is in its place.
fn printable(name: &str) -> &str {
    let by_its_looks = name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if by_its_looks { name } else { "that `env:` names" }
}

/// Prints no secret that is in the place of a name.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) if printable(name) != name => f.write_str("Env(<redacted>)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// By hand: the derived one quotes what it does not understand, and that is where a secret is that
/// somebody wrote into the config. Nothing within is typed either, as the path of an error would quote
/// a name.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = match Form::deserialize(deserializer)? {
            Form::Map(map) => map,
            Form::Other(_) => BTreeMap::new(),
        };
        let mut entries = found.into_iter();
        let secret = match (entries.next(), entries.next()) {
            (Some((place, Scalar::Text(name))), None) if place == "env" => Self::Env(name),
            (Some((place, Scalar::Text(path))), None) if place == "file" => Self::File(path.into()),
            _ => {
                return Err(D::Error::custom(
                    "a secret must not be in the config; say where it is: { env: NAME } or { file: PATH }",
                ));
            }
        };
        secret.check().map_err(D::Error::custom)?;
        Ok(secret)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Map(BTreeMap<String, Scalar>),
    Other(serde::de::IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "config")]
    #[test]
    fn a_secret_in_the_config_is_refused_and_not_printed() {
        for text in [
            r#""hunter2""#,
            r#"{"hunter2": "hunter2"}"#,
            r#"{"env": "A", "file": "hunter2"}"#,
            r#"{"env": null}"#,
            r#"["hunter2"]"#,
            "{}",
        ] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err().to_string();
            assert!(error.contains("{ env: NAME }") && !error.contains("hunter2"), "{error}");
        }
        for (text, why) in [
            (r#"{"env": "ts1:hunter2"}"#, "not the name"),
            (r#"{"env": ""}"#, "not the name"),
            (r#"{"file": "~/keys"}"#, "begins with `~`"),
        ] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
        let secret: Secret = serde_json::from_str(r#"{"env": "KEYS"}"#).unwrap();
        assert_eq!(secret, Secret::Env("KEYS".to_owned()));
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#"{"env":"KEYS"}"#);
    }

    #[test]
    fn a_missing_secret_names_its_place() {
        let error = Secret::Env("TIERSTACK_NO_SUCH_VARIABLE".to_owned()).read().unwrap_err();
        assert!(error.to_string().contains("TIERSTACK_NO_SUCH_VARIABLE"), "{error}");
        let error = Secret::Env("hunter2".to_owned());
        let printed = format!("{error:?} {}", error.read().unwrap_err());
        assert!(!printed.contains("hunter2") && printed.contains("not set"), "{printed}");
        let error = Secret::File("no/such/file".into()).read().unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
