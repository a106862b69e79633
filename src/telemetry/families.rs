//! Every family of metrics: name, type, labels, what it says, and what a rise of it means.
//!
//! What is not in this table is not exported by this crate. `docs/metrics.md` is written from it, and so are the
//! descriptions that a recorder gets.

use std::fmt;

/// How the values of a family behave.
///
/// ```
/// use tierstack::telemetry::{FAMILIES, Kind, names};
///
/// let ops = FAMILIES.iter().find(|family| family.name == names::OPS).unwrap();
/// assert_eq!((ops.kind, ops.kind.to_string()), (Kind::Counter, "counter".to_owned()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, from 0 when the store is opened.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Durations, counted in [buckets](super::BOUNDS).
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// What a value is measured in. See [`Kind`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// A part of one, from 0 to 1.
    Ratio,
    /// Seconds.
    Seconds,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Ratio => "ratio",
            Self::Seconds => "seconds",
        })
    }
}

impl From<Unit> for metrics::Unit {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Bytes => Self::Bytes,
            Unit::Count | Unit::Ratio => Self::Count,
            Unit::Seconds => Self::Seconds,
        }
    }
}

/// What is known of a family. See [`Kind`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name, with its unit.
    pub name: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// What they are measured in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// What a rise of it means, or a fall.
    pub rise: &'static str,
}

impl Family {
    /// The family of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }
}

macro_rules! families {
    ($($constant:ident = $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal, $rise:literal;)*) => {
        /// The name of every family, as constants.
        pub mod names {
            $(#[doc = $help] pub const $constant: &str = $name;)*
        }

        /// Every family, in the order of the documentation.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: names::$constant,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
            rise: $rise,
        }),*];
    };
}

