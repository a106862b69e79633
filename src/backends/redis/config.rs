//! The settings: their ranges, and what they guarantee.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Redis;
use super::change_feed::LATEST;
use super::url;
use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Context};
use crate::store::Store;
use crate::types::units::{Secret, Span, Url, counted};
use crate::types::{
    Conditions, Counting, Durability, Freshness, Guarantees, Limits, Place, Profile, check_path_of,
};

/// What the server is configured to keep. It is looked up when the store is opened, and a server that
/// keeps less is refused. See [`RedisConfig`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Survives {
    /// Nothing is relied on: what the server last saved is what there is after its end.
    #[default]
    Nothing,
    /// The end of the server's process: `appendonly yes`, with `appendfsync always` or `no`. (With
    /// `everysec` the server may keep acknowledged writes in its own memory for up to 2 seconds.)
    ProcessCrash,
    /// A power cut: `appendonly yes` with `appendfsync always`.
    PowerCut,
}

impl From<Survives> for Durability {
    fn from(survives: Survives) -> Self {
        match survives {
            Survives::Nothing => Self::Nothing,
            Survives::ProcessCrash => Self::ProcessCrash,
            Survives::PowerCut => Self::PowerCut,
        }
    }
}

/// What a scan of everything does about keys of the database that no entry can have: of another type than a
/// string, longer than 64 KiB, empty. See [`RedisConfig`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Foreign {
    /// It fails, and says how many there are, so that a copy does not leave them out silently.
    #[default]
    Refuse,
    /// It passes them by.
    Skip,
}

/// How a scan finds its keys in order where there is no index. See [`RedisConfig`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScanBy {
    /// It asks for every key of the database, and sorts those of its range in the memory of this process, up to 256 MiB.
    Sorted,
}

/// Settings of the Redis backend: `url` or `cluster`, and what the others are for.
///
/// ```
/// use tierstack::backends::RedisConfig;
/// use tierstack::backends::redis::{Foreign, ScanBy, Survives};
/// use tierstack::{BackendConfig, Durability};
///
/// let config = RedisConfig {
///     durability: Survives::PowerCut,
///     index: true,
///     foreign: Foreign::Skip,
///     ..RedisConfig::new("redis://127.0.0.1:6379/3")
/// };
/// let guarantees = config.profile()?.guarantees;
/// assert_eq!(guarantees.durability, Durability::PowerCut);
/// assert!(guarantees.ordered_scans && guarantees.atomic_batches);
///
/// let config = RedisConfig::cluster(["redis://10.0.0.1:6379", "redis://10.0.0.2:6379"]);
/// assert!(!config.profile()?.guarantees.atomic_batches);
///
/// // Nothing is changed on the server: for a replica, or a user who only reads.
/// let config = RedisConfig { read_only: true, scan: Some(ScanBy::Sorted), ..config };
/// let guarantees = config.profile()?.guarantees;
/// assert!(guarantees.ordered_scans && !guarantees.writable);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// The server: `redis://[user@]host[:port][/database]`, `rediss://` for TLS, or
    /// `redis+unix:///path`, without a password, or where such a text, then also with a password, is:
    /// `{ env: NAME }` or `{ file: PATH }`.
    pub url: Option<Url>,
    /// Nodes of a cluster, in place of `url`, each as it is there. One that answers is enough: it names the
    /// others, which are reached with the user and the password of the first one here.
    pub cluster: Vec<Url>,
    /// Where the password is, if no address has one: `{ env: NAME }` or `{ file: PATH }`. Default: none.
    pub password: Option<Secret>,
    /// A file with the certificates (PEM) that the server's is checked against. Default: those that the
    /// system trusts. A relative path is meant from the folder of the config file.
    pub ca: Option<PathBuf>,
    /// Keeps every entry under `{hash_tag}` and its key. In a cluster all entries are then in one slot,
    /// which makes batches atomic and allows an `index`, and leaves them to one node. Default: none.
    pub hash_tag: Option<String>,
    /// Whether to keep an ordered index of the keys, which scans need. Default: false. It costs about as
    /// much memory as the keys and about 100 bytes an entry, and each write takes longer. Entries that
    /// other programs write get into it when everything is scanned, or when a scan finds more keys in the
    /// database than the index knows of.
    pub index: bool,
    /// How scans are made without an `index`: `sorted` asks for every key of the database each time, and sorts those
    /// of the range in memory. Default: not at all. It changes nothing on the server, and takes as long as the
    /// database has keys. In a cluster it asks every node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<ScanBy>,
    /// Whether nothing is written. Default: false. The server may then be a replica, which may be behind its primary by
    /// any time, and the user may be one without rights to write.
    pub read_only: bool,
    /// What a scan of everything does about keys that no entry can have, such as lists. Default: `refuse`.
    pub foreign: Foreign,
    /// What an acknowledged write survives, as the server is configured. Default: `nothing`. It is checked
    /// when the store is opened, never changed.
    pub durability: Survives,
    /// A write is acknowledged when that many replicas have it in memory, too. Default: 0. It makes the
    /// loss of a write in a failover unlikely, and does not rule it out.
    pub wait_replicas: u32,
    /// Accepts a server that evicts entries when its memory is full. Default: false: it is refused.
    pub evicts: bool,
    /// Whether to have a change feed, by client tracking. Default: false. It costs a second
    /// connection to each server for as long as there is a subscriber, and the server a message for each
    /// change.
    pub change_feed: bool,
    /// How long to wait for a connection, from 10ms to 1h. Default: 2s.
    pub connect_timeout: Span,
    /// How long an operation may take as a whole, connecting and redirections included, from 10ms to 1h.
    /// Default: 5s.
    pub timeout: Span,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            cluster: Vec::new(),
            password: None,
            ca: None,
            hash_tag: None,
            index: false,
            scan: None,
            read_only: false,
            foreign: Foreign::default(),
            durability: Survives::default(),
            wait_replicas: 0,
            evicts: false,
            change_feed: false,
            connect_timeout: Span(Duration::from_secs(2)),
            timeout: Span(Duration::from_secs(5)),
        }
    }
}

