//! Batches.
//!
//! One put, one delete, or puts alone are one statement, and so one round trip without a transaction
//! around it. A batch that deletes is a transaction that sees one moment (`REPEATABLE READ`): a delete
//! takes no lock on a row that is not there yet, so under `READ COMMITTED` a batch of another process
//! could take effect between two deletes and be torn. It is sent whole in one round trip, too.
//!
//! Rows are locked in the order of their keys, so that batches wait for each other and do not deadlock.
//! A batch that others got in the way of is tried again after a pause; the last attempts lock the table
//! against other writers, so that it comes to an end however busy its keys are.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::future::join5;
use tokio_postgres::Error as Theirs;
use tokio_postgres::types::ToSql;

use super::failure::{failed, is_late, is_serialization};
use super::parameter::Unprinted;
use super::pool::Connections;
use super::sql::{Expires, Statements};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Operation, Result};
use crate::types::{Batch, Op, Value};

/// Attempts, of which those after the first few lock the table.
const FREE_ATTEMPTS: usize = 4;
const ATTEMPTS: usize = 8;
/// The pause before the second attempt; it doubles from there.
const PAUSE: Duration = Duration::from_millis(5);

/// What one statement carries at most. PostgreSQL takes messages of 1 GB.
const STATEMENT_BYTES: usize = 16 << 20;
const STATEMENT_ROWS: usize = 8192;

/// A deadline later than this, some 285,000 years from now, is none that a `timestamptz` can hold.
const LAST_TIMESTAMP: u64 = 9_000_000_000_000_000;

/// The rows of a statement that puts, column by column.
#[derive(Default)]
struct Rows<'a> {
    keys: Unprinted<Vec<&'a [u8]>>,
    values: Unprinted<Vec<&'a [u8]>>,
    expires: Vec<Option<i64>>,
}

impl<'a> Rows<'a> {
    fn push(&mut self, key: &'a [u8], value: &'a [u8], expires: Option<i64>) {
        self.keys.0.push(key);
        self.values.0.push(value);
        self.expires.push(expires);
    }

    fn parameters<'b>(&'b self, fence: &'b i64) -> [&'b (dyn ToSql + Sync); 4] {
        [&self.keys, &self.values, &self.expires, fence]
    }
}

/// A batch as it is sent: in the order of the keys, one operation for each.
struct Plan<'a> {
    puts: Vec<Rows<'a>>,
    deletes: Unprinted<Vec<&'a [u8]>>,
    /// All keys.
    keys: Unprinted<Vec<&'a [u8]>>,
    /// See [`Connections::fence`].
    fence: i64,
}

impl<'a> Plan<'a> {
    fn new(batch: &'a Batch, kept: Expires, fence: i64) -> Result<Self> {
        let mut ops = batch.last_ops();
        ops.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let deletes: Vec<&[u8]> =
            ops.iter().filter(|op| op.value().is_none()).map(|op| op.key().as_ref()).collect();
        let keys = ops.iter().map(|op| op.key().as_ref()).collect();
        let mut puts: Vec<(&Bytes, &Value)> =
            ops.iter().filter_map(|op| Some((op.key(), op.value()?))).collect();
        if batch.is_conditional() && !deletes.is_empty() {
            // What is put and then deleted must be absent too: it is put, and then deleted.
            let put_first = batch.ops().iter().filter_map(|op| match op {
                Op::Put(key, value) if deletes.binary_search(&key.as_ref()).is_ok() => {
                    Some((key, value))
                }
                _ => None,
            });
            puts.extend(put_first);
            puts.sort_by(|a, b| a.0.cmp(b.0));
            puts.dedup_by(|a, b| a.0 == b.0);
        }
        let (deletes, keys) = (Unprinted(deletes), Unprinted(keys));
        Ok(Self { puts: in_statements(puts, kept)?, deletes, keys, fence })
    }
}

fn in_statements<'a>(puts: Vec<(&'a Bytes, &'a Value)>, kept: Expires) -> Result<Vec<Rows<'a>>> {
    let mut statements: Vec<Rows<'a>> = Vec::new();
    let mut bytes = 0;
    for (key, value) in puts {
        let size = key.len() + value.bytes.len();
        let expires = expires(value, kept).map_err(|error| error.with_key(key))?;
        if statements.last().is_none_or(|rows| rows.expires.len() >= STATEMENT_ROWS)
            || bytes + size > STATEMENT_BYTES
        {
            statements.push(Rows::default());
            bytes = 0;
        }
        if let Some(rows) = statements.last_mut() {
            rows.push(key, &value.bytes, expires);
            bytes += size;
        }
    }
    Ok(statements)
}

