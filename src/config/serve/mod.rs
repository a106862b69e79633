//! The section `serve`: where stores are served, which of them, and to what callers.
//!
//! It is read with the rest of the file, also by a program that serves nothing: a listener that would give data to
//! other machines without a token, or in plain text, is refused wherever the file is read.

mod check;
mod grants;
mod token;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub use self::grants::{Grants, Right};
pub use self::token::TokenConfig;
use super::setting::{address, path};
use crate::types::units::{ByteSize, Span};

/// How the stores of a config are served. A file has a list of listeners, or settings with the list among them.
///
/// ```
/// use tierstack::config::{Config, Format, Right};
///
/// let text = "
/// stores: { orders: { backend: memory } }
/// serve:
///   - listen: 127.0.0.1:9187
///     stores: { orders: read }
/// ";
/// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
/// let listener = &config.serve.unwrap().listeners[0];
/// assert_eq!(listener.stores.right("orders"), Some(Right::Read));
///
/// let listeners = "{ drain: 10s, listeners: [ { listen: 127.0.0.1:9187, stores: write } ] }";
/// let text = format!("{{ stores: {{ orders: {{ backend: memory }} }}, serve: {listeners} }}");
/// assert!(Config::parse(&text, Format::Yaml, "tierstack.yaml")?.serve.is_some());
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServeConfig {
    /// Where is listened. At least one.
    pub listeners: Vec<ListenerConfig>,
    /// How long requests under way may go on once the process is to end.
    pub drain: Span,
    /// What is logged: this level and those before it. The variable `RUST_LOG` overrides it.
    pub log: LogLevel,
}

/// Settings of the section, where it is more than a list of listeners.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServeSettings {
    /// Where is listened. At least one.
    #[schemars(length(min = 1))]
    pub listeners: Vec<ListenerConfig>,
    /// How long requests under way may go on once the process is to end.
    #[serde(default = "default_drain")]
    pub drain: Span,
    /// What is logged: this level and those before it. The variable `RUST_LOG` overrides it.
    #[serde(default)]
    pub log: LogLevel,
}

#[derive(JsonSchema)]
#[schemars(untagged, rename = "ServeConfig")]
#[expect(dead_code, reason = "the two forms, for the schema")]
enum ServeForms {
    /// The listeners.
    Listeners(#[schemars(length(min = 1))] Vec<ListenerConfig>),
    /// The listeners, with settings for all of them.
    Settings(ServeSettings),
}

impl JsonSchema for ServeConfig {
    fn schema_name() -> Cow<'static, str> {
        ServeForms::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ServeForms::json_schema(generator)
    }
}

/// By hand: what is derived for an untagged enum says nothing about what is wrong.
impl<'de> Deserialize<'de> for ServeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ServeVisitor)
    }
}

struct ServeVisitor;

impl<'de> Visitor<'de> for ServeVisitor {
    type Value = ServeConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a list of listeners such as `[{ listen: 127.0.0.1:9187, stores: read }]`, or `{ listeners: [...] }` with settings for all of them",
        )
    }

    fn visit_seq<A: SeqAccess<'de>>(self, listeners: A) -> Result<ServeConfig, A::Error> {
        let listeners = Vec::deserialize(SeqAccessDeserializer::new(listeners))?;
        Ok(ServeConfig { listeners, drain: default_drain(), log: LogLevel::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServeConfig, A::Error> {
        let settings = ServeSettings::deserialize(MapAccessDeserializer::new(map))?;
        let ServeSettings { listeners, drain, log } = settings;
        Ok(ServeConfig { listeners, drain, log })
    }
}

/// A level of the log. See [`ServeConfig`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What is to be seen to.
    #[default]
    Warn,
    /// What begins and ends.
    Info,
    /// Each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// One address, and what is served there. See [`ServeConfig`] for an example.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Listener")]
#[non_exhaustive]
pub struct ListenerConfig {
    /// The address or the socket to listen on.
    pub place: Listen,
    /// The stores that are served here, and the most that a caller may do with each.
    pub stores: Grants,
    /// What callers prove themselves with. Without any, every caller may do what `stores` says.
    pub tokens: Vec<TokenConfig>,
    /// The certificate. Without one, bytes cross the network as they are.
    pub tls: Option<TlsConfig>,
    /// Whether tokens and values may cross a network without `tls`.
    pub plain_text: bool,
    /// What a caller may use up.
    pub limits: LimitsConfig,
}

/// Where is listened. See [`ServeConfig`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listen {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix {
        /// Where its file is.
        path: PathBuf,
        /// The mode of its file.
        mode: u32,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// A certificate and its key, in PEM. Both are read again when they change. See [`ServeConfig`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The file of the certificate, followed by those between it and the authority.
    #[serde(deserialize_with = "path")]
    #[schemars(length(min = 1))]
    pub cert: PathBuf,
    /// The file of its private key.
    #[serde(deserialize_with = "path")]
    #[schemars(length(min = 1))]
    pub key: PathBuf,
}

/// What the callers of a listener may use up. See [`ServeConfig`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Connections at a time, from 1 to 100,000. More are turned away.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: u32,
    /// The largest body of a request.
    pub body: ByteSize,
    /// The bodies of all requests at a time, and those of all answers that are not sent yet; there is always room for one of
    /// the largest.
    pub bodies: ByteSize,
    /// How long a connection without a request stays open, from 1s to 1h.
    pub idle: Span,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 1024,
            body: ByteSize(64 << 20),
            bodies: ByteSize(256 << 20),
            idle: Span(Duration::from_secs(60)),
        }
    }
}

