//! `postgres`: a table of PostgreSQL, one that is there already or one that is made.
//!
//! # Guarantees
//! Batches are transactions. Several processes, tierstack or not, may read and write the table at the
//! same time. An acknowledged write survives a power cut of the server, with `durability: machine_loss`
//! also the loss of its machine. A snapshot, and each page of a scan, sees one moment. Entries expire by
//! the server's clock. With `change_feed`, what others write is reported to the caches of all.
//!
//! `get`, `get_many` of any number of keys, a page of a scan, and a batch up to 16 MiB and 8192 operations
//! take one round trip each. (A batch that depends on absent keys, and has several, takes a few.)
//!
//! # Gives up
//! Keys over 2,600 bytes, as an index of PostgreSQL does not take them; values over 256 MiB. Scans of a table of
//! others where no index has the order of keys. The number of entries is an estimate.
//!
//! # Cancellation
//! A batch whose future is dropped, or that failed with `Unavailable` or `Timeout`, takes effect wholly or
//! not at all, at the latest `timeout` after it was begun: what arrives at the server later, from a
//! network that was cut, is refused there. A connection whose answer was not waited for is thrown away. A
//! snapshot that is dropped ends its connection, and with it its transaction.
//!
//! # Errors
//! Opening: `Config` (settings; a table of another form or version; a server that cannot keep what is
//! guaranteed), `Access` (password, certificate, rights; a standby), `Unavailable`, `Timeout`. Later:
//! `InvalidInput` (key, limits; a constraint), `Capacity` (the server's disk is full; too many
//! snapshots), `Conflict` (a key that was to be absent; others kept in the way), `Access`, `Corruption`,
//! `Unavailable`, `Timeout`, `Closed`. Neither keys nor values nor passwords are in them: of the server's
//! words only those about connections, rights and names are passed on.
//!
//! After a restart of the server connections are made again. Reads are tried a second time where a
//! connection was broken; writes are not, as nobody knows whether they took effect.
//!
//! # Configuration
//! `postgres: { url: "postgres://app@db/orders", password: { env: PGPASSWORD } }`; see
//! [`PostgresConfig`].
//!
//! # Example
//! ```no_run
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use tierstack::backends::{Postgres, PostgresConfig};
//! use tierstack::{Read, Store, StoreExt};
//!
//! let store = Postgres::open(PostgresConfig::new("postgres://app@localhost/orders")).await?;
//! store.put("user:1", "Ada").await?;
//! assert_eq!(store.get(b"user:1").await?, Some("Ada".into()));
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod change_feed;
mod columns;
mod config;
mod connect;
mod error;
mod expires;
mod indexes;
mod ingest;
mod key;
mod locks;
mod open;
mod own_table;
mod pool;
mod read;
mod redacted;
mod session;
mod snapshot;
mod sql;
mod survey;
mod table_columns;
mod upkeep;
mod url;
mod value;
mod write;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::change_feed::Announcements;
pub use self::columns::{Columns, Keys, Values};
pub use self::config::{Pooler, PostgresConfig, Tls};
use self::connect::Connector;
use self::open::Found;
use self::pool::{Connections, within};
use self::session::Session;
use self::snapshot::Snapshot;
use self::sql::Statements;
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::layer::{BackendConfig, Context};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
pub use crate::types::units::Url;
pub use crate::types::{All, ExpiresUnit, Fields, KeyColumns, RowColumns, RowForm, ValueColumns};
use crate::types::{
    Batch, Commit, Durability, Identity, Inspection, Profile, Scan, Scope, Usage, Value, check_key,
};

/// A table of PostgreSQL. See the [module docs](self).
pub struct Postgres {
    config: PostgresConfig,
    profile: Profile,
    connector: Connector,
    connections: Arc<Connections>,
    found: Found,
    sql: Arc<Statements>,
    snapshots: Arc<Semaphore>,
    announcements: Option<Arc<Announcements>>,
    sweeper: Option<JoinHandle<()>>,
    /// `None`: closed.
    server: Mutex<Option<Arc<Server>>>,
}

impl Postgres {
    /// Connects, checks that the server and the table are as the settings say, and makes the table where
    /// it is missing.
    ///
    /// # Errors
    /// See the [module docs](self). A dropped future leaves nothing behind, or the table made.
    pub async fn open(config: PostgresConfig) -> Result<Self> {
        Self::open_as(config, &Context { background: true, ..Context::default() }).await
    }

