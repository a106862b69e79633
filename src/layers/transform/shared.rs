//! Encoding and decoding batches, pages and values, and counting their bytes.

use bytes::Bytes;

use super::encoding::Transform;
use crate::error::{Error, Result};
use crate::telemetry::{Counter, Labels, names};
use crate::types::{Batch, Entry, Op, Page, Value};

/// What a layer, its stores and its rewriters share.
pub(super) struct Shared<T> {
    pub(super) transform: T,
    pub(super) accept_plain: bool,
    pub(super) name: String,
    pub(super) written: ByteCounters,
    pub(super) read: ByteCounters,
}

impl<T: Transform> Shared<T> {
    pub(super) fn decode(&self, key: &[u8], stored: Value) -> Result<Value> {
        let size = stored.bytes.len();
        let value = self.plain(key, stored)?;
        self.read.add(value.bytes.len(), size);
        Ok(value)
    }

    pub(super) fn decode_found(&self, key: &[u8], stored: Option<Value>) -> Result<Option<Value>> {
        stored.map(|stored| self.decode(key, stored)).transpose()
    }

    pub(super) fn decode_all(
        &self,
        keys: &[Bytes],
        stored: Vec<Option<Value>>,
    ) -> Result<Vec<Option<Value>>> {
        keys.iter().zip(stored).map(|(key, stored)| self.decode_found(key, stored)).collect()
    }

    pub(super) fn plain(&self, key: &[u8], stored: Value) -> Result<Value> {
        if self.accept_plain && !T::is_frame(&stored.bytes) {
            return Ok(stored);
        }
        self.transform.decode(key, stored).map_err(|error| self.blame(error, key))
    }

    /// The next entries, until they reach the size of a page: what is small below may be large above.
    pub(super) fn decode_page(
        &self,
        stored: &mut impl Iterator<Item = Entry>,
        page_bytes: usize,
    ) -> Result<Page> {
        let mut page = Page { entries: Vec::with_capacity(stored.size_hint().0) };
        let mut bytes = 0;
        for Entry { key, value } in stored {
            let value = self.decode(&key, value)?;
            bytes += key.len() + value.bytes.len();
            page.entries.push(Entry { key, value });
            if bytes >= page_bytes {
                break;
            }
        }
        Ok(page)
    }

    pub(super) fn encode_batch(&self, batch: Batch) -> Result<Batch> {
        let (mut logical, mut stored) = (0, 0);
        let batch = batch.try_map(|op| match op {
            Op::Put(key, value) => {
                logical += value.bytes.len();
                let value = self.encode(&key, value)?;
                stored += value.bytes.len();
                Ok(Op::Put(key, value))
            }
            Op::Delete(key) => Ok(Op::Delete(key)),
        })?;
        self.written.add(logical, stored);
        Ok(batch)
    }

    pub(super) fn encode_page(&self, mut page: Page) -> Result<Page> {
        let logical = page.bytes();
        for Entry { key, value } in &mut page.entries {
            *value = self.encode(key, std::mem::take(value))?;
        }
        let keys = page.entries.iter().map(|entry| entry.key.len()).sum::<usize>();
        self.written.add(logical - keys, page.bytes() - keys);
        Ok(page)
    }

    pub(super) fn encode(&self, key: &[u8], value: Value) -> Result<Value> {
        let bytes = self.transform.encode(key, &value).map_err(|error| self.blame(error, key))?;
        Ok(Value { bytes, expires_at: value.expires_at })
    }

    fn blame(&self, error: Error, key: &[u8]) -> Error {
        error.with_layer(self.name.clone()).with_key(key)
    }
}

/// Bytes of values before and after the codec, in one direction.
pub(super) struct ByteCounters {
    logical: Counter,
    stored: Counter,
}

impl ByteCounters {
    pub(super) fn new(labels: &Labels, op: &'static str) -> Self {
        let counter = |stage| labels.counter(names::CODEC_BYTES, &[("stage", stage), ("op", op)]);
        Self { logical: counter("logical"), stored: counter("stored") }
    }

    fn add(&self, logical: usize, stored: usize) {
        self.logical.increment(logical as u64);
        self.stored.increment(stored as u64);
    }
}

/// Runs work for the processor where it holds up no other task.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("encoding did not finish").with_source(error))?
}