fn expires(value: &Value, kept: Expires) -> Result<Option<i64>> {
    let Some(at) = value.expires_at else { return Ok(None) };
    if kept == Expires::Timestamp && at.as_millis() > LAST_TIMESTAMP {
        return Err(Error::invalid(
            "a deadline that far away does not fit into the column, a timestamptz; leave it out",
        ));
    }
    Ok(Some(at.as_millis().cast_signed()))
}

/// Why a batch was not written.
enum Stop {
    Theirs(Theirs),
    /// A key that was to be absent exists.
    Exists(Error),
}

impl From<Theirs> for Stop {
    fn from(error: Theirs) -> Self {
        Self::Theirs(error)
    }
}

/// Applies a batch within the deadline.
pub(super) async fn write(
    connections: &Connections,
    sql: &Statements,
    kept: Expires,
    batch: &Batch,
) -> Result<()> {
    if batch.is_empty() {
        return connections.open();
    }
    let begun = SystemClock.monotonic();
    let mut plan = Plan::new(batch, kept, connections.fence(Duration::ZERO))?;
    let attempts = async {
        let mut late = false;
        let mut pauses = connections.backoff(PAUSE, ATTEMPTS - 1).enumerate();
        loop {
            let pause = pauses.next();
            let alone = pause.is_none_or(|(attempt, _)| attempt >= FREE_ATTEMPTS);
            let lease = connections.lease(Operation::Write).await?;
            match (apply(&lease, sql, &plan, batch, alone).await, pause) {
                (Ok(()), _) => return lease.finish(Ok(())),
                // The server has undone all of it.
                (Err(Stop::Theirs(error)), Some((_, pause))) if is_serialization(&error) => {
                    lease.finish(Ok(()))?;
                    SystemClock.sleep(pause).await;
                }
                // It may be on time, but the clocks have drifted apart, or the server's was set.
                (Err(Stop::Theirs(error)), _) if is_late(&error) && !late => {
                    late = true;
                    let read = connections.read_clock(&lease).await;
                    lease.finish(read.map_err(|error| failed(Operation::Write, error)))?;
                    plan.fence = connections.fence(SystemClock.monotonic().saturating_sub(begun));
                }
                (Err(Stop::Theirs(error)), _) => {
                    return lease.finish(Err(failed(Operation::Write, error)));
                }
                (Err(Stop::Exists(error)), _) => return lease.finish(Err(error)),
            }
        }
    };
    connections.within(Operation::Write, attempts).await
}

async fn apply(
    client: &ClientWrapper,
    sql: &Statements,
    plan: &Plan<'_>,
    batch: &Batch,
    alone: bool,
) -> Result<(), Stop> {
    match (&plan.puts[..], &plan.deletes.0[..]) {
        ([], [key]) => {
            let statement = client.prepare_cached(&sql.delete).await?;
            client.execute(&statement, &[&Unprinted(*key), &plan.fence]).await?;
            Ok(())
        }
        ([rows], []) if rows.expires.len() == 1 => {
            put(client, sql, rows, batch.is_conditional(), plan.fence).await
        }
        ([rows], []) if !batch.is_conditional() => {
            let statement = client.prepare_cached(&sql.put_many).await?;
            client.execute(&statement, &rows.parameters(&plan.fence)).await?;
            Ok(())
        }
        ([] | [_], deletes) if !deletes.is_empty() && !batch.is_conditional() && !alone => {
            at_once(client, sql, plan).await
        }
        _ => {
            let done = in_steps(client, sql, plan, batch.is_conditional(), alone).await;
            if done.is_err() {
                // Where this fails too, the connection is broken, which whoever uses it next is told.
                let _ = client.batch_execute("ROLLBACK").await;
            }
            done
        }
    }
}

async fn put(
    client: &ClientWrapper,
    sql: &Statements,
    rows: &Rows<'_>,
    if_absent: bool,
    fence: i64,
) -> Result<(), Stop> {
    let (Some(key), Some(value), Some(expires)) =
        (rows.keys.0.first(), rows.values.0.first(), rows.expires.first())
    else {
        return Ok(());
    };
    let statement =
        client.prepare_cached(if if_absent { &sql.put_absent } else { &sql.put }).await?;
    let written = client
        .execute(&statement, &[&Unprinted(*key), &Unprinted(*value), expires, &fence])
        .await?;
    if if_absent && written == 0 {
        return Err(Stop::Exists(Error::exists(key)));
    }
    Ok(())
}

