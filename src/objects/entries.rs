//! A store of objects, an entry each.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::folder::InFolder;
use super::names::Naming;
use super::probe;
use super::service::Objects;
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read};
use crate::types::{
    Batch, Commit, Condition, Conditions, Counting, Durability, Freshness, Guarantees, Identity,
    Inspection, Limits, Op, Place, Profile, RESERVED_PREFIX, RunOrder, Usage, Value, check_key,
};

/// Requests at a time of one operation.
pub(super) const CONCURRENCY: usize = 16;

/// What the settings of a backend come to.
pub(crate) struct StoreGuarantees {
    pub(crate) durability: Durability,
    pub(crate) conditions: Conditions,
    pub(crate) scans: bool,
    pub(crate) key_bytes: usize,
    /// Names of others may be longer than those of the longest keys.
    pub(crate) name_bytes: usize,
    pub(crate) value_bytes: u64,
    /// What the objects lie in, such as `bucket`. `None`: this process's memory.
    pub(crate) place: Option<&'static str>,
    /// Only this process can write.
    pub(crate) private: bool,
    /// Whether anything is written here.
    pub(crate) writable: bool,
}

impl StoreGuarantees {
    pub(crate) fn profile(&self, name: &'static str) -> Profile {
        let place =
            |what: &'static str| Place { name: name.into(), what: what.into(), sealed: false };
        let guarantees = Guarantees {
            durability: self.durability,
            durability_on_request: self.durability,
            durability_after_flush: self.durability,
            atomic_batches: false,
            conditions: self.conditions,
            verbatim: true,
            freshness: if self.private { Freshness::Exclusive } else { Freshness::Immediate },
            change_feed: None,
            ordered_scans: self.scans,
            // Names first, then what each has.
            atomic_pages: false,
            snapshots: false,
            expiry: false,
            ingest: self.writable,
            counts: Counting::No,
            writable: self.writable,
            places: self.place.map(place).into_iter().collect(),
            recovery: None,
            limits: Limits {
                key_bytes: self.key_bytes,
                value_bytes: Some(self.value_bytes),
                batch_ops: Some(1),
                ..Limits::default()
            },
        };
        let profile = Profile::backend(name, guarantees);
        let profile = if !self.writable {
            profile.note("`read_only`: nothing is written, made or tried out.")
        } else if self.private {
            profile
        } else {
            profile.note(
                "A write that failed without an answer may take effect a moment later, also over a newer one.",
            )
        };
        if self.scans {
            profile.note(
                "Objects are listed forwards only: the first page of a reverse scan lists every name of its range.",
            )
        } else {
            profile
        }
    }
}

/// The durability that a place has, or that was set for it.
pub(crate) fn check_durability(
    set: Option<Durability>,
    default: Durability,
    most: Durability,
) -> Result<Durability> {
    match set {
        Some(set) if set > most => Err(Error::config(format!(
            "`durability`: what is kept here survives {most}, at most; leave the setting out"
        ))),
        set => Ok(set.unwrap_or(default)),
    }
}

/// What a store is opened with.
pub(crate) struct Opening {
    pub(crate) naming: Naming,
    /// Names of others may be longer than those of the longest keys.
    pub(crate) name_bytes: usize,
    pub(crate) profile: Profile,
    pub(crate) identity: Option<Identity>,
    /// The folder, where objects are files.
    pub(crate) folder: Option<PathBuf>,
    /// Without it nothing is tried out that writes.
    pub(crate) may_create: bool,
}

/// A store of objects.
pub(crate) struct Entries {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) naming: Naming,
    name_bytes: usize,
    profile: Profile,
    identity: Option<Identity>,
    closed: AtomicBool,
}