    /// What is missing is made, and expired entries are removed now and then, if the settings say so too.
    async fn open_as(config: PostgresConfig, context: &Context) -> Result<Self> {
        let profile = config.profile()?;
        let opening = Self::connect(config, profile, context).await;
        opening
            .map_err(|error| error.with_operation(Operation::Open).with_layer(PostgresConfig::NAME))
    }

    async fn connect(config: PostgresConfig, profile: Profile, context: &Context) -> Result<Self> {
        if let Err(error) = Handle::try_current() {
            let message = "connections are tasks of a tokio runtime, and there is none; call it from within one";
            return Err(Error::unsupported(message).with_source(error));
        }
        let server = Server::connect(&config);
        let server = match &context.common {
            Some(common) if !config.change_feed => common.share(server).await?,
            // Its name is on its connections: by that it leaves out its own writes, and those of no other store, also
            // where a trigger in the database passes them on to its table.
            _ => server.await?,
        };
        let (connector, connections) = (server.connector.clone(), Arc::clone(&server.connections));
        let client = connector.client(Operation::Open, None).await?;
        let (way, settings) = connect::way(&config);
        let alone = way.one_by_one();
        let session = Session { client: &client, way: &alone };
        let opening = open::open(session, &config, context.may_create);
        let found = within(Operation::Open, config.timeout.0, opening).await?;
        let sql = Arc::new(Statements::new(&found, &config, settings.as_deref()));
        let announcements = config.change_feed.then(|| {
            Announcements::new(
                connector.clone(),
                Arc::clone(&connections),
                found.table.clone(),
                key::Spoken::new(&config, found.key.clone()),
                server.origin.clone(),
            )
        });
        let sweeps = context.background && !config.read_only && sql.sweep.is_some();
        let sweeper = sweeps.then(|| {
            tokio::spawn(upkeep::sweep_for_ever(Arc::downgrade(&connections), Arc::clone(&sql)))
        });
        let snapshots = Arc::new(Semaphore::new(config.snapshots));
        Ok(Self {
            config,
            profile,
            connector,
            connections,
            found,
            sql,
            snapshots,
            announcements,
            sweeper,
            server: Mutex::new(Some(server)),
        })
    }
}

impl Postgres {
    /// Refuses what would change a table that is only read.
    fn may_write(&self, operation: Operation) -> Result<()> {
        self.connections.check_open()?;
        if !self.config.read_only {
            return Ok(());
        }
        let message =
            "the table is open for reading only (`read_only: true`); leave that out to change it";
        let error = Error::new(ErrorKind::Access, message).with_outcome(Outcome::Nothing);
        Err(error.with_operation(operation).with_layer(PostgresConfig::NAME))
    }
}

/// What stores over tables of one database have in common, unless they have a change feed: one pool of connections, which is
/// closed with the last of them.
struct Server {
    connector: Connector,
    connections: Arc<Connections>,
    origin: String,
}

impl Server {
    async fn connect(config: &PostgresConfig) -> Result<Arc<Self>> {
        let (origin, seed) = origin()?;
        let connector = {
            let (config, origin) = (config.clone(), origin.clone());
            // Secrets and certificates are read from files.
            let made = tokio::task::spawn_blocking(move || Connector::new(&config, &origin)).await;
            made.map_err(|error| Error::internal("a thread panicked").with_source(error))??
        };
        if config.pooler.is_none() && !connector.has_session().await? {
            return Err(Error::config(
                "there is a pooler in transaction mode between here and PostgreSQL, such as PgBouncer: it gives each transaction another connection, to which settings would leak and on which there is no change feed; set `pooler: transaction`, which does without both, or connect to PostgreSQL directly",
            ));
        }
        let (way, _) = connect::way(config);
        let connections = Arc::new(Connections::new(&connector, config, way, seed)?);
        Ok(Arc::new(Self { connector, connections, origin }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connections.close();
    }
}

/// The name of this store among those that write the table, and a seed.
fn origin() -> Result<(String, u64)> {
    let seed = getrandom::u64().map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the system gives no random numbers").with_source(error)
    })?;
    Ok((format!("{seed:016x}"), seed))
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(sweeper) = &self.sweeper {
            sweeper.abort();
        }
    }
}

