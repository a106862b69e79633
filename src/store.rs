//! The contract: [`Read`] and [`Store`].
//!
//! Both traits are object-safe and have no provided methods: every wrapper decides about every
//! operation. Conveniences are in [`StoreExt`](crate::StoreExt).
//!
//! Each method answers six questions: what a missing key gives; atomicity; ordering and visibility;
//! durability on return; what a dropped future leaves behind; which kinds of error. Every method may
//! also fail with `Closed` after [`Store::close`], with `Timeout` under a `timeout` layer, and with
//! `Internal`, which is a defect to report; these are not repeated.

mod forward;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::error::Result;
use crate::forward;
use crate::reply::Reply;
use crate::types::{Batch, Commit, Identity, Inspection, Page, Profile, Scan, Scope, Usage, Value};

/// A stream of the pages of a scan. Nothing is read before it is polled, and no lock or permit is
/// held between pages. After an error the stream ends.
///
/// The keys and values of a page may be slices of one buffer, which lives for as long as any of them does. Code
/// that keeps one beyond its page copies it ([`Bytes::copy_from_slice`]); otherwise a million kept keys hold
/// a million pages. What [`Read::get`] and [`Read::get_many`] give has bytes of its own.
///
/// ```
/// # tokio_test::block_on(async {
/// use futures_util::TryStreamExt;
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, Pages, Read, Scan, Store};
///
/// let store = Memory::new();
/// store.write(Batch::new().put("a", "1").put("b", "2").put("c", "3")).await?;
/// let mut pages: Pages<'_> = store.scan(Scan::all().page_entries(2));
/// let mut sizes = Vec::new();
/// while let Some(page) = pages.try_next().await? {
///     sizes.push(page.len());
/// }
/// assert_eq!(sizes, [2, 1]);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub type Pages<'a> = BoxStream<'a, Result<Page>>;

/// The change feed of a store, from [`Store::changes`]. Ends when the store is closed.
///
/// ```
/// # tokio_test::block_on(async {
/// use futures_util::StreamExt;
/// use tierstack::{Change, Changes};
///
/// async fn count(changes: Changes) -> usize {
///     let keys = |change| match change {
///         Change::Keys(keys) => keys.len(),
///         Change::Prefix(_) | Change::All | Change::Lost => 0,
///     };
///     changes.map(keys).fold(0, |sum, keys| async move { sum + keys }).await
/// }
///
/// let changes = [Change::Keys(vec!["a".into(), "b".into()]), Change::Lost, Change::All];
/// assert_eq!(count(futures_util::stream::iter(changes).boxed()).await, 2);
/// # });
/// ```
pub type Changes = BoxStream<'static, Change>;

/// A change that bypassed this stack.
///
/// ```
/// use tierstack::Change;
///
/// let change = Change::Keys(vec!["user:1".into()]);
/// assert_eq!(format!("{change:?}"), "Keys(1)", "keys do not print");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// These keys were, or may have been, written, deleted or expired.
    Keys(Vec<Bytes>),
    /// Any key that begins with these bytes may have been changed. With an empty prefix that is any key;
    /// other than [`Change::All`] this does not end a [`Change::Lost`].
    Prefix(Bytes),
    /// Any key may have been changed. What follows is reported again.
    All,
    /// From now until [`Change::All`], changes are not reported: the connection is lost.
    Lost,
}

/// Prints how many keys, never the keys.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(keys) => write!(f, "Keys({})", keys.len()),
            Self::Prefix(prefix) => write!(f, "Prefix({} bytes)", prefix.len()),
            Self::All => f.write_str("All"),
            Self::Lost => f.write_str("Lost"),
        }
    }
}