impl Entries {
    /// Checks that the service does what the profile guarantees.
    pub(crate) async fn open(objects: Arc<dyn Objects>, opening: Opening) -> Result<Self> {
        let Opening { naming, name_bytes, profile, identity, folder, may_create } = opening;
        let objects = match folder {
            Some(folder) => Arc::new(InFolder::new(objects, folder)),
            None => objects,
        };
        let name = profile.name.clone();
        let told = |error: Error| error.with_operation(Operation::Open).with_layer(name.clone());
        if profile.guarantees.ordered_scans {
            probe::listing(&*objects).await.map_err(told)?;
        } else {
            let reached = probe::access(&*objects).await;
            // Without the right to list, S3 refuses to read what is not there. Then the first read tells more.
            let refused = |error: &Error| error.kind() == ErrorKind::Access;
            if !reached.as_ref().is_err_and(|error| refused(error) && !profile.guarantees.writable)
            {
                reached.map_err(told)?;
            }
        }
        if may_create && profile.guarantees.conditions >= Conditions::Absence {
            probe::create(&objects).await.map_err(told)?;
        }
        if may_create && profile.guarantees.conditions == Conditions::Value {
            probe::change(&objects).await.map_err(told)?;
        }
        let closed = AtomicBool::new(false);
        Ok(Self { objects, naming, name_bytes, profile, identity, closed })
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    pub(super) fn told(&self, error: Error, operation: Operation) -> Error {
        error.with_operation(operation).with_layer(self.profile.name.clone())
    }

    pub(super) fn guarantees(&self) -> &Guarantees {
        &self.profile.guarantees
    }

    /// The object of a key. One of others may be there whose key is longer than those that we surely can
    /// write.
    async fn fetch(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let name = self.naming.of(key)?;
        if name.len() > self.name_bytes {
            return Err(Error::invalid(format!(
                "the key has a name of {} bytes here, over this store's limit of {}",
                name.len(),
                self.name_bytes
            )));
        }
        let guarantees = self.guarantees();
        let by_key = !guarantees.writable && !guarantees.ordered_scans;
        match self.objects.get(&name).await {
            // Every stack looks for the mark of a restore, and without the right to list S3 refuses to read what is not there.
            Err(error)
                if error.kind() == ErrorKind::Access
                    && by_key
                    && key.starts_with(RESERVED_PREFIX) =>
            {
                Ok(None)
            }
            found => found,
        }
    }

    /// The object of a key that was listed. `None`: it was removed since.
    pub(super) async fn fetch_listed(
        &self,
        key: &[u8],
        name: &str,
        after: Option<&str>,
    ) -> Result<Option<Bytes>> {
        let found = self.fetch(key).await?;
        if found.is_some() || !self.is_listed(name, after).await? {
            return Ok(found);
        }
        match self.fetch(key).await? {
            Some(found) => Ok(Some(found)),
            None => Err(Error::new(
                ErrorKind::Unsupported,
                "an object is listed and cannot be read by its name: the client library changes it, such as one that begins with `/`, or the service still lists what was removed",
            )),
        }
    }

    /// Looked for behind the name that was before it: its own place may be another, as it is not its name.
    async fn is_listed(&self, name: &str, after: Option<&str>) -> Result<bool> {
        let mut listing = self.objects.list(after);
        while let Some(listed) = listing.try_next().await? {
            if listed.name.as_str() >= name {
                return Ok(listed.name == name);
            }
        }
        Ok(false)
    }

    async fn get_one(&self, key: &[u8], operation: Operation) -> Result<Option<Value>> {
        let found = self.fetch(key).await;
        found
            .map(|found| found.map(Value::new))
            .map_err(|error| self.told(error.with_key(key), operation))
    }

    pub(crate) fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match check_key(key).and_then(|()| self.check_open()) {
            Ok(()) => Reply::later(self.get_one(key, Operation::Get)),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    pub(crate) fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        if let Err(error) =
            keys.iter().try_for_each(|key| check_key(key)).and_then(|()| self.check_open())
        {
            return Reply::Now(Err(error));
        }
        // Each request is boxed: the compiler cannot name a stream of futures that borrow.
        let requests: Vec<_> =
            keys.iter().map(|key| self.get_one(key, Operation::GetMany).boxed()).collect();
        Reply::later(futures_util::stream::iter(requests).buffered(CONCURRENCY).try_collect())
    }

    /// One operation on a key, one condition on it, or both.
    async fn apply(&self, op: Option<Op>, condition: Option<&Condition>) -> Result<()> {
        let Some(key) = op.as_ref().map(Op::key).or(condition.map(Condition::key)) else {
            return Ok(());
        };
        let key = Bytes::copy_from_slice(key);
        let name = self.naming.of(&key)?;
        let required = condition.map(Condition::value);
        // Here no entry has an expiry.
        let never = required.flatten().is_some_and(|value| value.expires_at.is_some());
        let done = match (op, required) {
            _ if never => Ok(false),
            (Some(Op::Put(_, value)), None) => {
                self.objects.put(&name, value.bytes).await.map(|()| true)
            }
            (Some(Op::Put(_, value)), Some(None)) => self.objects.create(&name, value.bytes).await,
            (Some(Op::Put(_, value)), Some(Some(is))) => {
                self.objects.change(&name, &is.bytes, Some(value.bytes)).await
            }
            (Some(Op::Delete(_)), None) => self.objects.delete(&name).await.map(|()| true),
            (Some(Op::Delete(_)), Some(Some(is))) => {
                self.objects.change(&name, &is.bytes, None).await
            }
            // Nothing is to be changed where the condition holds.
            (Some(Op::Delete(_)) | None, Some(is)) => {
                let found = self.fetch(&key).await;
                found.map(|found| found.as_ref() == is.map(|value| &value.bytes))
            }
            (None, None) => Ok(true),
        };
        match (done.map_err(|error| error.with_key(&key))?, condition) {
            (false, Some(condition)) => Err(condition.unmet()),
            _ => Ok(()),
        }
    }

    fn may_write(&self, operation: Operation) -> Result<()> {
        self.check_open()?;
        if self.guarantees().writable {
            return Ok(());
        }
        let message = "the objects are open for reading only (`read_only: true`); leave that out to change them";
        let error = Error::new(ErrorKind::Access, message).with_outcome(Outcome::Nothing);
        Err(self.told(error, operation))
    }

    pub(crate) async fn write(&self, batch: Batch) -> Result<Commit> {
        self.may_write(Operation::Write)?;
        self.guarantees().check_batch(&batch)?;
        // One at most of each, as there are no atomic batches.
        let condition = batch.conditions().first().cloned();
        let op = batch.into_ops().pop();
        let applied = self.apply(op, condition.as_ref()).await;
        applied.map_err(|error| self.told(error, Operation::Write))?;
        Ok(Commit::done())
    }

    /// Many puts at a time.
    pub(crate) async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.may_write(Operation::Ingest)?;
        let mut order = RunOrder::default();
        let pages = run.map(|page| {
            let page = page?;
            order.check(&page)?;
            Ok(futures_util::stream::iter(page.entries.into_iter().map(Ok::<_, Error>)))
        });
        pages
            .try_flatten()
            .map_ok(|entry| async move {
                let batch = Batch::new().put(entry.key, entry.value);
                let _ = self.write(batch).await?;
                Ok(1)
            })
            .try_buffer_unordered(CONCURRENCY)
            .try_fold(0, |sum, one| async move { Ok(sum + one) })
            .await
    }