/// Prints neither address nor password.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({})", self.found.table)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Postgres {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if let Err(error) = check_key(key) {
            return Reply::Now(Err(error.with_key(key)));
        }
        Reply::later(self.connections.read(Operation::Get, move |lease| async move {
            let done = read::get(lease.session(), &self.sql, key).await;
            lease.finish(done)
        }))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let checked = read::check_keys(keys).and_then(|()| self.connections.check_open());
        match checked {
            Err(error) => Reply::Now(Err(error)),
            Ok(()) if keys.is_empty() => Reply::ready(Vec::new()),
            Ok(()) => {
                Reply::later(self.connections.read(Operation::GetMany, move |lease| async move {
                    let done = read::get_many(lease.session(), &self.sql, keys).await;
                    lease.finish(done)
                }))
            }
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        if let Err(error) = self.sql.check_scans(Operation::Scan) {
            return read::refused(error);
        }
        read::pages(scan, move |scan| {
            Box::pin(async move {
                let scan = &scan;
                let page = |lease: pool::Lease| async move {
                    let done = read::page(lease.session(), &self.sql, scan).await;
                    lease.finish(done)
                };
                self.connections.read(Operation::Scan, page).await
            })
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Postgres {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.may_write(Operation::Write)?;
        self.profile.guarantees.check_batch(&batch)?;
        write::write(&self.connections, &self.sql, self.found.expires, &batch).await?;
        Ok(Commit::done())
    }

    /// As many batches at a time as one: a round trip for each would take longer.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        // Of a store that is closed before, or only reads, nothing of the group happens, and that is known.
        if self.may_write(Operation::Write).is_err() {
            return crate::write_in_order(self, group).await;
        }
        crate::write_group::write_merged(self, group).await
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.may_write(Operation::Ingest)?;
        let lots = ingest::Lots::new(run, &self.profile.guarantees);
        ingest::ingest(&self.connections, &self.sql, self.found.expires, lots).await
    }

    async fn changes(&self) -> Result<Changes> {
        self.connections.check_open()?;
        match &self.announcements {
            Some(announcements) => announcements.subscribe().await,
            None => Err(Error::unsupported(
                "there is no change feed without the setting `change_feed: true`",
            )),
        }
    }

    /// Told to every process with the change feed, this one included: nothing is in front of the data here, but
    /// caches are elsewhere.
    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.connections.check_open()?;
        match &self.announcements {
            Some(announcements) => announcements.tell(&scope).await,
            None => Ok(()),
        }
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get(key).await?;
        Ok(vec![Inspection::of_entry(PostgresConfig::NAME, "table", value.as_ref())])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.connections.check_open()?;
        if self.config.snapshots == 0 {
            return Err(Error::unsupported("`snapshots` is 0, so no snapshot can be taken"));
        }
        let permit = Arc::clone(&self.snapshots)
            .try_acquire_owned()
            .map_err(|_| snapshot::too_many(self.config.snapshots))?;
        let (sql, timeout) = (Arc::clone(&self.sql), self.config.timeout.0);
        let way = self.connections.way().one_by_one();
        Ok(Arc::new(Snapshot::take(&self.connector, way, sql, timeout, permit).await?))
    }

    async fn flush(&self) -> Result<()> {
        if self.config.durability == Durability::ProcessCrash && !self.config.read_only {
            return upkeep::flush(&self.connections).await;
        }
        self.connections.check_open()
    }

    async fn compact(&self) -> Result<()> {
        self.may_write(Operation::Compact)?;
        let timeout = self.config.timeout.0;
        upkeep::compact(&self.connector, &self.connections, &self.sql, timeout).await
    }

    async fn usage(&self) -> Result<Usage> {
        upkeep::usage(&self.connections, &self.found).await
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.connections.check_open()?;
        if self.sql.check_scans(Operation::Usage).is_err() {
            return Ok(None);
        }
        let (mut range, mut counted) = (Scan::prefix(prefix), 0);
        loop {
            let asked = &range;
            let lot = |lease: pool::Lease| async move {
                let done = read::count(lease.session(), &self.sql, asked).await;
                lease.finish(done)
            };
            let (more, last) = self.connections.read(Operation::Usage, lot).await?;
            counted += more;
            match last {
                Some(last) => range.resume_after(last),
                None => return Ok(Some(counted)),
            }
        }
    }

    async fn close(&self) -> Result<()> {
        if self.config.durability == Durability::ProcessCrash
            && self.may_write(Operation::Flush).is_ok()
        {
            let flushed = upkeep::flush(&self.connections).await;
            self.let_go();
            return flushed;
        }
        self.let_go();
        Ok(())
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn identity(&self) -> Option<Identity> {
        self.found.identity.clone()
    }
}

impl Postgres {
    fn let_go(&self) {
        drop(self.server.lock().take());
        if let Some(announcements) = &self.announcements {
            announcements.close();
        }
        if let Some(sweeper) = &self.sweeper {
            sweeper.abort();
        }
    }
}
