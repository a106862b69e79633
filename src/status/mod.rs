//! What the stores of a process do now: the facts behind `/v1/live`, `/v1/status`, `tierstack status` and
//! `tierstack top`.
//!
//! A [`Monitor`] counts once a second while there are watchers, computes each rate and quantile once for all of them,
//! and rests otherwise. The numbers are those of the [metrics](crate::telemetry), whichever recorder is installed.
//! `docs/live.md` explains every field.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use tierstack::config::{Config, Format, Registry};
//! use tierstack::status::{Monitor, Subject};
//! use tierstack::{OpenOptions, Read, Stack, Store, SystemClock};
//!
//! let text = "stores: { orders: { backend: memory } }";
//! let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
//! let options = OpenOptions::service();
//! let orders = Stack::open(&config, None, &Registry::standard(), &options).await?;
//!
//! let monitor = Monitor::new(SystemClock::shared(), [Subject::of(&orders)]);
//! let mut watch = monitor.watch();
//! let facts = watch.next().await;
//! assert_eq!(facts.stacks[0].layers[0].name, "memory");
//! assert!(facts.stacks[0].guarantees.is_some(), "the first time everything is told");
//! orders.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod alerts;
#[cfg(feature = "backup")]
mod backup_status;
mod counts;
mod facts;
mod monitor;
mod rates;
#[cfg(test)]
mod tests;
mod watched_store;

pub use self::facts::{
    AlertFacts, BackupFacts, BaseFacts, CacheFacts, Facts, History, LayerFacts, ListenerFacts,
    Process, Said, Severity, Speed, StackFacts, StoredFacts, WriteBackFacts,
};
pub use self::monitor::{Monitor, Watch};
pub use self::watched_store::Subject;