    pub(crate) fn changes(&self) -> Result<Changes> {
        self.check_open()?;
        Err(Error::unsupported(
            "the service has no change feed: it does not report what others change",
        ))
    }

    /// There is nothing in front of the objects here.
    pub(crate) fn invalidate(&self) -> Result<()> {
        self.check_open()
    }

    pub(crate) async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get(key).await?;
        let place = self.guarantees().places.first().map_or("memory", |place| &*place.what);
        Ok(vec![Inspection::of_entry(&*self.profile.name, place, value.as_ref())])
    }

    pub(crate) fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.check_open()?;
        Err(Error::unsupported("the service has no snapshots of all its objects"))
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        self.check_open()?;
        Ok(Usage::default())
    }

    /// The names of a whole listing, whatever their order.
    pub(crate) async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.check_open()?;
        if !self.guarantees().ordered_scans {
            return Ok(None);
        }
        let mut listing = self.objects.list(None);
        let mut counted = 0;
        while let Some(listed) =
            listing.try_next().await.map_err(|error| self.told(error, Operation::Usage))?
        {
            let begins = |key: Vec<u8>| key.starts_with(prefix);
            let is_within = prefix.is_empty() || self.naming.key(&listed.name).is_some_and(begins);
            counted += u64::from(is_within && !listed.is_mark());
        }
        Ok(Some(counted))
    }

    pub(crate) fn flush(&self) -> Result<()> {
        self.check_open()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn profile(&self) -> Profile {
        self.profile.clone()
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("naming", &self.naming).finish_non_exhaustive()
    }
}

