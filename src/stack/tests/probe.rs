//! Backends and layers that write down what becomes of them, and fail where they are told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::backends::Memory;
use crate::config::{Config, Format, Registry};
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::layer::{BackendConfig, Context, LayerConfig, Rewrite, StackLayer, Zone};
use crate::store::{Read, Store};
use crate::types::Profile;

/// What happened, by the log's name.
static LOGS: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

/// Takes what has happened so far.
pub(super) fn happened(log: &str) -> Vec<String> {
    LOGS.lock().unwrap().remove(log).unwrap_or_default()
}

/// Whether something waits for ever.
pub(super) fn waits(log: &str) -> bool {
    let logs = LOGS.lock().unwrap();
    logs.get(log).is_some_and(|log| log.iter().any(|what| what.ends_with(" waits")))
}

fn note(log: &str, what: String) {
    LOGS.lock().unwrap().entry(log.to_owned()).or_default().push(what);
}

/// A place that fails, or never ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum At {
    Open,
    OpenForEver,
    Wrap,
    WrapForEver,
    Close,
    CloseForEver,
}

/// Settings of both.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeConfig {
    log: String,
    name: String,
    #[serde(default)]
    fail: Option<At>,
    /// Names a part of a shared one.
    #[serde(default)]
    part: String,
}

impl ProbeConfig {
    fn note(&self, what: &str) {
        note(&self.log, format!("{} {what}", self.name));
    }

    async fn begin(&self, at: [At; 2]) -> Result<()> {
        if self.fail == Some(at[1]) {
            self.note("waits");
            return std::future::pending().await;
        }
        if self.fail == Some(at[0]) {
            return Err(Error::new(ErrorKind::Unavailable, "the probe fails"));
        }
        Ok(())
    }

    fn store(&self, inner: Arc<dyn Store>, profile: Profile) -> Arc<dyn Store> {
        let noted = Noted(self.clone(), "store");
        Arc::new(Probe { inner, profile, noted })
    }
}

/// Written down when it is dropped.
struct Noted(ProbeConfig, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.note(&format!("{} dropped", self.1));
    }
}

#[async_trait]
impl BackendConfig for ProbeConfig {
    const NAME: &'static str = "probe";
    const OWN: &'static [&'static str] = &["part", "fail"];

    fn profile(&self) -> Result<Profile> {
        Ok(Profile::backend("probe", Memory::new().profile().guarantees))
    }

    fn part(&self) -> String {
        self.part.clone()
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        self.begin([At::Open, At::OpenForEver]).await?;
        self.note("opened");
        let memory = Memory::with_clock(Arc::clone(&context.clock));
        Ok(self.store(Arc::new(memory), BackendConfig::profile(self)?))
    }
}

#[async_trait]
impl LayerConfig for ProbeConfig {
    const NAME: &'static str = "probe";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        Ok(Profile::layer("probe", below))
    }

    async fn open(&self, _: &Context) -> Result<Arc<dyn StackLayer>> {
        self.begin([At::Open, At::OpenForEver]).await?;
        self.note("opened");
        Ok(Arc::new(Opened(Noted(self.clone(), "layer"))))
    }
}

struct Opened(Noted);

#[async_trait]
impl StackLayer for Opened {
    async fn wrap(&self, below: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        let config = &self.0.0;
        config.begin([At::Wrap, At::WrapForEver]).await?;
        config.note("wrapped");
        let profile = Profile::layer("probe", below.profile());
        Ok(config.store(below, profile))
    }

    fn rewriter(&self, _: Arc<dyn Store>) -> Option<Arc<dyn Rewrite>> {
        None
    }

    fn resizer(&self) -> Option<Arc<dyn crate::Resize>> {
        None
    }
}

pub(super) fn registry() -> Registry {
    let mut registry = Registry::standard();
    registry.layer::<ProbeConfig>().unwrap();
    registry.backend::<ProbeConfig>().unwrap();
    registry
}

pub(super) fn config(text: &str) -> Config {
    Config::parse(text, Format::Yaml, "test.yaml").unwrap()
}

/// A store that notes when it is closed.
struct Probe {
    inner: Arc<dyn Store>,
    profile: Profile,
    noted: Noted,
}

#[deny(clippy::missing_trait_methods)]
impl Read for Probe {
    forward!(self => self.inner; get, get_many, scan);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Probe {
    async fn flush(&self) -> Result<()> {
        self.noted.0.note("flushed");
        self.inner.flush().await
    }

    async fn close(&self) -> Result<()> {
        let config = &self.noted.0;
        config.note("closed");
        if config.fail == Some(At::CloseForEver) {
            return std::future::pending().await;
        }
        let closed = self.inner.close().await;
        match config.fail {
            Some(At::Close) => Err(Error::new(ErrorKind::Capacity, "the probe does not close")),
            _ => closed,
        }
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    forward!(self => self.inner; write, write_group, ingest, changes, invalidate, inspect, snapshot, compact, usage, count, identity);
}
