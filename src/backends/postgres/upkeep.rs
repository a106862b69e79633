//! Upkeep: expired entries, vacuum, sizes, and what `flush` means where a commit does not wait.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio_postgres::Error as Theirs;
use tokio_postgres::types::Type;

use super::connect::Connector;
use super::error::failed;
use super::open::Found;
use super::pool::{Connections, within};
use super::session::Session;
use super::sql::Statements;
use crate::clock::{Clock, SystemClock};
use crate::error::{Operation, Result};
use crate::types::Usage;

/// Expired entries that one statement removes.
const LOT: i64 = 1000;
/// From one sweep to the next.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Removes expired entries now and then, a lot at a time, until the store is gone.
pub(super) async fn sweep_for_ever(connections: Weak<Connections>, sql: Arc<Statements>) {
    let Some(text) = &sql.sweep else { return };
    loop {
        SystemClock.sleep(SWEEP_EVERY).await;
        loop {
            let Some(connections) = connections.upgrade() else { return };
            let swept = async {
                let lease = connections.lease(Operation::Compact).await?;
                let done = sweep(lease.session(), text).await;
                lease.finish(done.map_err(|error| failed(Operation::Compact, error)))
            };
            match connections.within(Operation::Compact, swept).await {
                Ok(removed) if removed >= LOT => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "expired entries could not be removed");
                    break;
                }
            }
        }
    }
}

/// Removes a lot, and gives the number of its rows.
async fn sweep(session: Session<'_>, text: &str) -> Result<i64, Theirs> {
    let rows = session.query(text, vec![(&LOT, Type::INT8)]).await?;
    rows.first().map_or(Ok(0), |row| row.try_get(0))
}

/// Removes what has expired, then vacuums. It may take long, so it has a connection of its own and no
/// deadline; but it is given up when the server does not answer meanwhile.
pub(super) async fn compact(
    connector: &Connector,
    connections: &Connections,
    sql: &Statements,
    timeout: Duration,
) -> Result<()> {
    let operation = Operation::Compact;
    let fail = |error| failed(operation, error);
    connections.check_open()?;
    let client = connector.client(operation, None).await?;
    let work = async {
        let session = Session { client: &client, way: connections.way() };
        if session.way.has_session() {
            client.batch_execute("SET statement_timeout = 0").await.map_err(fail)?;
        }
        if let Some(text) = &sql.sweep {
            while sweep(session, text).await.map_err(fail)? > 0 {}
        }
        client.batch_execute(&sql.vacuum).await.map_err(fail)
    };
    let watch = async {
        loop {
            SystemClock.sleep(timeout).await;
            let ask = async {
                let lease = connections.lease(operation).await?;
                let done = lease.batch_execute("").await.map_err(fail);
                lease.finish(done)
            };
            if let Err(error) = within(operation, timeout, ask).await {
                return error;
            }
        }
    };
    match select(std::pin::pin!(work), std::pin::pin!(watch)).await {
        Either::Left((done, _)) => done,
        Either::Right((error, _)) => Err(error),
    }
}

/// A commit that waits for the disk, and with it every one before it.
const FLUSH: &str = "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'tierstack', ''); COMMIT";

pub(super) async fn flush(connections: &Connections) -> Result<()> {
    let work = async {
        let lease = connections.lease(Operation::Flush).await?;
        // An error may leave the transaction open: then the connection is not given back.
        lease.batch_execute(FLUSH).await.map_err(|error| failed(Operation::Flush, error))?;
        lease.finish(Ok(()))
    };
    connections.within(Operation::Flush, work).await
}

/// As the planner estimates: the density that the last vacuum saw, times the pages of today.
const USAGE: &str = "SELECT reltuples::float8, relpages::float8, pg_relation_size(oid)::float8 / current_setting('block_size')::int, pg_total_relation_size(oid) FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'r'";

pub(super) async fn usage(connections: &Connections, found: &Found) -> Result<Usage> {
    let fail = |error| failed(Operation::Usage, error);
    let work = |lease: super::pool::Lease| async move {
        let done = async {
            let asked = found.table.to_string();
            let rows =
                lease.session().query(USAGE, vec![(&asked, Type::TEXT)]).await.map_err(fail)?;
            // The parts of a partitioned table would have to be visited one by one.
            let Some(row) = rows.first() else { return Ok(Usage::default()) };
            let number = |at: usize| row.try_get::<_, f64>(at).map_err(fail);
            let bytes: i64 = row.try_get(3).map_err(fail)?;
            Ok(Usage {
                entries: estimate(number(0)?, number(1)?, number(2)?),
                memory_bytes: None,
                stored_bytes: Some(bytes.unsigned_abs()),
            })
        };
        let done = done.await;
        lease.finish(done)
    };
    connections.read(Operation::Usage, work).await
}

fn estimate(rows: f64, pages: f64, pages_now: f64) -> Option<u64> {
    if pages_now == 0.0 {
        return Some(0);
    }
    // -1, and before version 14 a 0: it was never vacuumed or analysed.
    (rows > 0.0 && pages > 0.0).then(|| (rows / pages * pages_now).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_counted_is_not_estimated() {
        assert_eq!(estimate(-1.0, 0.0, 0.0), Some(0));
        assert_eq!(estimate(-1.0, 0.0, 3.0), None);
        assert_eq!(estimate(0.0, 0.0, 3.0), None);
        assert_eq!(estimate(100.0, 2.0, 3.0), Some(150));
    }
}
