//! Keys of tierstack's own are refused and hidden, for every operation of every stack.
//!
//! The wrapper is between what encodes values and what stores them, where a restore reads and writes its
//! mark below it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::forward;
use crate::reply::Reply;
use crate::store::{Change, Changes, Pages, Read, Store};
use crate::types::{
    Batch, Commit, Condition, Inspection, Op, Page, RESERVED_PREFIX, Scan, Usage, Value,
};
use crate::write_group::write_admitted;

/// A store without the keys that begin with [`RESERVED_PREFIX`].
pub(super) struct Reserved<S>(pub(super) S);

fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED_PREFIX)
}

fn check(key: &[u8]) -> Result<()> {
    if is_reserved(key) {
        let message = "keys that begin with \\0tierstack/ are kept for tierstack; use another key";
        return Err(Error::invalid(message).with_key(key));
    }
    Ok(())
}

fn admit(batch: Batch) -> Result<Batch> {
    let keys = batch.ops().iter().map(Op::key);
    keys.chain(batch.conditions().iter().map(Condition::key)).try_for_each(|key| check(key))?;
    Ok(batch)
}

/// A page without reserved keys, and how many it had.
fn visible(mut page: Page) -> (Page, usize) {
    let before = page.len();
    page.entries.retain(|entry| !is_reserved(&entry.key));
    let hidden = before - page.len();
    (page, hidden)
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Reserved<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match check(key) {
            Ok(()) => self.0.get(key),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match keys.iter().try_for_each(|key| check(key)) {
            Ok(()) => self.0.get_many(keys),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    /// What is hidden does not count towards the limit: the scan goes on for as many entries more.
    fn scan(&self, scan: Scan) -> Pages<'_> {
        struct State<'a> {
            pages: Pages<'a>,
            rest: Scan,
            hidden: u64,
        }
        let limited = scan.limit.is_some();
        let state = State { pages: self.0.scan(scan.clone()), rest: scan, hidden: 0 };
        futures_util::stream::try_unfold(state, move |mut state| async move {
            loop {
                let Some(page) = state.pages.try_next().await? else {
                    if !limited || state.hidden == 0 {
                        return Ok(None);
                    }
                    let more = Scan { limit: Some(state.hidden), ..state.rest.clone() };
                    state.hidden = 0;
                    state.pages = self.0.scan(more);
                    continue;
                };
                if let Some(last) = page.entries.last() {
                    state.rest.resume_after(last.key.clone());
                }
                let (page, hidden) = visible(page);
                state.hidden += hidden as u64;
                if !page.is_empty() {
                    return Ok(Some((page, state)));
                }
            }
        })
        .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Reserved<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.0.write(admit(batch)?).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        write_admitted(&self.0, group, admit).await
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let checked = run.and_then(|page| {
            let checked = page.entries.iter().try_for_each(|entry| check(&entry.key));
            ready(checked.map(|()| page))
        });
        self.0.ingest(checked.boxed()).await
    }

    async fn changes(&self) -> Result<Changes> {
        let changes = self.0.changes().await?;
        let seen = |change| match change {
            Change::Keys(mut keys) => {
                keys.retain(|key| !is_reserved(key));
                (!keys.is_empty()).then_some(Change::Keys(keys))
            }
            change => Some(change),
        };
        Ok(changes.filter_map(move |change| ready(seen(change))).boxed())
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        check(key)?;
        self.0.inspect(key).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        Ok(Arc::new(Reserved(self.0.snapshot().await?)))
    }

    /// Counts what is hidden, to take it off.
    async fn usage(&self) -> Result<Usage> {
        let usage = self.0.usage().await?;
        let Some(entries) = usage.entries.filter(|_| self.0.profile().guarantees.ordered_scans)
        else {
            return Ok(usage);
        };
        let hidden = self.0.scan(Scan::prefix(RESERVED_PREFIX).keys_only());
        let count = |sum, page: Page| ready(Ok(sum + page.len() as u64));
        let hidden = hidden.try_fold(0, count).await?;
        Ok(Usage { entries: Some(entries.saturating_sub(hidden)), ..usage })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        let Some(entries) = self.0.count(prefix).await? else { return Ok(None) };
        if prefix.starts_with(RESERVED_PREFIX) {
            return Ok(Some(0));
        }
        if !RESERVED_PREFIX.starts_with(prefix) {
            return Ok(Some(entries));
        }
        let hidden = self.0.scan(Scan::prefix(RESERVED_PREFIX));
        let count = |sum, page: Page| ready(Ok(sum + page.len() as u64));
        let hidden = hidden.try_fold(0, count).await?;
        Ok(Some(entries.saturating_sub(hidden)))
    }

    forward!(self => self.0; invalidate, flush, compact, close, profile, identity);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Memory;
    use crate::error::ErrorKind;
    use crate::ext::{ReadExt, StoreExt};

    fn own(name: &str) -> Bytes {
        [RESERVED_PREFIX, name.as_bytes()].concat().into()
    }

    async fn store() -> (Arc<Memory>, Reserved<Arc<Memory>>) {
        let below = Arc::new(Memory::new());
        let mut batch = Batch::new().put("\0a", "1").put("a", "2").put("b", "3").put("c", "4");
        for n in 0..5 {
            batch.push(Op::Put(own(&n.to_string()), "mark".into()));
        }
        let _ = below.write(batch).await.unwrap();
        (Arc::clone(&below), Reserved(below))
    }

    #[tokio::test]
    async fn every_operation_refuses_a_reserved_key_and_nothing_is_written() {
        let (below, store) = store().await;
        let key = own("restore");
        let both = [Bytes::from("a"), key.clone()];
        let page =
            Page { entries: vec![crate::types::Entry { key: key.clone(), value: "v".into() }] };
        let errors = [
            store.get(&key).await.err(),
            store.get_many(&both).await.err(),
            store.inspect(&key).await.err(),
            store.put(key.clone(), "v").await.err(),
            store.write(Batch::new().put("new", "v").delete(key.clone())).await.err(),
            store
                .write(Batch::new().put("new", "v").require(Condition::absent(key.clone())))
                .await
                .err(),
            store.ingest(futures_util::stream::iter([Ok(page)]).boxed()).await.err(),
        ];
        for (at, error) in errors.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("operation {at} took a reserved key"));
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        assert_eq!(below.get(&key).await.unwrap(), None);
        assert_eq!(below.get(b"new").await.unwrap(), None);
    }

    #[tokio::test]
    async fn scans_and_snapshots_and_counts_hide_reserved_keys() {
        let (_, store) = store().await;
        let snapshot = store.snapshot().await.unwrap();
        let keys = |entries: Vec<crate::types::Entry>| -> Vec<Bytes> {
            entries.into_iter().map(|entry| entry.key).collect()
        };
        for limit in 0..6 {
            for page in [1, 2, 100] {
                let want: Vec<Bytes> =
                    ["\0a", "a", "b", "c"].into_iter().take(limit).map(Bytes::from).collect();
                let scan = Scan::all().limit(limit as u64).page_entries(page);
                assert_eq!(keys(store.collect(scan.clone()).await.unwrap()), want);
                assert_eq!(keys(snapshot.collect(scan.clone()).await.unwrap()), want);
                let want: Vec<Bytes> =
                    ["c", "b", "a", "\0a"].into_iter().take(limit).map(Bytes::from).collect();
                assert_eq!(keys(store.collect(scan.clone().reverse()).await.unwrap()), want);
                let scan = scan.keys_only();
                assert_eq!(keys(store.collect(scan.clone().reverse()).await.unwrap()), want);
                let values = snapshot.collect(scan.clone()).await.unwrap();
                assert!(values.iter().all(|entry| entry.value == Value::default()));
                let mut forward = keys(store.collect(scan.clone()).await.unwrap());
                assert_eq!(forward, keys(values));
                assert_eq!(
                    forward,
                    keys(store.collect(Scan { keys_only: false, ..scan }).await.unwrap())
                );
                forward.retain(|key| is_reserved(key));
                assert!(forward.is_empty());
            }
        }
        assert!(store.collect(Scan::prefix(RESERVED_PREFIX)).await.unwrap().is_empty());
        assert_eq!(snapshot.get(&own("1")).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(store.usage().await.unwrap().entries, Some(4));
    }
}
