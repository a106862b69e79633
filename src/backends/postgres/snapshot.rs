//! A frozen view: a transaction that reads only, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use tokio::sync::OwnedSemaphorePermit;

use super::connect::Connector;
use super::error::failed;
use super::pool::within;
use super::read;
use super::session::{Session, Way};
use super::sql::Statements;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::reply::Reply;
use crate::store::{Pages, Read};
use crate::types::{Scan, Value, check_key};

/// The view of a transaction. The connection ends with it, and with that the transaction: whatever state
/// it is in, nobody else ever meets it.
pub(super) struct Snapshot {
    client: ClientWrapper,
    way: Way,
    sql: Arc<Statements>,
    timeout: Duration,
    /// One of the snapshots that there may be at a time.
    _permit: OwnedSemaphorePermit,
}

impl Snapshot {
    pub(super) async fn take(
        connector: &Connector,
        way: Way,
        sql: Arc<Statements>,
        timeout: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self> {
        let operation = Operation::Snapshot;
        let client = connector.client(operation, None).await?;
        let fixing = async {
            client.batch_execute(&sql.freeze).await.map_err(|error| failed(operation, error))
        };
        let fixed = within(operation, timeout, fixing).await;
        fixed.map_err(|error| match error.kind() {
            ErrorKind::Access => error.with_context(
                "a snapshot is of the whole table, which the role must see: under row-level security it needs BYPASSRLS",
            ),
            _ => error,
        })?;
        Ok(Self { client, way, sql, timeout, _permit: permit })
    }

    fn session(&self) -> Session<'_> {
        Session { client: &self.client, way: &self.way }
    }

    async fn within<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let done = within(operation, self.timeout, work).await;
        // After an error the transaction answers nothing any more.
        done.map_err(|error| error.with_context("the snapshot is lost, take another"))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Snapshot {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if let Err(error) = check_key(key) {
            return Reply::Now(Err(error.with_key(key)));
        }
        Reply::later(self.within(Operation::Get, read::get(self.session(), &self.sql, key)))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match read::check_keys(keys) {
            Err(error) => Reply::Now(Err(error)),
            Ok(()) if keys.is_empty() => Reply::ready(Vec::new()),
            Ok(()) => {
                let work = read::get_many(self.session(), &self.sql, keys);
                Reply::later(self.within(Operation::GetMany, work))
            }
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        if let Err(error) = self.sql.check_scans(Operation::Scan) {
            return read::refused(error);
        }
        read::pages(scan, move |scan| {
            Box::pin(async move {
                self.within(Operation::Scan, read::page(self.session(), &self.sql, &scan)).await
            })
        })
    }
}

/// One more than the settings allow.
pub(super) fn too_many(limit: usize) -> Error {
    Error::new(
        ErrorKind::Capacity,
        format!("{limit} snapshots are alive, which is the limit; drop some, or raise `snapshots`"),
    )
    .with_operation(Operation::Snapshot)
    .with_layer("postgres")
}
