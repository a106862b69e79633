//! Reads over one connection: of the pool, or of a snapshot.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::error::failed;
use super::redacted::Unprinted;
use super::session::{Parameter, Session};
use super::sql::Statements;
use crate::clock::Timestamp;
use crate::error::{Error, Operation, Result};
use crate::store::Pages;
use crate::types::{Entry, Order, Page, RESERVED_PREFIX, Scan, Value, check_key};

pub(super) async fn get(
    session: Session<'_>,
    sql: &Statements,
    key: &[u8],
) -> Result<Option<Value>> {
    let fail = |error| failed(Operation::Get, error).with_key(key);
    let sent = match sql.key.to_sent(key) {
        Ok(sent) => sent,
        // Looked for in every store, and in no such row.
        Err(_) if key.starts_with(RESERVED_PREFIX) => return Ok(None),
        Err(error) => return Err(of(Operation::Get)(error)),
    };
    let asked = Unprinted(&sent[..]);
    let rows = session.query(&sql.get, vec![(&asked, Type::BYTEA)]).await.map_err(fail)?;
    if rows.len() > 1 {
        return Err(twice(Operation::Get).with_key(key));
    }
    let found = rows.first().map(|row| value(row, 0, Operation::Get)).transpose();
    found.map_err(|error| error.with_key(key))
}

/// All in one round trip.
pub(super) async fn get_many(
    session: Session<'_>,
    sql: &Statements,
    keys: &[Bytes],
) -> Result<Vec<Option<Value>>> {
    let sent = keys.iter().map(|key| sql.key.to_sent(key));
    let sent: Vec<_> = sent.collect::<Result<_>>().map_err(of(Operation::GetMany))?;
    let sent: Vec<&[u8]> = sent.iter().map(AsRef::as_ref).collect();
    get_sent(session, sql, sent).await.map_err(|error| sql.key.error(error))
}

/// By keys as they travel.
pub(super) async fn get_sent(
    session: Session<'_>,
    sql: &Statements,
    keys: Vec<&[u8]>,
) -> Result<Vec<Option<Value>>> {
    let operation = Operation::GetMany;
    let fail = |error| failed(operation, error);
    let asked: Unprinted<Vec<&[u8]>> = Unprinted(keys);
    let parameters: Vec<Parameter<'_>> = vec![(&asked, Type::BYTEA_ARRAY)];
    let rows = session.query(&sql.get_many, parameters).await.map_err(fail)?;
    let mut found: HashMap<&[u8], Value> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let key = bytes(row, 0, operation)?;
        let value = value(row, 1, operation).map_err(|error| error.with_key(key))?;
        if found.insert(key, value).is_some() {
            return Err(twice(operation).with_key(key));
        }
    }
    Ok(asked.0.iter().map(|key| found.get(key).cloned()).collect())
}

pub(super) fn check_keys(keys: &[Bytes]) -> Result<()> {
    keys.iter().try_for_each(|key| check_key(key).map_err(|error| error.with_key(key)))
}

