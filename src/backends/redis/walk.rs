//! Every key of the database, by `SCAN` on each server: for scans where no index is kept. They are plain commands that
//! change nothing, so that a user who only reads may send them, also to a replica.
//!
//! A cursor of `SCAN` says nothing to another server, nor to one that was restarted, so each server is asked through
//! one connection. A slot that moves takes its keys from where `SCAN` has not been to where it has: so the nodes of a
//! cluster are asked before and after which slots they have, and whether some are on their way.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::{Cmd, Value as Answer};

use super::Shared;
use super::cluster::SLOTS;
use super::connection::Link;
use super::error::{odd, said};
use super::index::{Foreigners, Line, STEP, pattern};
use super::router::{Kind, answer};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::types::Limits;

const OPERATION: Operation = Operation::Scan;

/// Gives every key that an entry may have, in no order, some perhaps twice. Counts those that no entry can have.
pub(super) async fn list(
    shared: &Shared,
    mut take: impl FnMut(&[u8]) -> Result<()> + Send,
) -> Result<Foreigners> {
    let mut lines = Vec::new();
    for link in links(shared).await? {
        lines.push(Line::through(shared, b"", OPERATION, async { Ok(link) }).await?);
    }
    let before = slots(shared, &lines).await?;
    let mut foreigners = Foreigners::default();
    for line in &lines {
        walk(shared, line, &mut take, &mut foreigners).await?;
    }
    if slots(shared, &lines).await? != before {
        return Err(moving());
    }
    Ok(foreigners)
}

/// The servers that may have keys of the store.
async fn links(shared: &Shared) -> Result<Vec<Arc<Link>>> {
    let found = match &shared.servers.kind {
        Kind::One(link) => Ok(vec![Arc::clone(link)]),
        Kind::Cluster(cluster) => {
            let all = cluster.primaries_now().await;
            match shared.place.prefix.is_empty() {
                true => all,
                false => shared.servers.owner(shared.place.slot(b"")).await.map(|link| vec![link]),
            }
        }
    };
    found.map_err(|error| error.with_operation(OPERATION))
}

async fn walk(
    shared: &Shared,
    line: &Line<'_>,
    take: &mut (impl FnMut(&[u8]) -> Result<()> + Send),
    foreigners: &mut Foreigners,
) -> Result<()> {
    let prefix = &*shared.place.prefix;
    let mut cursor = b"0".to_vec();
    loop {
        let mut step = redis::cmd("SCAN").arg(&cursor).arg("COUNT").arg(STEP).take();
        if !prefix.is_empty() {
            step.arg("MATCH").arg(pattern(prefix));
        }
        let found = line.send_all(std::iter::once(step)).await?.into_iter().next();
        let Answer::Array(parts) = answer(OPERATION, found.ok_or_else(|| odd(OPERATION))?)? else {
            return Err(odd(OPERATION));
        };
        let [Answer::BulkString(next), Answer::Array(keys)] =
            <[Answer; 2]>::try_from(parts).map_err(|_| odd(OPERATION))?
        else {
            return Err(odd(OPERATION));
        };
        let kinds = keys.iter().map(|key| match key {
            Answer::BulkString(key) => redis::cmd("TYPE").arg(key).take(),
            _ => redis::cmd("TYPE"),
        });
        let kinds: Vec<_> = kinds.collect();
        // The client takes a pipeline without commands for a lost connection.
        let kinds = match kinds.is_empty() {
            true => Vec::new(),
            false => line.send_all(kinds.into_iter()).await?,
        };
        for (key, kind) in keys.into_iter().zip(kinds) {
            let Answer::BulkString(full) = key else { return Err(odd(OPERATION)) };
            let kind = match kind {
                Answer::SimpleString(kind) => kind,
                // A key that is on its way to this node, or from it.
                Answer::ServerError(error)
                    if matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN") =>
                {
                    return Err(moving());
                }
                other => return answer(OPERATION, other).and_then(|_| Err(odd(OPERATION))),
            };
            let Some(key) = full.strip_prefix(prefix) else { continue };
            match &*kind {
                "none" => continue,
                "string" if key.is_empty() => foreigners.empty = 1,
                "string" if key.len() > Limits::MAX_KEY_BYTES => foreigners.long += 1,
                "string" => {
                    take(key)?;
                    continue;
                }
                _ => foreigners.other += 1,
            }
            let example = full.get(..full.len().min(1024)).unwrap_or_default();
            foreigners.example.get_or_insert_with(|| example.to_vec());
        }
        if next == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

pub(super) fn nodes() -> Cmd {
    redis::cmd("CLUSTER").arg("NODES").take()
}

/// The slots that the servers have, each as they write it. Nothing where there is no cluster.
async fn slots(shared: &Shared, lines: &[Line<'_>]) -> Result<Vec<Vec<String>>> {
    if !shared.place.in_cluster {
        return Ok(Vec::new());
    }
    let (mut all, mut had) = (Vec::new(), BTreeSet::new());
    for line in lines {
        let told = line.send_all(std::iter::once(nodes())).await?.into_iter().next();
        let text = match answer(OPERATION, told.ok_or_else(|| odd(OPERATION))?)? {
            Answer::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
            Answer::VerbatimString { text, .. } | Answer::SimpleString(text) => text,
            _ => return Err(odd(OPERATION)),
        };
        let own = own_slots(&text).ok_or_else(moving)?;
        for range in &own {
            had.extend(numbers(range).ok_or_else(|| odd(OPERATION))?);
        }
        all.push(own);
    }
    let whole = match shared.place.prefix.is_empty() {
        true => had.len() == SLOTS,
        false => had.contains(&shared.place.slot(b"")),
    };
    if whole { Ok(all) } else { Err(moving()) }
}

/// The slots of the node that says so. `None`: some are on their way.
fn own_slots(table: &str) -> Option<Vec<String>> {
    // `id address flags master ping pong epoch state slots...`
    let words = table.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| {
        words.get(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "myself"))
    })?;
    let slots = words.get(8..).unwrap_or_default();
    // `[93->-id]` and `[93-<-id]`.
    let moves = slots.iter().any(|slot| slot.starts_with('['));
    (!moves).then(|| slots.iter().map(|&slot| slot.to_owned()).collect())
}

fn numbers(range: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn moving() -> Error {
    said(
        ErrorKind::Unavailable,
        "slots of the cluster are moving, or not all are served, so a scan could miss keys; try again when that is done, or keep an index (`index: true`, `hash_tag`)",
    )
    .with_operation(OPERATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_the_node_that_is_asked_are_told_apart() {
        let table = |more: &str| {
            format!(
                "a 127.0.0.1:1@2 master - 0 1 1 connected 0-5460\nb 127.0.0.1:2@3 myself,master - 0 1 2 connected 5461-10922 16000{more}\n"
            )
        };
        assert_eq!(own_slots(&table("")).unwrap(), ["5461-10922", "16000"]);
        assert_eq!(own_slots(&table(" [93->-a]")), None);
        assert_eq!(own_slots(&table(" [93-<-a]")), None);
        assert_eq!(own_slots(""), None);
        assert_eq!(numbers("5461-10922").unwrap().count(), 5462);
        assert_eq!(numbers("7").unwrap().count(), 1);
        assert_eq!(numbers("x-7"), None);
    }
}