impl LimitsConfig {
    /// What the bodies of all requests may hold, and those of all answers.
    #[cfg(feature = "serve")]
    pub(crate) fn of_bodies(&self) -> u64 {
        self.bodies.0.max(self.body.0)
    }
}

fn spoken() -> bool {
    true
}

fn default_drain() -> Span {
    Span(Duration::from_secs(30))
}

impl ServeConfig {
    /// One listener, at that address, where every store may be read and written.
    ///
    /// ```
    /// use tierstack::config::{Grants, Right, ServeConfig};
    ///
    /// let config = ServeConfig::at("127.0.0.1:9187".parse().unwrap());
    /// assert_eq!(config.listeners[0].stores, Grants::Every(Right::Write));
    /// ```
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self {
            listeners: vec![ListenerConfig::at(Listen::Tcp(address))],
            drain: default_drain(),
            log: LogLevel::default(),
        }
    }
}

impl ListenerConfig {
    /// Every store for reading and writing, without tokens and TLS, as only this machine can reach.
    #[must_use]
    pub fn at(place: Listen) -> Self {
        Self {
            place,
            stores: Grants::Every(Right::Write),
            tokens: Vec::new(),
            tls: None,
            plain_text: false,
            limits: LimitsConfig::default(),
        }
    }
}

/// A listener as it is in a file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ListenerConfig")]
#[schemars(extend("oneOf" = [{ "required": ["listen"] }, { "required": ["unix"] }]))]
struct Listener {
    /// The address and port, such as `127.0.0.1:9187`. One that other machines reach needs `tokens`, and `tls` or
    /// `plain_text: true`.
    #[serde(default, deserialize_with = "some_address")]
    #[schemars(with = "String", regex(pattern = r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$"))]
    listen: Option<SocketAddr>,
    /// The path of a Unix domain socket, in place of `listen`.
    #[serde(default, deserialize_with = "some_path")]
    #[schemars(with = "String", length(min = 1))]
    unix: Option<PathBuf>,
    /// The mode of that socket, in octal digits: `"0600"`, the default, is for the user of the process, `"0660"` for the
    /// group as well.
    #[serde(default)]
    #[schemars(regex(pattern = "^0?[0-7]{3}$"))]
    mode: Option<String>,
    /// Whether HTTP is spoken here: the one protocol that there is, so `true` may be left out.
    #[serde(default = "spoken")]
    #[schemars(extend("const" = true))]
    http: bool,
    /// The stores that are served here, and the most that a caller may do with each: `read`, `write` (which includes it) or
    /// `admin` (which includes both). A right alone is for every store.
    stores: Grants,
    /// What callers prove themselves with, as `Authorization: Bearer`. Without any, every caller may do what `stores` says.
    #[serde(default)]
    tokens: Vec<TokenConfig>,
    /// The certificate. Without one, bytes cross the network as they are.
    #[serde(default)]
    tls: Option<TlsConfig>,
    /// Whether tokens and values may cross a network without `tls`: where a proxy, a service mesh or the network itself
    /// encrypts.
    #[serde(default)]
    plain_text: bool,
    /// What a caller may use up.
    #[serde(default)]
    limits: LimitsConfig,
}

impl JsonSchema for ListenerConfig {
    fn schema_name() -> Cow<'static, str> {
        Listener::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Listener::json_schema(generator)
    }
}

impl TryFrom<Listener> for ListenerConfig {
    type Error = String;

    fn try_from(from: Listener) -> Result<Self, String> {
        let place = match (from.listen, from.unix, from.mode) {
            (Some(address), None, None) => Listen::Tcp(address),
            (Some(_), None, Some(_)) => {
                return Err(
                    "`mode` is of a socket's file; `listen` has none, so leave it out".to_owned()
                );
            }
            (None, Some(path), mode) => Listen::Unix { path, mode: octal(mode.as_deref())? },
            (None, None, _) | (Some(_), Some(_), _) => {
                return Err(
                    "a listener has one place: write `listen: 127.0.0.1:9187`, or `unix: ./orders.sock`"
                        .to_owned(),
                );
            }
        };
        if !from.http {
            return Err(
                "`http: false` leaves a listener without a protocol; leave it out, or the listener"
                    .to_owned(),
            );
        }
        let Listener { stores, tokens, tls, plain_text, limits, .. } = from;
        Ok(Self { place, stores, tokens, tls, plain_text, limits })
    }
}

fn octal(mode: Option<&str>) -> Result<u32, String> {
    let Some(text) = mode else { return Ok(0o600) };
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    let parsed = u32::from_str_radix(digits, 8).ok();
    parsed
        .filter(|_| digits.len() == 3 && !digits.starts_with('+'))
        .ok_or_else(|| "`mode` is three octal digits in quotes, such as \"0660\"".to_owned())
}

fn some_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    address(from).map(Some)
}

fn some_path<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path(from).map(Some)
}

impl Listen {
    /// The path of a socket as the config means it.
    #[must_use]
    pub fn within(&self, folder: &Path) -> Self {
        match self {
            Self::Tcp(address) => Self::Tcp(*address),
            Self::Unix { path, mode } => Self::Unix { path: folder.join(path), mode: *mode },
        }
    }
}

#[cfg(test)]
mod tests;