/// The next page of a scan, and whether there may be more behind it.
pub(super) async fn page(
    session: Session<'_>,
    sql: &Statements,
    scan: &Scan,
) -> Result<(Page, bool)> {
    let operation = Operation::Scan;
    let fail = |error| failed(operation, error);
    let Some((from, to)) = sent_bounds(sql, scan) else { return Ok((Page::default(), false)) };
    let (from, to) = (from.map(Unprinted), to.map(Unprinted));
    let text = sql.page(from.is_some(), to.is_some(), scan.order == Order::Reverse, scan.keys_only);
    let full = scan.next_page_entries();
    let (limit, most) = (as_bigint(full), as_bigint(scan.page_bytes.max(1)));
    let mut parameters: Vec<Parameter<'_>> = vec![(&limit, Type::INT8), (&most, Type::INT8)];
    parameters
        .extend(from.iter().chain(&to).map(|bound| -> Parameter<'_> { (bound, Type::BYTEA) }));
    let rows = session.query(&text, parameters).await.map_err(fail)?;
    let mut page = Page { entries: Vec::with_capacity(rows.len()) };
    for row in &rows {
        let key = sql.key.received(bytes(row, 0, operation)?).map_err(of(operation))?;
        check_key(&key).map_err(|_| {
            Error::unsupported(format!(
                "the table holds a key of {} bytes, but keys here are 1 to 65536 bytes; remove it, or scan a range without it",
                key.len()
            ))
            .with_operation(operation)
            .with_layer("postgres")
        })?;
        let value = if scan.keys_only {
            Value::default()
        } else {
            value(row, 1, operation).map_err(|error| error.with_key(&key))?
        };
        if page.entries.last().is_some_and(|last| last.key == key) {
            return Err(twice(operation).with_key(&key));
        }
        page.entries.push(Entry { key, value });
    }
    let more = page.len() >= full || page.bytes() >= scan.page_bytes;
    Ok((page, more))
}

/// Entries that are counted by one statement, which has a deadline.
const COUNTED: i64 = 10_000;

/// Counts the next entries of a range. Gives the last of their keys, if there may be more behind it.
pub(super) async fn count(
    session: Session<'_>,
    sql: &Statements,
    range: &Scan,
) -> Result<(u64, Option<Bytes>)> {
    let operation = Operation::Usage;
    let Some((from, to)) = sent_bounds(sql, range) else { return Ok((0, None)) };
    let (from, to) = (from.map(Unprinted), to.map(Unprinted));
    let mut parameters: Vec<Parameter<'_>> = vec![(&COUNTED, Type::INT8)];
    parameters
        .extend(from.iter().chain(&to).map(|bound| -> Parameter<'_> { (bound, Type::BYTEA) }));
    let rows = session.query(&sql.count(from.is_some(), to.is_some()), parameters).await;
    let rows = rows.map_err(|error| failed(operation, error))?;
    let Some(row) = rows.first() else { return Ok((0, None)) };
    let counted: i64 = row.try_get(0).map_err(|error| failed(operation, error))?;
    let last = sql.key.received(bytes(row, 1, operation)?).map_err(of(operation))?;
    Ok((counted.unsigned_abs(), (counted >= COUNTED).then_some(last)))
}

fn as_bigint(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn of(operation: Operation) -> impl Fn(Error) -> Error {
    move |error| error.with_operation(operation).with_layer("postgres")
}

type Edge = Option<Vec<u8>>;

/// The bounds of a scan as they travel. `None`: no key can be within.
fn sent_bounds(sql: &Statements, scan: &Scan) -> Option<(Edge, Edge)> {
    let [from, to] = scan.half_open();
    let from = match from {
        Some(from) => Some(sql.key.bound(&from)?.into_owned()),
        None => None,
    };
    Some((from, to.and_then(|to| sql.key.bound(&to).map(|to| to.into_owned()))))
}

/// A scan that is refused.
pub(super) fn refused<'a>(error: Error) -> Pages<'a> {
    futures_util::stream::once(std::future::ready(Err(error))).boxed()
}

/// The pages of a scan; each is read when it is asked for.
pub(super) fn pages<'a>(
    scan: Scan,
    read: impl Fn(Scan) -> BoxFuture<'a, Result<(Page, bool)>> + Send + 'a,
) -> Pages<'a> {
    let begun = (!scan.is_empty()).then_some(scan);
    unfold((begun, read), |(scan, read)| async move {
        let mut scan = scan?;
        let (page, more) = match read(scan.clone()).await {
            Ok(found) => found,
            Err(error) => return Some((Err(error), (None, read))),
        };
        scan.resume_after(page.entries.last()?.key.clone());
        scan.consume(page.len());
        let next = (more && !scan.is_empty()).then_some(scan);
        Some((Ok(page), (next, read)))
    })
    .boxed()
}

/// No index of a view keeps a key from being there twice.
fn twice(operation: Operation) -> Error {
    Error::corruption("two rows have the same key, so neither is the entry; name other columns")
        .with_operation(operation)
        .with_layer("postgres")
}

fn bytes(row: &Row, at: usize, operation: Operation) -> Result<&[u8]> {
    let found: Option<&[u8]> = row.try_get(at).map_err(|error| failed(operation, error))?;
    found.ok_or_else(|| {
        Error::corruption("the table holds NULL as a value; delete the row, or fill it")
            .with_operation(operation)
            .with_layer("postgres")
    })
}

/// The value in a column, with its deadline in the next.
fn value(row: &Row, at: usize, operation: Operation) -> Result<Value> {
    let bytes = Bytes::copy_from_slice(bytes(row, at, operation)?);
    let expires: Option<i64> = row.try_get(at + 1).map_err(|error| failed(operation, error))?;
    // The 64 bits as they are: see `Expires::Millis`.
    let expires_at = expires.map(|bits| Timestamp::from_millis(bits.cast_unsigned()));
    Ok(Value { bytes, expires_at })
}
