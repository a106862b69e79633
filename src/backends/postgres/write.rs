//! Batches.
//!
//! One put, one delete, or puts alone are one statement, and so one round trip without a transaction
//! around it. Any other batch is a transaction that is sent whole, in one round trip too.
//!
//! Such a batch deletes, or depends on what is there. Neither conflicts with anything where a key is absent, so
//! it takes the locks of its keys, alone (see [`super::locks`]), which puts take shared. It takes them before
//! its transaction begins, which sees one moment (`REPEATABLE READ`): where another program got between
//! that moment and a row, it fails and is tried again. The locks pass from the session to the transaction once
//! that has begun, so none outlives it.
//!
//! Rows are locked in the order of their keys, so that batches wait for each other and do not deadlock.
//! A batch that others got in the way of is tried again after a pause; the last attempts lock the table
//! against other writers, so that it comes to an end however busy its keys are. So does every attempt of a
//! batch that needs a key to be absent which it does not put, as nothing else keeps other programs from putting
//! it; and every attempt where there is no session that could take locks before a transaction begins.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Error as Theirs;
use tokio_postgres::types::Type;

use super::error::{does_not_hold, failed, failed_whole, is_late, is_serialization, not_written};
use super::expires::Expires;
use super::locks;
use super::pool::Connections;
use super::read;
use super::redacted::Unprinted;
use super::session::{Parameter, Session, Step};
use super::sql::Statements;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Operation, Result};
use crate::types::{Batch, Condition, Value};

/// Attempts, of which those after the first few lock the table.
const FREE_ATTEMPTS: usize = 4;
const ATTEMPTS: usize = 8;
/// The pause before the second attempt; it doubles from there.
const PAUSE: Duration = Duration::from_millis(5);

/// How often something is repeated that may have crossed with what others wrote.
const REPEATS: usize = 3;

/// What one statement carries at most. PostgreSQL takes messages of 1 GB.
const STATEMENT_BYTES: usize = 16 << 20;
const STATEMENT_ROWS: usize = 8192;

/// Entries, column by column.
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

    fn parameters(&self) -> [Parameter<'_>; 3] {
        [
            (&self.keys, Type::BYTEA_ARRAY),
            (&self.values, Type::BYTEA_ARRAY),
            (&self.expires, Type::INT8_ARRAY),
        ]
    }
}

/// A batch as it is sent: in the order of the keys, one operation for each.
struct Plan<'a> {
    puts: Vec<Rows<'a>>,
    deletes: Unprinted<Vec<&'a [u8]>>,
    /// Keys that must be absent.
    absent: Unprinted<Vec<&'a [u8]>>,
    /// Entries that must be there.
    equal: Rows<'a>,
    /// All keys.
    keys: Unprinted<Vec<&'a [u8]>>,
    locks: Vec<i32>,
    conditions: &'a [Condition],
    /// See [`Connections::fence`].
    fence: i64,
}

/// How a batch is sent.
enum Way<'a> {
    Put { key: &'a [u8], value: &'a [u8], expires: &'a Option<i64>, absent: bool },
    PutMany(&'a Rows<'a>),
    Delete(&'a [u8]),
    Transaction { alone: bool },
}

impl<'a> Plan<'a> {
    fn new(batch: &'a Batch, kept: Expires, fence: i64) -> Result<Self> {
        let mut ops = batch.last_ops();
        ops.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let deletes: Vec<&[u8]> =
            ops.iter().filter(|op| op.value().is_none()).map(|op| op.key().as_ref()).collect();
        let puts: Vec<(&Bytes, &Value)> =
            ops.iter().filter_map(|op| Some((op.key(), op.value()?))).collect();
        let (mut absent, mut equal) = (Vec::new(), Rows::default());
        for condition in batch.conditions() {
            match condition.value() {
                None => absent.push(condition.key().as_ref()),
                Some(value) => {
                    let expires = value.expires_at.map(|at| at.as_millis().cast_signed());
                    equal.push(condition.key(), &value.bytes, expires);
                }
            }
        }
        let mut keys: Vec<&[u8]> = ops.iter().map(|op| op.key().as_ref()).collect();
        keys.extend(absent.iter().chain(&equal.keys.0));
        for keys in [&mut keys, &mut absent] {
            keys.sort_unstable();
            keys.dedup();
        }
        let locks = locks::of_keys(keys.iter().copied());
        Ok(Self {
            puts: in_statements(puts, kept)?,
            deletes: Unprinted(deletes),
            absent: Unprinted(absent),
            equal,
            keys: Unprinted(keys),
            locks,
            conditions: batch.conditions(),
            fence,
        })
    }

    fn way(&self) -> Way<'_> {
        let (absent, equal) = (&self.absent.0[..], &self.equal.keys.0[..]);
        match (&self.puts[..], &self.deletes.0[..], absent, equal) {
            ([rows], [], _, []) if self.keys.0.len() == 1 => {
                // Each column has the one row.
                match (&rows.keys.0[..], &rows.values.0[..], &rows.expires[..]) {
                    ([key], [value], [expires]) => {
                        Way::Put { key, value, expires, absent: !absent.is_empty() }
                    }
                    _ => Way::Transaction { alone: false },
                }
            }
            ([rows], [], [], []) => Way::PutMany(rows),
            ([], [key], [], []) => Way::Delete(key),
            _ => {
                let writes = !(self.puts.is_empty() && self.deletes.0.is_empty());
                let alone = writes && !self.absent.0.iter().all(|key| self.is_put(key));
                Way::Transaction { alone }
            }
        }
    }

    fn is_put(&self, key: &[u8]) -> bool {
        self.puts.iter().any(|rows| rows.keys.0.binary_search(&key).is_ok())
    }
}