/// Reading: what stores and snapshots have in common.
///
/// Keys are 1 to 65,536 bytes, ordered bytewise. Values are bytes, possibly none.
///
/// Data that cannot be reached are never said to be absent: the call fails as `Unavailable`, `Timeout` or `Access`. A
/// cache answers what it keeps, by its own rules.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Read, Result, Store, StoreExt};
///
/// // Takes a store as well as a snapshot.
/// async fn name(from: &impl Read) -> Result<String> {
///     let value = from.get(b"name").await?.unwrap_or_default();
///     Ok(String::from_utf8_lossy(&value.bytes).into_owned())
/// }
///
/// let store = Memory::new();
/// store.put("name", "Ada").await?;
/// let before = store.snapshot().await?;
/// store.put("name", "Bob").await?;
/// assert_eq!((name(&before).await?, name(&store).await?), ("Ada".to_owned(), "Bob".to_owned()));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub trait Read: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// - **Missing key**: `None`; so is one that has expired.
    /// - **Atomicity**: a value is whole, as one write left it.
    /// - **Ordering, visibility**: sees every write through this stack that was acknowledged before
    ///   the call, and no older value. A snapshot sees the moment at which it was taken.
    /// - **Durability**: of a write that was not yet acknowledged: unspecified.
    /// - **Dropped future**: nothing is left behind. A load into a cache may go on.
    /// - **Errors**: `InvalidInput` (key), `Corruption` (of this entry), `Unavailable`, `Access`.
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>>;

    /// The values of several keys, in the order of the keys, one for each.
    ///
    /// - **Missing key**: `None` in its place. A key may occur more than once.
    /// - **Atomicity**: each value is whole; together they need not be of one moment. Take a
    ///   snapshot for that.
    /// - **Ordering, visibility**: as [`get`](Self::get) for each key.
    /// - **Durability**: as [`get`](Self::get).
    /// - **Dropped future**: nothing is left behind.
    /// - **Errors**: as [`get`](Self::get); one failing key fails the call.
    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>>;

    /// The entries of a range, in key order, a page at a time.
    ///
    /// - **Missing key**: an empty range gives a stream without pages; pages are never empty.
    /// - **Atomicity**: each entry is whole, and where the profile says `atomic_pages`, each page is of one
    ///   moment: it holds an atomic batch wholly or not at all. Over a store, pages need not be of the same
    ///   moment: an entry that exists throughout the scan is seen exactly once, one that is written or deleted
    ///   meanwhile may be seen or not. Over a snapshot, the scan is of one moment.
    /// - **Ordering, visibility**: bytewise by key, forward or reverse; sees at least every write
    ///   acknowledged before the stream was first polled. Expired entries do not appear.
    /// - **Keys only** ([`Scan::keys_only`]): the same keys, each with an empty value without an expiry. Values are
    ///   not checked: a key appears whose value is `Corruption` to a read.
    /// - **Durability**: as [`get`](Self::get).
    /// - **Dropped stream**: nothing is left behind.
    /// - **Errors**: `Unsupported` without ordered scans; `Corruption` of one entry ends the scan;
    ///   `Unavailable`, `Access`.
    fn scan(&self, scan: Scan) -> Pages<'_>;
}

/// A key-value store: a backend, a layer over one, or a whole stack.
///
/// `examples/custom_backend.rs` is a store of one's own, from its settings to its tests.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, ErrorKind, Read, Store};
///
/// let store = Memory::new();
/// store.write(Batch::new().put("a", "1").put("b", "2")).await?.durable().await?;
/// assert_eq!(store.get(b"b").await?, Some("2".into()));
///
/// store.close().await?;
/// assert_eq!(store.get(b"b").await.unwrap_err().kind(), ErrorKind::Closed);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[async_trait]
pub trait Store: Read {
    /// Applies a batch.
    ///
    /// - **Missing key**: deleting one succeeds.
    /// - **Atomicity**: all operations or none, for readers and across a crash; its conditions are checked at
    ///   the moment at which it takes effect, against every writer of the data. Where the profile does not
    ///   say `atomic_batches`, a batch of more than one operation is `Unsupported`, unless the store can apply
    ///   just that one atomically, as all its keys are kept in one place.
    /// - **Ordering, visibility**: the last operation of a key wins. Once acknowledged, every read
    ///   through the stack sees it. Concurrent batches take effect in some order, the same for all.
    /// - **Durability**: at least `durability` of the profile; [`Commit::durable`] waits for what
    ///   the whole stack guarantees. A batch that asks for more than `durability_on_request` is `Unsupported`; one that
    ///   asks for less than `durability` survives at least what it asks for.
    /// - **Dropped future**: the batch takes effect wholly or not at all; which is unknown.
    /// - **Errors**: `InvalidInput` (key, limits), `Unsupported`, `Capacity`, `Conflict` (nothing was
    ///   written), `Unavailable`, `Access`. After `Unavailable` and `Timeout` the outcome is unknown, and
    ///   writing the same batch again is safe, unless it has [conditions](Batch::conditions), which its
    ///   own entries may break. [`Error::outcome`](crate::Error::outcome) tells the two apart.
    async fn write(&self, batch: Batch) -> Result<Commit>;

