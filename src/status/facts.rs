//! The facts as types: what `/v1/live`, `/v1/status` and the control socket say, and the command reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::types::ProfileKind;

/// What a process that serves stores says of itself. Times are milliseconds since 1970, durations seconds. What is not
/// known, or does not apply, is `null` or left out. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// 1. A later version may add fields; a reader ignores those that it does not know.
    pub version: u32,
    /// When these facts were.
    pub now: Timestamp,
    /// The process.
    pub process: Process,
    /// The time that the rates are of, in seconds. `None`: it is measured only now, and there are no rates yet.
    pub period: Option<f64>,
    /// Each store that the reader may see, by name.
    pub stacks: Vec<StackFacts>,
    /// Where the process serves. A [`Monitor`](super::Monitor) does not know; a server fills it in.
    pub listeners: Vec<ListenerFacts>,
    /// What somebody should look at, the worst first.
    pub alerts: Vec<AlertFacts>,
}

/// The process of which the facts are. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Of tierstack.
    pub version: String,
    /// When it began to serve. Another moment means that it was restarted, and its counts began at 0.
    pub started_at: Timestamp,
}

/// A store and its layers. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackFacts {
    /// The name in the config.
    pub name: String,
    /// Whether it is open.
    pub open: bool,
    /// What it failed to open with.
    pub error: Option<String>,
    /// The stack from the outside in, such as `cache(compress(rocksdb))`.
    pub shape: String,
    /// Its boundaries, outermost first. What is counted at the first one is the traffic of the stack.
    pub layers: Vec<LayerFacts>,
    /// Its backups, where it has a layer `backup`.
    pub backups: Option<BackupFacts>,
    /// What it guarantees, in words. Told once: absent from the later events of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantees: Option<Vec<Said>>,
}

/// A guarantee in words. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// What it is about, such as `writes`.
    pub about: String,
    /// Whole sentences.
    pub text: String,
}

/// What passes the boundary above a layer or a backend. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The name, with its place where it occurs more than once. The label `layer` of its metrics.
    pub name: String,
    /// Whether it is a layer or the backend.
    pub kind: ProfileKind,
    /// All operations.
    pub all: Speed,
    /// `get`, `get_many` and pages of scans.
    pub read: Speed,
    /// `write` and `ingest`.
    pub write: Speed,
    /// Bytes of keys and values.
    pub bytes_per_second: Option<f64>,
    /// Errors since the store was opened.
    pub errors: u64,
    /// The same by kind; kinds without errors are left out.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Errors a second.
    pub errors_per_second: Option<f64>,
    /// Operations that wait for an answer.
    pub in_flight: u64,
    /// Where it is a cache.
    pub cache: Option<CacheFacts>,
    /// Where it is `write_back`.
    #[serde(default)]
    pub write_back: Option<WriteBackFacts>,
    /// What the backend holds, as far as it tells.
    pub stored: Option<StoredFacts>,
    /// What it changes about the guarantees. Told once, as `guarantees`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Said>>,
    /// What a person should know of it. Told once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<Vec<String>>,
    /// The last minutes. Told once: each later event of a stream is the next point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// How many operations there are, and how long they take. See the [module docs](super).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Operations a second.
    pub per_second: Option<f64>,
    /// The time within which half of those of the last ten seconds were done, in seconds.
    pub p50: Option<f64>,
    /// The time within which 99 of 100 were done.
    pub p99: Option<f64>,
}

/// What is told of a cache. See the [module docs](super).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheFacts {
    /// The part of the reads of the last ten seconds that the cache answered, from its memory or its disk.
    pub hit_ratio: Option<f64>,
    /// Reads a second.
    pub requests_per_second: Option<f64>,
    /// Entries a second that left it before they were old.
    pub evictions_per_second: Option<f64>,
    /// Bytes in memory.
    pub bytes: Option<u64>,
    /// Entries in memory.
    pub entries: Option<u64>,
    /// Bytes on its disk, where it has one.
    pub disk_bytes: Option<u64>,
    /// Whether its disk is in use.
    pub disk_active: Option<bool>,
    /// Whether it is connected to the change feed of the store below, if that has one.
    pub change_feed_connected: Option<bool>,
}