families! {
    INFO = "tierstack_info", Gauge, Count, ["version", "features"],
        "1, with the version of the library in this process and the cargo features that it was built with",
        "its labels change with an upgrade";
    PROCESS_START = "process_start_time_seconds", Gauge, Seconds, [],
        "When this process began to measure, in seconds since the epoch",
        "the process was started again";
    SAMPLE_RATIO = "tierstack_sample_ratio", Gauge, Ratio, [],
        "The part of the answers from memory of which the duration is measured; each of these counts for all that were not",
        "it is a constant";

    LAYER_DEPTH = "tierstack_layer_depth", Gauge, Count, ["stack", "layer"],
        "How many boundaries of an open store are above this one; 0: callers enter here",
        "a layer was added above";
    OPS = "tierstack_ops_total", Counter, Count, ["stack", "layer", "op", "outcome"],
        "Operations at a boundary, by outcome: ok, missing (a get that found nothing), error, cancelled",
        "more traffic";
    OP_DURATION = "tierstack_op_duration_seconds", Histogram, Seconds, ["stack", "layer", "op"],
        "How long an operation took at a boundary, from its call; for a scan each page, for a group of batches the group",
        "slower answers";
    OP_BYTES = "tierstack_op_bytes_total", Counter, Bytes, ["stack", "layer", "op"],
        "Bytes of keys and values through a boundary",
        "more or larger values";
    INFLIGHT = "tierstack_inflight", Gauge, Count, ["stack", "layer"],
        "Operations under way at a boundary that wait for the disk or the network",
        "the store below is slower than what it is asked for";
    ERRORS = "tierstack_errors_total", Counter, Count, ["stack", "layer", "kind"],
        "Errors at a boundary, by kind of error; an error is counted at each boundary that it passes",
        "failures; `corruption` means that stored bytes are damaged";
    STORE_BYTES = "tierstack_store_bytes", Gauge, Bytes, ["stack", "layer", "place"],
        "Bytes that a store and its caches have in memory, and that the store has stored; 0 as well where it does not tell",
        "more data";
    STORE_ENTRIES = "tierstack_store_entries", Gauge, Count, ["stack", "layer"],
        "Entries of a store, as precisely as the store counts them; 0 as well where it does not tell",
        "more data";

    CACHE_REQUESTS = "tierstack_cache_requests_total", Counter, Count, ["stack", "layer", "result"],
        "Reads that reached a cache, by result: hit, negative (the key does not exist), stale (served after its ttl), error (its load has just failed), coalesced (joined a load), disk, miss, bypass (too large, or nothing is kept at present)",
        "`miss`: the store below is asked more often";
    CACHE_REFRESHES = "tierstack_cache_refreshes_total", Counter, Count, ["stack", "layer", "outcome"],
        "Loads that a cache began before it needed their answers, by outcome: kept, dropped, failed",
        "`failed`: the store below does not answer, and values get old";
    CACHE_LOAD_DURATION = "tierstack_cache_load_duration_seconds", Histogram, Seconds, ["stack", "layer"],
        "How long a cache waited for the store below, where that did not answer at once",
        "a slower store below, or too few `max_loads`";
    CACHE_WRITES = "tierstack_cache_writes_total", Counter, Count, ["stack", "layer", "outcome"],
        "Keys of acknowledged writes, by whether a cache that keeps what is written has kept them: kept, dropped",
        "`dropped`: values that are too large, or writes of one key at the same time";
    CACHE_BYTES = "tierstack_cache_bytes", Gauge, Bytes, ["stack", "layer"],
        "Bytes in a cache",
        "it fills up to its capacity, which is no harm";
    CACHE_ENTRIES = "tierstack_cache_entries", Gauge, Count, ["stack", "layer"],
        "Entries in a cache",
        "it fills up to its capacity, which is no harm";
    CACHE_EVICTIONS = "tierstack_cache_evictions_total", Counter, Count, ["stack", "layer", "cause"],
        "Entries that left a cache, by cause: size, expired and idle (looked up after their time), disk (its capacity is too small)",
        "`size`: the capacity is too small for what is read";
    CACHE_INVALIDATIONS = "tierstack_cache_invalidations_total", Counter, Count, ["stack", "layer", "cause"],
        "What a cache dropped because it is old, or may be, by cause: key, prefix, all (also after missed changes), foreign (a change by others), lost (the change feed broke)",
        "`lost`: the connection of the change feed breaks";
    CACHE_CHANGE_FEED_CONNECTED = "tierstack_cache_change_feed_connected", Gauge, Count, ["stack", "layer"],
        "1 while the change feed below a cache is connected, else 0",
        "a fall to 0: the cache keeps nothing until it is connected again";
    CACHE_DISK_BYTES = "tierstack_cache_disk_bytes", Gauge, Bytes, ["stack", "layer"],
        "Bytes of the files of a cache's disk",
        "it fills up to its capacity, which is no harm";
    CACHE_DISK_ENTRIES = "tierstack_cache_disk_entries", Gauge, Count, ["stack", "layer"],
        "Entries on a cache's disk, and on their way to it",
        "it fills up to its capacity, which is no harm";
    CACHE_DISK_ACTIVE = "tierstack_cache_disk_active", Gauge, Count, ["stack", "layer"],
        "1 while a cache's disk is in use, 0 once it failed",
        "a fall to 0: the disk failed, and the cache goes on without it";
    CACHE_DISK_DROPS = "tierstack_cache_disk_drops_total", Counter, Count, ["stack", "layer", "cause"],
        "Entries that a cache's disk did not take, or could not give back, by cause: queue (loaded faster than written), busy (no thread was free to read), large (larger than a segment), damaged (read back other than written), io (it failed, or is full)",
        "`queue` and `busy`: the disk is too slow; `damaged` and `io`: it fails";
    CACHE_WARM_START_KEYS = "tierstack_cache_warm_start_keys_total", Counter, Count, ["stack", "layer"],
        "Keys that a cache loaded for its warm start",
        "it is being warmed up";
    CODEC_BYTES = "tierstack_codec_bytes_total", Counter, Bytes, ["stack", "layer", "stage", "op"],
        "Bytes of values before a codec (logical) and after it (stored), by op: write, read",
        "more or larger values";
    RETRIES = "tierstack_retries_total", Counter, Count, ["stack", "layer", "op"],
        "Attempts beyond the first",
        "the store below fails for moments";
    LIMIT_WAIT = "tierstack_limit_wait_seconds", Histogram, Seconds, ["stack", "layer"],
        "How long an operation waited for its turn, where it did not have it at once",
        "more operations at once than the store below may have";

    WRITEBACK_DIRTY_BYTES = "tierstack_writeback_dirty_bytes", Gauge, Bytes, ["stack", "layer"],
        "Bytes of acknowledged writes that the store below does not have yet",
        "writes come faster than the store below takes them; at `max_dirty` writers wait";
    WRITEBACK_DIRTY_ENTRIES = "tierstack_writeback_dirty_entries", Gauge, Count, ["stack", "layer"],
        "Keys with an acknowledged write that the store below does not have yet",
        "writes come faster than the store below takes them";
    WRITEBACK_MAX_DIRTY = "tierstack_writeback_max_dirty_bytes", Gauge, Bytes, ["stack", "layer"],
        "The setting `max_dirty`: with so many dirty bytes writers wait",
        "the setting was changed";
    WRITEBACK_OLDEST_DIRTY = "tierstack_writeback_oldest_dirty_timestamp_seconds", Gauge, Seconds, ["stack", "layer"],
        "When the oldest write that the store below does not have was acknowledged, in seconds since the epoch; 0: there is none",
        "older writes were flushed; while it does not advance, none is";
    WRITEBACK_WAITING = "tierstack_writeback_waiting", Gauge, Count, ["stack", "layer"],
        "Writers that wait for room in a full buffer",
        "writes come faster than the store below takes them";
    WRITEBACK_WAIT = "tierstack_writeback_wait_seconds", Histogram, Seconds, ["stack", "layer"],
        "How long a writer waited for room in a full buffer, until it had it or its deadline passed",
        "writes come faster than the store below takes them";
    WRITEBACK_TIMEOUTS = "tierstack_writeback_timeouts_total", Counter, Count, ["stack", "layer"],
        "Writes that failed as a full buffer had no room for them within their deadline",
        "writes fail; the store below is too slow, or away";
    WRITEBACK_ACKNOWLEDGED = "tierstack_writeback_acknowledged_total", Counter, Count, ["stack", "layer", "ack"],
        "Batches that were acknowledged, by what had them then: journal, memory, through (the store below)",
        "more writes";
    WRITEBACK_FLUSHES = "tierstack_writeback_flushes_total", Counter, Count, ["stack", "layer", "outcome"],
        "Batches that were written to the store below, by outcome: ok, failed (tried again), refused (for good)",
        "`failed`: the store below is away or fails; `refused`: nothing is acknowledged until an operator acts";
    WRITEBACK_FLUSHED_ENTRIES = "tierstack_writeback_flushed_entries_total", Counter, Count, ["stack", "layer"],
        "Entries that the store below has taken",
        "more writes";
    WRITEBACK_COALESCED = "tierstack_writeback_coalesced_total", Counter, Count, ["stack", "layer"],
        "Operations that never reached the store below, as a later one of their key came before the flush",
        "the store below is spared more";
    WRITEBACK_FLUSH_DURATION = "tierstack_writeback_flush_duration_seconds", Histogram, Seconds, ["stack", "layer"],
        "How long the store below took for a flush, successful or not",
        "a slower store below, or larger flushes";
    WRITEBACK_JOURNAL_BYTES = "tierstack_writeback_journal_bytes", Gauge, Bytes, ["stack", "layer"],
        "Bytes of the records in the journal",
        "flushes fall behind, so the journal cannot let go of what it has";
    WRITEBACK_JOURNAL_MAX = "tierstack_writeback_journal_max_bytes", Gauge, Bytes, ["stack", "layer"],
        "Bytes that the journal may hold; with so many writers wait",
        "the setting `max_dirty` was changed";
    WRITEBACK_DISK_FREE = "tierstack_writeback_journal_disk_free_bytes", Gauge, Bytes, ["stack", "layer"],
        "Bytes that are free on the disk of the journal; -1: there is no journal, or the system does not say",
        "files were removed there; while it falls below what the journal may still take, writers are going to wait";
    WRITEBACK_REPLAYED = "tierstack_writeback_replayed_total", Counter, Count, ["stack", "layer"],
        "Batches that were read from the journal when the store was opened, as the store below did not have them",
        "the process had ended before they were flushed";
    WRITEBACK_FAILED = "tierstack_writeback_failed", Gauge, Count, ["stack", "layer", "cause"],
        "1 while no write is acknowledged, by cause: journal (it failed), refused (the store below refused a batch for good, or is not the one that the journal is for), internal (a defect)",
        "every write fails until an operator acts; what was acknowledged is kept";
    WRITEBACK_STORE_AWAY = "tierstack_writeback_store_away", Gauge, Count, ["stack", "layer"],
        "1 while the stack is open without the store below, which could not be reached when the stack was opened and has not come since",
        "reads of what is not in the journal fail, and writes wait in the journal";

    BACKUP_LAST_SUCCESS = "tierstack_backup_last_success_timestamp_seconds", Gauge, Seconds, ["stack", "layer", "kind"],
        "When a backup last succeeded, in seconds since the epoch; 0: never, or not known yet",
        "a backup succeeded";
    BACKUP_EXPECTED_INTERVAL = "tierstack_backup_expected_interval_seconds", Gauge, Seconds, ["stack", "layer", "kind"],
        "The longest time between two scheduled backups",
        "the schedule was changed";
    BACKUP_BYTES = "tierstack_backup_bytes_total", Counter, Bytes, ["stack", "layer", "stage"],
        "Bytes of scheduled backups, by stage: read, reused (in the place already), uploaded",
        "backups of more data; `uploaded`: more of it is new";
    BACKUP_FAILURES = "tierstack_backup_failures_total", Counter, Count, ["stack", "layer"],
        "Scheduled backups that failed",
        "no newer backup is there to restore";

    SERVE_READY = "tierstack_serve_ready", Gauge, Count, [],
        "1 while `/readyz` of the server is answered with 200, else 0",
        "a fall to 0: a store was not opened, or the process ends";
    SERVE_STORE_OPEN = "tierstack_serve_store_open", Gauge, Count, ["stack"],
        "1 of a store that is served, 0 of one that could not be opened",
        "0: requests for the store are answered with 503";
    SERVE_CONNECTIONS = "tierstack_serve_connections", Gauge, Count, ["listener"],
        "Connections that are open",
        "more clients, or clients that leave them open";
    SERVE_ACCEPTED = "tierstack_serve_connections_total", Counter, Count, ["listener"],
        "Connections that were accepted",
        "clients that open one for each request";
    SERVE_REQUESTS = "tierstack_serve_requests_total", Counter, Count, ["listener", "route", "status"],
        "Answers, by route: get, put, delete, scan, batch, get_many, changes, info, live, health, metrics, page, other; and by status: 2xx, 3xx, 4xx, 5xx",
        "more traffic; `5xx`: the server or a store below fails";
    SERVE_DURATION = "tierstack_serve_request_duration_seconds", Histogram, Seconds, ["listener", "route"],
        "From the head of a request to that of its answer",
        "slower answers";
    SERVE_REFUSED = "tierstack_serve_refused_total", Counter, Count, ["listener", "cause"],
        "Requests and connections that were turned away, by cause: token, right, host (another name in `Host`, or the page of another site), connections, header (too large or malformed), body (too large, or too many at a time)",
        "callers without access, or limits that are too low";
    SERVE_SLOW = "tierstack_serve_slow_clients_total", Counter, Count, ["listener"],
        "Connections and requests that ended as the other side sent or took too slowly",
        "a bad network, or clients that hold connections open";
    SERVE_BYTES = "tierstack_serve_bytes_total", Counter, Bytes, ["listener", "direction"],
        "Bytes of the bodies of requests (in) and of answers (out)",
        "more or larger values";
    SERVE_CERTIFICATE = "tierstack_serve_certificate_expiry_timestamp_seconds", Gauge, Seconds, ["listener"],
        "When the certificate of a listener expires, or one between it and the authority, in seconds since the epoch; only with TLS",
        "it was renewed";
}