/// A public store whose first field is [`Entries`].
macro_rules! delegate {
    ($store:ty) => {
        #[deny(clippy::missing_trait_methods)]
        impl $crate::store::Read for $store {
            fn get<'a>(
                &'a self,
                key: &'a [u8],
            ) -> $crate::reply::Reply<'a, Option<$crate::types::Value>> {
                self.0.get(key)
            }

            fn get_many<'a>(
                &'a self,
                keys: &'a [bytes::Bytes],
            ) -> $crate::reply::Reply<'a, Vec<Option<$crate::types::Value>>> {
                self.0.get_many(keys)
            }

            fn scan(&self, scan: $crate::types::Scan) -> $crate::store::Pages<'_> {
                self.0.scan(scan)
            }
        }

        #[async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl $crate::store::Store for $store {
            async fn write(
                &self,
                batch: $crate::types::Batch,
            ) -> $crate::error::Result<$crate::types::Commit> {
                self.0.write(batch).await
            }

            async fn write_group(
                &self,
                group: Vec<$crate::types::Batch>,
            ) -> Vec<$crate::error::Result<$crate::types::Commit>> {
                $crate::write_in_order(self, group).await
            }

            async fn ingest(&self, run: $crate::store::Pages<'_>) -> $crate::error::Result<u64> {
                self.0.ingest(run).await
            }

            async fn changes(&self) -> $crate::error::Result<$crate::store::Changes> {
                self.0.changes()
            }

            async fn invalidate(&self, _: $crate::types::Scope) -> $crate::error::Result<()> {
                self.0.invalidate()
            }

            async fn inspect(
                &self,
                key: &[u8],
            ) -> $crate::error::Result<Vec<$crate::types::Inspection>> {
                self.0.inspect(key).await
            }

            async fn snapshot(
                &self,
            ) -> $crate::error::Result<std::sync::Arc<dyn $crate::store::Read>> {
                self.0.snapshot()
            }

            async fn flush(&self) -> $crate::error::Result<()> {
                self.0.flush()
            }

            async fn compact(&self) -> $crate::error::Result<()> {
                self.0.flush()
            }

            async fn usage(&self) -> $crate::error::Result<$crate::types::Usage> {
                self.0.usage()
            }

            async fn count(&self, prefix: &[u8]) -> $crate::error::Result<Option<u64>> {
                self.0.count(prefix).await
            }

            async fn close(&self) -> $crate::error::Result<()> {
                self.0.close();
                Ok(())
            }

            fn profile(&self) -> $crate::types::Profile {
                self.0.profile()
            }

            fn identity(&self) -> Option<$crate::types::Identity> {
                self.0.identity()
            }
        }
    };
}
pub(crate) use delegate;
