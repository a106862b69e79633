//! A layer of one's own, used from a config file.
//!
//! `protect: { prefix: "system/" }` refuses writes to keys that begin with the prefix. It is one
//! settings type, one `tower` layer, and one store that decides about every operation; registered
//! under its name it is drawn, checked, and described in the JSON Schema like the built-in ones.
//!
//! Run with `cargo run --example custom_layer`.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tierstack::config::{Config, Format, Registry};
use tierstack::{
    Batch, Commit, Context, Error, ErrorKind, Layer, LayerConfig, OpenOptions, Profile, Read,
    Result, Stack, StackLayer, Store, StoreExt, Zone, forward,
};

/// Refuses writes to keys that begin with a prefix.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProtectConfig {
    /// The prefix of the keys that stay as they are.
    prefix: String,
}

#[async_trait]
impl LayerConfig for ProtectConfig {
    const NAME: &'static str = "protect";
    /// It only watches what passes, so it may be anywhere.
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        if self.prefix.is_empty() {
            return Err(Error::config(
                "prefix: it is empty; use `read_only` to refuse every write",
            ));
        }
        Ok(Profile::layer(Self::NAME, below)
            .note(format!("Writes to keys that begin with '{}' are refused.", self.prefix)))
    }

    async fn open(&self, _context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(ProtectLayer { config: self.clone() }))
    }
}

/// What wraps a store. It would own a connection or a counter, if the layer had one.
#[derive(Clone, Debug)]
struct ProtectLayer {
    config: ProtectConfig,
}

impl<S> Layer<S> for ProtectLayer {
    type Service = Protect<S>;

    fn layer(&self, inner: S) -> Protect<S> {
        Protect { inner, config: self.config.clone() }
    }
}

/// A store whose keys under a prefix cannot be written.
#[derive(Clone, Debug)]
struct Protect<S> {
    inner: S,
    config: ProtectConfig,
}

impl<S> Protect<S> {
    /// The whole batch or nothing of it: the check comes before the store below sees any.
    fn admit(&self, batch: Batch) -> Result<Batch> {
        let prefix = self.config.prefix.as_bytes();
        match batch.ops().iter().find(|op| op.key().starts_with(prefix)) {
            Some(op) => Err(Error::new(ErrorKind::Access, "keys under this prefix are protected")
                .with_layer(ProtectConfig::NAME)
                .with_key(op.key())),
            None => Ok(batch),
        }
    }
}

impl<S: Read> Read for Protect<S> {
    forward!(self => self.inner; get, get_many, scan);
}

#[async_trait]
impl<S: Store> Store for Protect<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.inner.write(self.admit(batch)?).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        // Up to the first batch that is refused, in whatever way the store below does it fastest.
        tierstack::write_admitted(&self.inner, group, |batch| self.admit(batch)).await
    }

    fn profile(&self) -> Profile {
        let below = self.inner.profile();
        // The settings were accepted when the layer was opened, over the same store.
        self.config.profile(below.clone()).unwrap_or(below)
    }

    forward!(self => self.inner; ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, identity);
}

/// A config file that names the layer.
const CONFIG: &str = r#"
stores:
  settings:
    layers:
      - protect: { prefix: "system/" }
    backend: memory
"#;

/// Public so that the tests run it.
#[tokio::main]
pub async fn main() -> Result<()> {
    let mut registry = Registry::standard();
    registry.layer::<ProtectConfig>()?;

    let config = Config::parse(CONFIG, Format::Yaml, "tierstack.yaml")?;
    println!("{}", Stack::check(&config, None, &registry)?);

    let stack = Stack::open(&config, None, &registry, &OpenOptions::default()).await?;
    stack.put("theme", "dark").await?.durable().await?;
    match stack.put("system/version", "2").await {
        Err(refused) if refused.kind() == ErrorKind::Access => println!("{refused}"),
        other => panic!("it should have been refused: {other:?}"),
    }
    assert_eq!(stack.get(b"system/version").await?, None);
    stack.close().await
}