/// A bulk string of the protocol.
pub(super) const MAX_VALUE_BYTES: u64 = 512 << 20;

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(3600);

impl RedisConfig {
    /// The defaults, with that server.
    #[must_use]
    pub fn new(url: impl Into<Url>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// The defaults, with a cluster of which these are nodes.
    #[must_use]
    pub fn cluster<U: Into<Url>>(nodes: impl IntoIterator<Item = U>) -> Self {
        Self { cluster: nodes.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Whether it is a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        !self.cluster.is_empty()
    }

    /// What precedes each key in the database.
    pub(super) fn prefix(&self) -> String {
        self.hash_tag.as_ref().map(|tag| format!("{{{tag}}}")).unwrap_or_default()
    }

    /// Where the server is, or the nodes of the cluster.
    fn addresses(&self) -> Result<&[Url]> {
        match (&self.url, self.cluster.as_slice()) {
            (Some(url), []) => Ok(std::slice::from_ref(url)),
            (None, nodes @ [_, ..]) => Ok(nodes),
            (Some(_), _) => {
                Err(Error::config("`url` and `cluster` exclude each other; give one of them"))
            }
            (None, []) => Err(Error::config(
                "`url` is missing; give one such as redis://127.0.0.1:6379/0, or the nodes of a `cluster`",
            )),
        }
    }

    /// What the client makes of the addresses and the password. Reads secrets.
    pub(super) async fn connections(&self, context: &Context) -> Result<Vec<ConnectionInfo>> {
        let password = match &self.password {
            Some(secret) => Some(context.secret(secret).await?),
            None => None,
        };
        let mut connections = Vec::new();
        for address in self.addresses()? {
            let info = match address {
                Url::Plain(text) => url::parse_plain(text, self.is_cluster())?,
                Url::Secret(secret) => {
                    url::parse(context.secret(secret).await?.expose(), self.is_cluster())?
                }
            };
            self.check_ca(&info)?;
            connections.push(match &password {
                None => info,
                Some(_) if info.redis_settings().password().is_some() => {
                    return Err(Error::config(
                        "the address and `password` both hold a password; leave one of them out",
                    ));
                }
                Some(password) => {
                    let settings = info.redis_settings().clone().set_password(password.expose());
                    info.set_redis_settings(settings)
                }
            });
        }
        Ok(connections)
    }

    fn check_ca(&self, info: &ConnectionInfo) -> Result<()> {
        if self.ca.is_some() && !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(Error::config(
                "`ca` is for TLS only; write rediss:// in place of redis://",
            ));
        }
        Ok(())
    }

    /// What can be said of them without reading a secret.
    fn check(&self) -> Result<()> {
        if let Some(ca) = &self.ca {
            check_path_of("ca", ca)?;
        }
        for address in self.addresses()? {
            if let Url::Plain(text) = address {
                self.check_ca(&url::parse_plain(text, self.is_cluster())?)?;
            }
        }
        if self.hash_tag.as_ref().is_some_and(|tag| tag.is_empty() || tag.contains(['{', '}'])) {
            return Err(Error::config(
                "`hash_tag` must have at least one character and no braces; they are added",
            ));
        }
        if self.hash_tag.as_ref().is_some_and(|tag| tag.len() > 1024) {
            return Err(Error::config("`hash_tag` must have at most 1024 bytes"));
        }
        if self.index && self.is_cluster() && self.hash_tag.is_none() {
            return Err(Error::config(
                "an `index` is in one slot, so in a cluster it needs a `hash_tag` that puts the entries there, too",
            ));
        }
        if self.index && self.scan.is_some() {
            return Err(Error::config("scans use the `index`; leave `scan: sorted` out"));
        }
        if self.read_only && self.index {
            return Err(Error::config(
                "an `index` is kept by stores that write; with `read_only`, set `scan: sorted` instead",
            ));
        }
        if self.read_only && self.change_feed {
            return Err(Error::config(
                "`change_feed` needs the primary; leave `read_only` out, which a user who only reads does not need there",
            ));
        }
        for (name, Span(span)) in
            [("connect_timeout", self.connect_timeout), ("timeout", self.timeout)]
        {
            if !(SHORTEST..=LONGEST).contains(&span) {
                return Err(Error::config(format!("`{name}` must be from 10ms to 1h")));
            }
        }
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        let durability = self.durability.into();
        Guarantees {
            durability,
            durability_on_request: durability,
            durability_after_flush: durability,
            atomic_batches: !self.is_cluster() || self.hash_tag.is_some(),
            conditions: if self.read_only { Conditions::None } else { Conditions::Value },
            verbatim: true,
            // A replica does not say how far behind it is.
            freshness: if self.read_only { Freshness::Unbounded } else { Freshness::Immediate },
            change_feed: self.change_feed.then_some(LATEST),
            ordered_scans: self.index || self.scan.is_some(),
            // Keys that come between the listing and the page are not in it.
            atomic_pages: self.index,
            snapshots: false,
            expiry: true,
            ingest: !self.read_only,
            // Next to the entries under a tag there may be any number of others.
            counts: if self.index || self.hash_tag.is_none() {
                Counting::Estimated
            } else {
                Counting::No
            },
            writable: !self.read_only,
            places: vec![Place { name: Self::NAME.into(), what: "database".into(), sealed: false }],
            recovery: None,
            limits: Limits { value_bytes: Some(MAX_VALUE_BYTES), ..Limits::default() },
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.evicts {
            notes.push(
                "The server may evict entries, acknowledged ones too, when its memory is full."
                    .into(),
            );
        }
        if self.is_cluster() {
            notes.push("A failover of the cluster may lose writes that were acknowledged shortly before it, as replicas lag behind.".into());
            if self.hash_tag.is_none() {
                notes.push("A batch is refused unless all its keys are in one slot.".into());
            }
        }
        if self.index {
            notes.push("A scan of everything sees what other programs wrote; one of a part may miss entries that others added, while as many expired or were deleted by others.".into());
        }
        if self.scan.is_some() {
            notes.push("`scan: sorted`: each scan, of however little, asks the server for all of its keys, and sorts those of its range in memory, up to 256 MiB.".into());
        }
        if self.read_only {
            notes.push("`read_only`: nothing is written. The server may be a replica, which may be behind its primary.".into());
        }
        if self.foreign == Foreign::Skip && (self.index || self.scan.is_some()) {
            notes.push("Scans leave out keys that no entry can have: of other types than strings, longer than 64 KiB, empty.".into());
        }
        if self.wait_replicas > 0 {
            notes.push(format!(
                "A write waits until {} it in memory, which makes its loss in a failover unlikely, not impossible.",
                counted(self.wait_replicas as usize, "replica has", "replicas have")
            ));
        }
        notes
    }
}

#[async_trait]
impl BackendConfig for RedisConfig {
    const NAME: &'static str = "redis";

    fn profile(&self) -> Result<Profile> {
        self.check().map_err(|error| error.with_layer(Self::NAME))?;
        let profile = Profile::backend(Self::NAME, self.guarantees());
        Ok(self.notes().into_iter().fold(profile, Profile::note))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Redis::open_in(self.clone(), context).await?))
    }
}

/// Prints no address, only how many there are.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("servers", &(self.cluster.len() + usize::from(self.url.is_some())))
            .field("hash_tag", &self.hash_tag)
            .field("index", &self.index)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