/// What is told of `write_back`. See the [module docs](super).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteBackFacts {
    /// Bytes that the store below does not have yet.
    pub dirty_bytes: u64,
    /// Keys whose newest write the store below does not have yet.
    pub dirty_entries: u64,
    /// With so many dirty bytes writers wait.
    pub max_dirty_bytes: u64,
    /// When the oldest write that the store below does not have was acknowledged.
    pub oldest_dirty: Option<Timestamp>,
    /// Writers that wait for room.
    pub waiting: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Entries a second that the store below took.
    pub flushed_per_second: Option<f64>,
    /// Flushes that failed since the store was opened.
    pub failures: u64,
    /// Why no write is acknowledged any more: `journal`, `refused` or `internal`.
    pub failed: Option<String>,
    /// Whether the stack is open without the store below, which could not be reached when it was opened.
    #[serde(default)]
    pub store_away: bool,
}

/// What a store holds. See the [module docs](super).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFacts {
    /// Bytes, as they are stored.
    pub bytes: Option<u64>,
    /// Entries.
    pub entries: Option<u64>,
}

/// The last minutes of a boundary, a point for each second, oldest first. `null`: nobody watched, or nothing happened. See the [module docs](super).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Operations a second.
    pub per_second: Vec<Option<f64>>,
    /// The p99 of all operations, in seconds.
    pub p99: Vec<Option<f64>>,
    /// The hit ratio, of a cache.
    pub hit_ratio: Vec<Option<f64>>,
}

/// The backups of a store. See the [module docs](super).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupFacts {
    /// When they are taken. `None`: by hand.
    pub schedule: Option<String>,
    /// The longest time between two that are due, in seconds.
    pub expected_interval: Option<f64>,
    /// Of when the last one is. `None`: there is none, or it is not known yet.
    pub last_success: Option<Timestamp>,
    /// When the next one is due, or was.
    pub due_at: Option<Timestamp>,
    /// Attempts that failed since the store was opened.
    pub failures: u64,
    /// Why the place cannot be listed.
    pub error: Option<String>,
    /// The newest ones, in the order in which they were taken. Absent from an event of a stream: as before, or not
    /// listed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bases: Option<Arc<Vec<BaseFacts>>>,
}

/// A backup. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFacts {
    /// Its name, as in `tierstack backup list`.
    pub id: String,
    /// The moment that it holds.
    pub time: Timestamp,
    /// Entries in it.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Where a process serves. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerFacts {
    /// The address.
    pub address: String,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// How many tokens are valid there; 0: none is asked for.
    pub tokens: usize,
    /// What may be done there, by store: `read`, `write` or `admin`.
    pub stores: BTreeMap<String, String>,
}

/// How urgent an alert is. The worst first. See the [module docs](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Data or answers are at risk.
    Critical,
    /// Something works worse than it should.
    Warning,
    /// Good to know.
    Info,
}

/// What somebody should look at. See the [module docs](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertFacts {
    /// How urgent it is.
    pub severity: Severity,
    /// What it is: the name of the alert that Prometheus would send.
    pub name: String,
    /// The store that it is about.
    pub stack: Option<String>,
    /// The layer that it is about.
    pub layer: Option<String>,
    /// Whole sentences.
    pub text: String,
}

impl Facts {
    /// Without the stores that the reader may not see, and what is said of them.
    #[must_use]
    pub fn only(mut self, visible: impl Fn(&str) -> bool) -> Self {
        self.stacks.retain(|stack| visible(&stack.name));
        self.alerts.retain(|alert| alert.stack.as_deref().is_none_or(&visible));
        for listener in &mut self.listeners {
            listener.stores.retain(|name, _| visible(name));
        }
        self.listeners.retain(|listener| !listener.stores.is_empty());
        self
    }

    /// Without the lists of backups that an earlier event has told.
    pub(super) fn without_told(mut self, before: &Self) -> Self {
        for stack in &mut self.stacks {
            let told = before.stacks.iter().find(|earlier| earlier.name == stack.name);
            let told = told.and_then(|earlier| earlier.backups.as_ref()?.bases.as_ref());
            if let Some(backups) = &mut stack.backups {
                let same = |bases: &Arc<_>| told.is_some_and(|told| Arc::ptr_eq(bases, told));
                backups.bases.take_if(|bases| same(bases));
            }
        }
        self
    }
}