/// A transaction in one round trip: everything is sent in the first poll, so a future that is dropped has
/// sent all of it or nothing. After an error the server takes `COMMIT` for `ROLLBACK`; where it is `BEGIN`
/// that failed, as the server was told to cancel what it does, the others refuse to be run.
async fn at_once(client: &ClientWrapper, sql: &Statements, plan: &Plan<'_>) -> Result<(), Stop> {
    let lock = client.prepare_cached(&sql.lock_rows).await?;
    let put = client.prepare_cached(&sql.put_beside).await?;
    let delete = client.prepare_cached(&sql.delete_many).await?;
    let putting = async {
        match plan.puts.first() {
            Some(rows) => client.execute(&put, &rows.parameters(&plan.fence)).await.map(drop),
            None => Ok(()),
        }
    };
    let (begun, locked, put, deleted, committed) = join5(
        client.batch_execute(BEGIN),
        client.execute(&lock, &[&plan.keys, &plan.fence]),
        putting,
        client.execute(&delete, &[&plan.deletes]),
        client.batch_execute("COMMIT"),
    )
    .await;
    // The first of them is the cause; those behind it say that the transaction is aborted.
    begun?;
    locked?;
    put?;
    deleted?;
    committed?;
    Ok(())
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";

/// A transaction statement by statement: of a batch that is too large for one, or that depends on what
/// it finds, or that nobody else is to write beside.
async fn in_steps(
    client: &ClientWrapper,
    sql: &Statements,
    plan: &Plan<'_>,
    if_absent: bool,
    alone: bool,
) -> Result<(), Stop> {
    let put =
        client.prepare_cached(if if_absent { &sql.put_many_absent } else { &sql.put_many }).await?;
    client.batch_execute(BEGIN).await?;
    if alone {
        // Before the first statement that sees rows, and with it the moment that the transaction sees.
        client.batch_execute(&sql.lock_table).await?;
    }
    if !plan.deletes.0.is_empty() {
        let lock = client.prepare_cached(&sql.lock_rows).await?;
        client.execute(&lock, &[&plan.keys, &plan.fence]).await?;
    }
    for rows in &plan.puts {
        let parameters = rows.parameters(&plan.fence);
        if if_absent {
            let written = client.query(&put, &parameters).await?;
            let written: HashSet<&[u8]> =
                written.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            if let Some(key) = rows.keys.0.iter().find(|key| !written.contains(*key)) {
                return Err(Stop::Exists(Error::exists(key)));
            }
        } else {
            client.execute(&put, &parameters).await?;
        }
    }
    if !plan.deletes.0.is_empty() {
        let delete = client.prepare_cached(&sql.delete_many).await?;
        client.execute(&delete, &[&plan.deletes]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::error::ErrorKind;

    #[test]
    fn a_batch_is_sorted_and_each_key_is_there_once() {
        let batch =
            Batch::new().put("c", "1").delete("b").put("a", "2").put("c", "3").put("b", "4");
        let batch = batch.delete("b").delete("d");
        let plan = Plan::new(&batch, Expires::Millis, 0).unwrap();
        let [rows] = &plan.puts[..] else { panic!("{} statements", plan.puts.len()) };
        assert_eq!(rows.keys.0, [b"a", b"c"]);
        assert_eq!(rows.values.0, [b"2", b"3"]);
        assert_eq!(plan.deletes.0, [b"b", b"d"]);
        assert_eq!(plan.keys.0, [b"a", b"b", b"c", b"d"]);
        let plan = Plan::new(&batch, Expires::Millis, 0).unwrap();
        assert_eq!(plan.puts[0].keys.0.len(), 2);
        let batch = batch.if_absent();
        let plan = Plan::new(&batch, Expires::Millis, 0).unwrap();
        assert_eq!(plan.puts[0].keys.0, [b"a", b"b", b"c"], "what is put must be absent");
    }

    #[test]
    fn large_batches_are_cut_into_statements() {
        let values: Batch =
            (0..5u8).map(|n| Op::Put(vec![n].into(), vec![0; 6 << 20].into())).collect();
        let plan = Plan::new(&values, Expires::Millis, 0).unwrap();
        let sizes: Vec<_> = plan.puts.iter().map(|rows| rows.expires.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
        let many: Batch =
            (0..10_000u32).map(|n| Op::Put(n.to_be_bytes().to_vec().into(), "v".into())).collect();
        assert_eq!(Plan::new(&many, Expires::Millis, 0).unwrap().puts.len(), 2);
    }

    #[test]
    fn a_deadline_beyond_the_column_is_refused() {
        let late = Value::new("v").expiring_at(Timestamp::from_millis(u64::MAX));
        assert_eq!(expires(&late, Expires::Millis).unwrap(), Some(-1));
        let error = expires(&late, Expires::Timestamp).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