fn in_statements<'a>(puts: Vec<(&'a Bytes, &'a Value)>, kept: Expires) -> Result<Vec<Rows<'a>>> {
    let mut statements: Vec<Rows<'a>> = Vec::new();
    let mut bytes = 0;
    for (key, value) in puts {
        let size = key.len() + value.bytes.len();
        let expires = kept.of_value(value).map_err(|error| error.with_key(key))?;
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

/// Why a batch was not written.
enum Stop {
    Theirs(Theirs),
    Ours(Error),
}

impl Stop {
    /// Something in the table keeps the entry as it was.
    fn kept(key: &[u8]) -> Self {
        Self::Ours(not_written().with_key(key))
    }
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
    if batch.is_empty() && !batch.is_conditional() {
        return connections.check_open();
    }
    for op in batch.ops() {
        if let Some(value) = op.value() {
            sql.value.check(&value.bytes).map_err(|error| error.with_key(op.key()))?;
        }
    }
    let sent = sql.key.batch(batch)?;
    write_sent(connections, sql, kept, &sent).await.map_err(|error| sql.key.error(error))
}

async fn write_sent(
    connections: &Connections,
    sql: &Statements,
    kept: Expires,
    batch: &Batch,
) -> Result<()> {
    let begun = SystemClock.monotonic();
    let mut plan = Plan::new(batch, kept, connections.fence(Duration::ZERO))?;
    let attempts = async {
        let mut late = false;
        let mut pauses = connections.backoff(PAUSE, ATTEMPTS - 1).enumerate();
        loop {
            let pause = pauses.next();
            let patient = pause.is_some_and(|(attempt, _)| attempt < FREE_ATTEMPTS);
            let lease = connections.lease(Operation::Write).await?;
            match (apply(lease.session(), sql, &plan, patient).await, pause) {
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
                // Of which one statement may have been done.
                (Err(Stop::Theirs(error)), _)
                    if matches!(plan.way(), Way::Delete(_) | Way::Put { absent: true, .. }) =>
                {
                    return lease.finish(Err(failed(Operation::Write, error)));
                }
                (Err(Stop::Theirs(error)), _) => return lease.finish(Err(failed_whole(error))),
                (Err(Stop::Ours(error)), _) => return lease.finish(Err(error)),
            }
        }
    };
    connections.within(Operation::Write, attempts).await
}

async fn apply(
    session: Session<'_>,
    sql: &Statements,
    plan: &Plan<'_>,
    patient: bool,
) -> Result<(), Stop> {
    let fence: Parameter<'_> = (&plan.fence, Type::INT8);
    match plan.way() {
        Way::Put { key, value, expires, absent } => {
            let (bytes, value) = (Unprinted(key), Unprinted(value));
            let lock = locks::of_key(key);
            let parameters: Vec<Parameter<'_>> = vec![
                (&bytes, Type::BYTEA),
                (&value, Type::BYTEA),
                (expires, Type::INT8),
                fence,
                (&lock, Type::INT4),
            ];
            if !absent {
                let rows = session.query(&sql.put, parameters).await?;
                return if rows.is_empty() { Err(Stop::kept(key)) } else { Ok(()) };
            }
            for _ in 0..REPEATS {
                let put = Step::With(&sql.put_absent, parameters.clone());
                let get = Step::With(&sql.get, vec![(&bytes, Type::BYTEA)]);
                match &session.send(vec![put, get]).await?[..] {
                    [put, _] if !put.is_empty() => return Ok(()),
                    [_, there] if !there.is_empty() => {
                        return Err(Stop::Ours(Error::exists(key)));
                    }
                    // It may have been there, and be gone.
                    _ => {}
                }
            }
            Err(Stop::kept(key))
        }
        Way::PutMany(rows) => {
            let mut parameters = rows.parameters().to_vec();
            parameters.extend([fence, (&plan.locks, Type::INT4_ARRAY)]);
            session.query(&sql.put_many, parameters).await?;
            Ok(())
        }
        Way::Delete(key) => delete(session, sql, key, fence).await,
        Way::Transaction { alone } => {
            let alone = alone || !patient || !session.way.has_session();
            match transaction(session, sql, plan, alone).await {
                Err(error) if does_not_hold(&error) => {
                    let first = plan.conditions.first().map(Condition::unmet);
                    let unmet = unmet(session, sql, plan).await?.or(first);
                    Err(unmet.map_or(Stop::Theirs(error), Stop::Ours))
                }
                done => Ok(done?),
            }
        }
    }
}

/// The error of the first condition that does not hold, as it is now.
async fn unmet(
    session: Session<'_>,
    sql: &Statements,
    plan: &Plan<'_>,
) -> Result<Option<Error>, Stop> {
    if plan.conditions.is_empty() {
        return Ok(None);
    }
    let keys = plan.conditions.iter().map(|condition| condition.key().as_ref()).collect();
    let found = read::get_sent(session, sql, keys).await.map_err(Stop::Ours)?;
    let mut conditions = plan.conditions.iter().zip(found);
    let unmet = conditions.find(|(condition, found)| !condition.holds(found.as_ref()));
    Ok(unmet.map(|(condition, _)| condition.unmet()))
}

/// Where no row was deleted and there is one afterwards, another program has put it meanwhile, or something in
/// the table keeps it.
async fn delete<'a>(
    session: Session<'a>,
    sql: &'a Statements,
    key: &'a [u8],
    fence: Parameter<'a>,
) -> Result<(), Stop> {
    let bytes = Unprinted(key);
    for _ in 0..REPEATS {
        let parameters: Vec<Parameter<'_>> = vec![(&bytes, Type::BYTEA)];
        let both = [parameters.clone(), vec![fence.clone()]].concat();
        let steps = vec![Step::With(&sql.delete, both), Step::With(&sql.is_there, parameters)];
        let answers = session.send(steps).await?;
        let [deleted, there] = &answers[..] else { return Ok(()) };
        if !deleted.is_empty() || there.is_empty() {
            return Ok(());
        }
    }
    Err(Stop::kept(key))
}

