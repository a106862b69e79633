//! Reading a view that can be taken away: how the store and its snapshots read.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::blocking::offload;
use super::look_up::{checked, look_up};
use super::read_source::View;
use super::read_tier::Tier;
use super::scan;
use crate::error::{Error, Operation, Result};
use crate::reply::Reply;
use crate::store::{Pages, Read};
use crate::types::{Scan, Value, check_key};

/// Keys that one call looks up on the caller's thread at most, in about 200 µs; a thread does the rest.
const INLINE_KEYS: usize = 256;
/// Reads of the disk that one call makes on the caller's thread at most, while they are fast.
const INLINE_READS: usize = 8;

/// Reads a view until it is closed.
pub(super) struct Reader<V>(ArcSwapOption<V>);

impl<V: View> Reader<V> {
    pub(super) fn new(view: V) -> Self {
        Self(ArcSwapOption::from_pointee(view))
    }

    /// The view, to be used at once and not to be kept: closing waits until it is let go.
    pub(super) fn view(&self) -> Result<Arc<V>> {
        self.0.load_full().ok_or_else(closed)
    }

    /// Takes the view away. Reads that have begun go on.
    pub(super) fn close(&self) -> Option<Arc<V>> {
        self.0.swap(None)
    }

    /// Does the work on the view in a thread.
    pub(super) async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce(&V) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let view = self.view()?;
        offload(move || work(&view)).await
    }
}

/// The value of a key that is not in memory. `None`: a thread has to read it.
fn from_disk_inline<V: View>(
    view: &V,
    key: &[u8],
    operation: Operation,
) -> Result<Option<Option<Value>>> {
    let Some(_held) = view.engine().pace().hold() else { return Ok(None) };
    look_up(view, key, Tier::Disk, operation)
}

fn closed() -> Error {
    Error::closed().with_layer("rocksdb")
}

#[deny(clippy::missing_trait_methods)]
impl<V: View> Read for Reader<V> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if let Err(error) = check_key(key) {
            return Reply::Now(Err(error));
        }
        let view = self.0.load();
        let Some(view) = view.as_ref() else { return Reply::Now(Err(closed())) };
        match look_up(&**view, key, Tier::Memory, Operation::Get) {
            Ok(Some(value)) => Reply::Now(Ok(value)),
            Ok(None) => match from_disk_inline(&**view, key, Operation::Get) {
                Ok(Some(value)) => Reply::Now(Ok(value)),
                Ok(None) => Reply::later(self.get_from_disk(key)),
                Err(error) => Reply::Now(Err(error)),
            },
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        if let Err(error) = keys.iter().try_for_each(|key| check_key(key)) {
            return Reply::Now(Err(error));
        }
        let view = self.0.load();
        let Some(view) = view.as_ref() else { return Reply::Now(Err(closed())) };
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        let mut inline_reads = INLINE_READS;
        for (at, key) in keys.iter().enumerate() {
            if at >= INLINE_KEYS {
                values.resize(keys.len(), None);
                missing.extend(at..keys.len());
                break;
            }
            let found = match look_up(&**view, key, Tier::Memory, Operation::GetMany) {
                Ok(None) if inline_reads > 0 => {
                    inline_reads -= 1;
                    from_disk_inline(&**view, key, Operation::GetMany)
                }
                found => found,
            };
            match found {
                Ok(Some(value)) => values.push(value),
                Ok(None) => {
                    values.push(None);
                    missing.push(at);
                }
                Err(error) => return Reply::Now(Err(error)),
            }
        }
        if missing.is_empty() {
            Reply::ready(values)
        } else {
            Reply::later(self.fill_from_disk(keys, values, missing))
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        scan::pages(|| self.view(), scan)
    }
}

impl<V: View> Reader<V> {
    async fn get_from_disk(&self, key: &[u8]) -> Result<Option<Value>> {
        let wanted = Bytes::copy_from_slice(key);
        self.offload(move |view| {
            let read = || look_up(view, &wanted, Tier::Disk, Operation::Get);
            // On the disk nothing is out of reach.
            Ok(view.engine().pace().probe(1, read)?.flatten())
        })
        .await
    }

    /// Reads the values that are not in memory, all in one hop.
    async fn fill_from_disk(
        &self,
        keys: &[Bytes],
        mut values: Vec<Option<Value>>,
        missing: Vec<usize>,
    ) -> Result<Vec<Option<Value>>> {
        let wanted: Vec<Bytes> = missing.iter().filter_map(|at| keys.get(*at)).cloned().collect();
        let read = self.offload(move |view| {
            let read = || view.get_many(&wanted);
            let answers = view.engine().pace().probe(wanted.len(), read).into_iter().zip(&wanted);
            answers
                .map(|(answer, key)| {
                    let found = checked(view, key, Tier::Disk, Operation::GetMany, answer);
                    Ok(found?.flatten())
                })
                .collect::<Result<Vec<_>>>()
        });
        for (at, value) in missing.into_iter().zip(read.await?) {
            if let Some(place) = values.get_mut(at) {
                *place = value;
            }
        }
        Ok(values)
    }
}