    /// Applies several batches, in order, in the way in which the store does this fastest: it syncs once, or
    /// asks its server once. Gives one answer for each batch, in the same order.
    ///
    /// What takes effect is a prefix of the group. At the first batch that fails, for whatever reason, the group
    /// ends: its answer is the error, and no later one is written.
    ///
    /// - **Missing key**: as [`write`](Self::write). An empty group gives no answers.
    /// - **Atomicity**: each batch as in [`write`](Self::write), with its own conditions; the group is not atomic.
    ///   A crash leaves a prefix of it.
    /// - **Ordering, visibility**: the batches take effect in the order given, so the conditions of one see the
    ///   effects of those before it. A reader may see any prefix, and a later reader no shorter one. Batches of
    ///   other callers may take effect between them.
    /// - **Durability**: as a [`write`](Self::write) of each.
    /// - **Dropped future**: a prefix of the group takes effect; which is unknown.
    /// - **Errors**: of the first batch that fails, as [`write`](Self::write). Behind it, `Aborted`: the batch was
    ///   not written; but where the store cannot tell how far the group came, each of these has an error whose
    ///   [`outcome`](crate::Error::outcome) is unknown. Where one says that nothing of it happened, so does each
    ///   behind it.
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use tierstack::backends::Memory;
    /// use tierstack::{Batch, Condition, Read, Store};
    ///
    /// let store = Memory::new();
    /// let take = |from, to| Batch::new().put("stock", to).require(Condition::equals("stock", from));
    /// let group = vec![Batch::new().put("stock", "3"), take("3", "2"), take("3", "1")];
    /// let answers = store.write_group(group).await;
    /// assert!(answers[1].is_ok() && answers[2].is_err());
    /// assert_eq!(store.get(b"stock").await?, Some("2".into()));
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>>;