fn array<'a>(keys: &'a Unprinted<Vec<&'a [u8]>>) -> Parameter<'a> {
    (keys, Type::BYTEA_ARRAY)
}

/// A transaction in one round trip. After an error the server takes `COMMIT` for `ROLLBACK`; where it is
/// `BEGIN` that failed, as the server was told to cancel what it does, the others refuse to be run.
async fn transaction(
    session: Session<'_>,
    sql: &Statements,
    plan: &Plan<'_>,
    alone: bool,
) -> Result<(), Theirs> {
    let fence: Parameter<'_> = (&plan.fence, Type::INT8);
    let locks = || -> Vec<Parameter<'_>> { vec![(&plan.locks, Type::INT4_ARRAY)] };
    let mut steps = if alone {
        vec![Step::Plain(&sql.begin_alone)]
    } else {
        vec![
            Step::With(&sql.lock_keys, locks()),
            Step::Plain(&sql.begin),
            Step::With(&sql.take_over, locks()),
        ]
    };
    steps.push(Step::With(&sql.lock_rows, vec![array(&plan.keys), fence.clone()]));
    if !(plan.absent.0.is_empty() && plan.equal.expires.is_empty()) {
        let mut conditions = vec![array(&plan.absent)];
        conditions.extend(plan.equal.parameters());
        steps.push(Step::With(&sql.hold, conditions));
    }
    for rows in &plan.puts {
        let mut parameters = rows.parameters().to_vec();
        parameters.push(fence.clone());
        steps.push(Step::With(&sql.put_beside, parameters));
    }
    if !plan.deletes.0.is_empty() {
        steps.push(Step::With(&sql.delete_many, vec![array(&plan.deletes)]));
        steps.push(Step::With(&sql.are_gone, vec![array(&plan.deletes)]));
    }
    steps.push(Step::Plain("COMMIT"));
    let done = session.send_all(steps).await;
    if done.is_err() && !alone {
        // Where it failed before the transaction took them over. Where this fails too, the connection is
        // broken, which is seen when it is used next.
        let _ = session.client.batch_execute("SELECT pg_advisory_unlock_all()").await;
    }
    done.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Op;

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
        assert!(plan.locks.is_sorted() && plan.absent.0.is_empty());
        assert!(matches!(plan.way(), Way::Transaction { alone: false }));
        let batch = batch.if_absent().require(Condition::equals("e", "5"));
        let plan = Plan::new(&batch, Expires::Millis, 0).unwrap();
        assert_eq!(plan.absent.0, [b"a", b"b", b"c"], "what is put must be absent");
        assert_eq!((&plan.equal.keys.0[..], plan.keys.0.len()), (&[&b"e"[..]][..], 5));
        assert!(matches!(plan.way(), Way::Transaction { alone: true }), "b is not put");
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
}
