//! Runs.
//!
//! A run is cut into lots. While one is written the next is gathered, so no connection is held while the
//! run is waited for. A lot between whose first and last key the table has none is added by `COPY`, which
//! is more than twice as fast as a batch but cannot replace; any other lot is written as a batch.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::try_join;
use futures_util::stream::Fuse;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::Error as Theirs;

use super::error::{cannot_copy, failed};
use super::expires::Expires;
use super::pool::{Connections, Lease};
use super::redacted::Unprinted;
use super::sql::Statements;
use super::write::write;
use crate::error::{Error, Operation, Result};
use crate::store::Pages;
use crate::types::{Batch, Guarantees, Op, RunOrder};

/// What a lot has at least, unless it is the last.
const LOT_ENTRIES: usize = 8192;
const LOT_BYTES: usize = 4 << 20;

/// A run in lots.
pub(super) struct Lots<'a> {
    run: Fuse<Pages<'a>>,
    order: RunOrder,
    guarantees: &'a Guarantees,
}

impl<'a> Lots<'a> {
    pub(super) fn new(run: Pages<'a>, guarantees: &'a Guarantees) -> Self {
        Self { run: run.fuse(), order: RunOrder::default(), guarantees }
    }

    /// The next lot; the one behind the last is empty.
    async fn next(&mut self) -> Result<Batch> {
        let (mut ops, mut bytes) = (Vec::new(), 0);
        while ops.len() < LOT_ENTRIES && bytes < LOT_BYTES {
            let Some(page) = self.run.try_next().await? else { break };
            self.order.check(&page)?;
            bytes += page.bytes();
            ops.extend(page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value)));
        }
        let lot = ops.into_iter().collect();
        self.guarantees.check_batch(&lot)?;
        Ok(lot)
    }
}

/// Writes a run, and gives the number of its entries.
pub(super) async fn ingest(
    connections: &Connections,
    sql: &Statements,
    kept: Expires,
    mut lots: Lots<'_>,
) -> Result<u64> {
    let mut entries = 0;
    let mut lot = lots.next().await?;
    while !lot.is_empty() {
        let written = async {
            // `COPY` tells no key of what it refuses.
            for op in lot.ops() {
                sql.key.to_sent(op.key())?;
                if let Some(value) = op.value() {
                    sql.value.check(&value.bytes).map_err(|error| error.with_key(op.key()))?;
                }
            }
            match &sql.copy {
                Some(text) if add(connections, sql, text, &lot).await? => Ok(()),
                _ => write(connections, sql, kept, &lot).await,
            }
        };
        // An error of the run waits until the lot before it is written, which would arrive later else.
        let ((), next) = try_join(written, async { Ok(lots.next().await) }).await?;
        entries += lot.len() as u64;
        lot = next?;
    }
    Ok(entries)
}

/// Adds a lot by `COPY`. `false`: nothing was written, as this lot needs another way.
async fn add(connections: &Connections, sql: &Statements, copy: &str, lot: &Batch) -> Result<bool> {
    let operation = Operation::Ingest;
    let (Some(first), Some(last)) = (lot.ops().first(), lot.ops().last()) else { return Ok(true) };
    let (first, last): (&[u8], &[u8]) = (first.key(), last.key());
    let work = async {
        let lease = connections.lease(operation).await?;
        let done = async {
            // A key that travels as it is.
            let any = lease.prepare_cached(&sql.any_between).await?;
            let any = lease.query_one(&any, &[&Unprinted(first), &Unprinted(last)]).await?;
            if any.try_get(0)? {
                return Ok(None);
            }
            copied(&lease, copy, in_binary(lot, sql.keeps_expires)).await.map(Some)
        };
        let done = match done.await {
            // A key that came to be meanwhile.
            Err(error) if cannot_copy(&error) => Ok(false),
            Ok(Some(rows)) if rows != lot.len() as u64 => Err(left_out(lot.len() as u64, rows)),
            done => done.map(|rows| rows.is_some()).map_err(|error| failed(operation, error)),
        };
        lease.finish(done)
    };
    connections.within(operation, work).await
}

fn left_out(entries: u64, rows: u64) -> Error {
    Error::invalid(format!(
        "of {entries} entries {rows} were written: a trigger of the table keeps the others out"
    ))
    .with_operation(Operation::Ingest)
    .with_layer("postgres")
}

/// Gives the number of rows that were added.
async fn copied(lease: &Lease, copy: &str, rows: Bytes) -> Result<u64, Theirs> {
    let statement = lease.prepare_cached(copy).await?;
    let mut sink = std::pin::pin!(lease.copy_in(&statement).await?);
    // Where this fails, the reason comes with the answer.
    let _ = sink.send(rows).await;
    sink.finish().await
}

/// The rows as `COPY` takes them: <https://www.postgresql.org/docs/current/sql-copy.html>, Binary Format.
fn in_binary(lot: &Batch, expires: bool) -> Bytes {
    let puts = || lot.ops().iter().filter_map(|op| Some((op.key(), op.value()?)));
    let size: usize = puts().map(|(key, value)| key.len() + value.bytes.len() + 22).sum();
    let mut rows = BytesMut::with_capacity(size + 21);
    rows.put_slice(b"PGCOPY\n\xff\r\n\0");
    // Neither flags nor an extension.
    rows.put_u64(0);
    for (key, value) in puts() {
        rows.put_u16(if expires { 3 } else { 2 });
        for bytes in [key, &value.bytes] {
            // Both are far below 2 GiB, by the limits of the store.
            rows.put_u32(bytes.len() as u32);
            rows.put_slice(bytes);
        }
        match value.expires_at {
            _ if !expires => {}
            Some(at) => {
                rows.put_u32(8);
                rows.put_u64(at.as_millis());
            }
            None => rows.put_i32(-1),
        }
    }
    rows.put_i16(-1);
    rows.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::types::Value;

    #[test]
    fn rows_are_laid_out_as_documented() {
        let value = Value::new("vw").expiring_at(Timestamp::from_millis(258));
        let lot = Batch::new().put("k", value).put("l", "");
        let head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
        let rows = b"\0\x03\0\0\0\x01k\0\0\0\x02vw\0\0\0\x08\0\0\0\0\0\0\x01\x02\0\x03\0\0\0\x01l\0\0\0\0\xff\xff\xff\xff\xff\xff";
        assert_eq!(in_binary(&lot, true), [&head[..], &rows[..]].concat());
        let rows = b"\0\x02\0\0\0\x01k\0\0\0\x02vw\0\x02\0\0\0\x01l\0\0\0\0\xff\xff";
        assert_eq!(in_binary(&lot, false), [&head[..], &rows[..]].concat());
    }
}