    /// Puts a run of entries, in strictly ascending key order, in the way in which the store loads
    /// most entries in the least time. Gives their number.
    ///
    /// [`StoreExt::load`](crate::StoreExt::load) does the same with every store.
    ///
    /// - **Missing key**: does not apply. Entries that exist are replaced, others stay.
    /// - **Atomicity**: each entry is whole, the run is not: after an error any part of it may be there.
    /// - **Ordering, visibility**: on return every read through the stack sees the whole run, before
    ///   that any part of it. Between the pages of the run others read and write, so that it may be read
    ///   through the same store. What remains of a key that is written meanwhile is unspecified.
    /// - **Durability**: on return as after a [`write`](Self::write).
    /// - **Dropped future**: any part of the run may be there, and a part may still arrive.
    /// - **Errors**: the first error of the run, as it is; `Unsupported` without `ingest`; `InvalidInput`
    ///   for a run that is out of order; otherwise as [`write`](Self::write).
    async fn ingest(&self, run: Pages<'_>) -> Result<u64>;

    /// The change feed: every change that bypasses this stack and takes effect after the
    /// call has returned, within `change_feed` of the guarantees. Changes made through this stack may be
    /// among them. Each call is a subscription of its own, held until the stream is dropped.
    ///
    /// - **Missing key**: does not apply.
    /// - **Atomicity**: the keys of a batch may come apart.
    /// - **Ordering, visibility**: a reported change is seen by every read that begins after the
    ///   report. What took effect before the call returned is reported as well, or seen by every
    ///   read that begins afterwards: so what is read from then on may be kept until a change is reported.
    /// - **Durability**: none. When the connection is lost, [`Change::Lost`] says so, and
    ///   [`Change::All`] when it is there again: the stream goes on by itself. A reader that falls
    ///   behind gets [`Change::All`] in place of what it missed.
    /// - **Dropped future or stream**: nothing is left behind.
    /// - **Errors**: `Unsupported` without a change feed; `Unavailable`, `Access`.
    async fn changes(&self) -> Result<Changes>;

    /// Drops what is kept of these keys in front of the data: in every cache of this stack, and where the
    /// store below can tell them, in the caches of other processes. The data themselves are not changed, and
    /// what has still to be written is not lost. For changes that are in no change feed.
    ///
    /// - **Missing key**: keys of which nothing is kept, and that no store takes, succeed.
    /// - **Atomicity**: the keys may come apart.
    /// - **Ordering, visibility**: a read that begins after the call has returned finds what the data below
    ///   held at the beginning of the call, or something newer: what loads under way bring is neither kept
    ///   nor given to such a read. Another process follows within `change_feed` of the guarantees.
    /// - **Durability**: holds for as long as a cache keeps entries.
    /// - **Dropped future**: some of it may be dropped; call it again.
    /// - **Errors**: `Unavailable`, `Access`. What is kept in this process is dropped all the same.
    async fn invalidate(&self, scope: Scope) -> Result<()>;

    /// What each place that keeps entries has of a key, outermost first: each cache, and the backend. For
    /// operators who look for the reason of an answer. It is no read: it fills and promotes nothing, counts as
    /// no hit, and leaves what is evicted next as it is.
    ///
    /// - **Missing key**: each place says that it has nothing.
    /// - **Atomicity**: the places are looked at one after the other.
    /// - **Ordering, visibility**: roughly of this moment. An entry that has expired, and was not removed yet,
    ///   may be seen.
    /// - **Durability**: does not apply.
    /// - **Dropped future**: nothing is left behind.
    /// - **Errors**: as [`get`](Read::get).
    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>>;

    /// A frozen view of this moment. It outlives flushes, compactions and later writes, and may be
    /// used from many tasks; dropping it releases it. It may hold back space meanwhile.
    ///
    /// - **Missing key**: a key that did not exist at this moment stays missing. Time does not pass
    ///   in the view: an entry that expires later stays in it.
    /// - **Atomicity**: of one moment; a batch is in it wholly or not at all.
    /// - **Ordering, visibility**: contains every write acknowledged before the call, none begun
    ///   after it returned.
    /// - **Durability**: gone with the process.
    /// - **Dropped future**: no view is left behind.
    /// - **Errors**: `Unsupported` without snapshots; `Unavailable`.
    async fn snapshot(&self) -> Result<Arc<dyn Read>>;

    /// Makes every acknowledged write as durable as the store can make it.
    ///
    /// - **Missing key**: does not apply.
    /// - **Atomicity**: covers every write acknowledged before the call.
    /// - **Ordering, visibility**: changes nothing that a reader can see.
    /// - **Durability**: `durability_after_flush` of the profile on return.
    /// - **Dropped future**: some, all or none of the work is done; call it again.
    /// - **Errors**: `Capacity`, `Unavailable`, and a failure of earlier background work, which is
    ///   returned here at the latest.
    async fn flush(&self) -> Result<()>;

    /// Reclaims space. May take long and cost bandwidth; reads and writes go on meanwhile.
    ///
    /// - **Missing key**: does not apply.
    /// - **Atomicity**: changes nothing that a reader can see.
    /// - **Ordering, visibility**: unchanged.
    /// - **Durability**: unchanged.
    /// - **Dropped future**: the work may go on in the background.
    /// - **Errors**: `Capacity`, `Unavailable`. A store with nothing to reclaim succeeds.
    async fn compact(&self) -> Result<()>;

    /// How much the store holds. Cheap; numbers may be estimates, and `None` where unknown: the number
    /// of entries is as precise as `counts` of the profile.
    ///
    /// - **Missing key**: does not apply.
    /// - **Atomicity**, **ordering**: numbers of roughly this moment.
    /// - **Durability**: does not apply.
    /// - **Dropped future**: nothing is left behind.
    /// - **Errors**: `Unavailable`.
    async fn usage(&self) -> Result<Usage>;

    /// Counts the entries whose keys begin with these bytes, in the backend's own way and not by its scans: so a
    /// scan that misses some is found out. Reads as much as it needs. `None`: there is no such way, or other
    /// things would be counted too.
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use tierstack::backends::Memory;
    /// use tierstack::{Store, StoreExt};
    ///
    /// let store = Memory::new();
    /// store.put("a/1", "x").await?;
    /// store.put("b", "y").await?;
    /// assert_eq!((store.count(b"").await?, store.count(b"a/").await?), (Some(2), Some(1)));
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    ///
    /// - **Missing key**: does not apply.
    /// - **Atomicity**: of one moment, or of several while others write.
    /// - **Ordering, visibility**: counts every acknowledged write, also an entry that cannot be read, and none
    ///   that has expired.
    /// - **Durability**: does not apply.
    /// - **Dropped future**: nothing is left behind. A thread may count on for a moment.
    /// - **Errors**: `Unavailable`, `Access`. `Unsupported`, with the name of one, where there are things that no
    ///   entry can be and that scans pass by, as the settings say.
    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>>;

    /// Flushes, ends background work and releases what the store holds. The caller that opened the store
    /// closes it. A second call succeeds and does nothing; other operations then fail with `Closed`.
    /// Snapshots taken before stay usable until they are dropped, or fail with `Closed`.
    ///
    /// - **Missing key**: does not apply.
    /// - **Atomicity**: operations that run meanwhile finish or fail with `Closed`.
    /// - **Ordering, visibility**: every acknowledged write is covered.
    /// - **Durability**: as after [`flush`](Self::flush).
    /// - **Dropped future**: the store may be partly closed; call it again.
    /// - **Errors**: as [`flush`](Self::flush); the store is closed nevertheless.
    async fn close(&self) -> Result<()>;

    /// What this store is, guarantees, and has below it. Does not change while the store is open.
    fn profile(&self) -> Profile;

    /// Which data the store holds, so that what was kept of it is not taken for that of another store, and
    /// a store is not copied onto itself. `None`: the store cannot tell. Does not change while the store is
    /// open; needs no request. Layers give that of the store below, and `prefix` its part of it.
    fn identity(&self) -> Option<Identity>;
}

#[deny(clippy::missing_trait_methods)]
impl<R: Read + ?Sized> Read for Arc<R> {
    forward!(self => **self; get, get_many, scan);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store + ?Sized> Store for Arc<S> {
    forward!(self => **self; write, write_group, ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, profile, identity);
}
