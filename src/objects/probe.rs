//! What is tried out when a store is opened.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::names::PROBE;
use super::service::Objects;
use crate::error::{Error, ErrorKind, Result};

/// Names that are looked at: one page of a listing, at most.
const LOOK: usize = 1000;
/// Writers of a race, and races.
const RACERS: usize = 8;
const RACES: usize = 3;
/// The setting of what is tried out.
const CREATE: &str = "conditional_writes";

/// Whether the service can be reached with these credentials. Changes nothing.
pub(super) async fn access(objects: &dyn Objects) -> Result<()> {
    objects.get(&format!("{PROBE}none")).await.map(drop)
}

/// Whether names are listed, and in their order, as far as a first page shows. Changes nothing.
pub(super) async fn listing(objects: &dyn Objects) -> Result<()> {
    let mut listing = objects.list(None).take(LOOK);
    let mut last: Option<String> = None;
    while let Some(listed) = listing.next().await {
        let listed = listed?;
        if last.is_some_and(|last| listed.name <= last) {
            return Err(unordered());
        }
        last = Some(listed.name);
    }
    Ok(())
}

/// Not a passing failure: scans would miss entries.
pub(super) fn unordered() -> Error {
    Error::config(
        "the service does not list names in their bytewise order, so there are no ordered scans here; set `scans: false`",
    )
}

/// Whether, of several clients that create an object, one wins and the others learn that they lost. Some servers
/// take the condition and ignore it, some check it without a lock.
pub(super) async fn create(objects: &Arc<dyn Objects>) -> Result<()> {
    let id = getrandom::u64()
        .map_err(|error| Error::internal("no randomness for a name").with_source(error))?;
    let names: Vec<_> = (0..=RACES).map(|race| format!("{PROBE}{id:016x}-{race}")).collect();
    let tried = try_create(objects, &names).await;
    for name in &names {
        // What stays behind is small, and passed over by scans.
        let _ = objects.delete(name).await;
    }
    tried
}

async fn try_create(objects: &Arc<dyn Objects>, names: &[String]) -> Result<()> {
    let create = async |name: &str, body: Bytes| objects.create(name, body).await;
    for (race, name) in names.iter().enumerate() {
        if race == 0 {
            let _ = create(name, "first".into()).await.map_err(|error| lacks(error, CREATE))?;
            if create(name, "second".into()).await.map_err(|error| lacks(error, CREATE))?
                || objects.get(name).await?.as_deref() != Some(b"first")
            {
                return Err(lies(
                    "it overwrote an object that it was asked only to create",
                    CREATE,
                ));
            }
            continue;
        }
        let racers = (0..RACERS).map(|racer| create(name, racer.to_string().into()));
        let results = futures_util::future::join_all(racers).await;
        let winners: Vec<_> =
            (0..RACERS).zip(&results).filter(|(_, result)| matches!(result, Ok(true))).collect();
        let stands = objects.get(name).await?;
        let one = match winners.as_slice() {
            [(winner, _)] => stands.as_deref() == Some(winner.to_string().as_bytes()),
            // The answer to the winner got lost: no guarantee is broken.
            [] => results.iter().any(Result::is_err),
            _ => false,
        };
        if !one {
            let winners = winners.len();
            return Err(lies(
                &format!(
                    "of {RACERS} writers that created one object at a time, {winners} were told that they had"
                ),
                CREATE,
            ));
        }
    }
    Ok(())
}

/// Whether, of several clients that change or remove an object that they have just read, one wins and the others learn
/// that they lost.
pub(super) async fn change(objects: &Arc<dyn Objects>) -> Result<()> {
    let id = getrandom::u64()
        .map_err(|error| Error::internal("no randomness for a name").with_source(error))?;
    let name = format!("{PROBE}{id:016x}-change");
    let tried = try_change(objects, &name).await;
    let _ = objects.delete(&name).await;
    tried
}

async fn try_change(objects: &Arc<dyn Objects>, name: &str) -> Result<()> {
    for race in 0..2 * RACES {
        let removes = race % 2 == 1;
        objects.put(name, "first".into()).await?;
        let racers = (0..RACERS).map(|racer| {
            let to = Bytes::from(racer.to_string());
            objects.change(name, b"first", Some(to).filter(|_| !removes))
        });
        let results = futures_util::future::join_all(racers).await;
        let winners = results.iter().filter(|result| matches!(result, Ok(true))).count();
        if winners > 1 {
            let what = if removes { "removed" } else { "replaced" };
            return Err(lies(
                &format!(
                    "of {RACERS} writers that {what} one object, {winners} were told that they had"
                ),
                "conditional_values",
            ));
        }
        if winners == 0
            && let Some(error) = results.into_iter().find_map(Result::err)
        {
            return Err(lacks(error, "conditional_values"));
        }
    }
    Ok(())
}

fn lies(what: &str, setting: &str) -> Error {
    Error::config(format!(
        "this service cannot keep two writers apart: {what}; set `{setting}: false`"
    ))
}

fn lacks(error: Error, setting: &str) -> Error {
    match error.kind() {
        ErrorKind::Unsupported => Error::config(format!(
            "this service cannot write on conditions; set `{setting}: false`"
        )),
        _ => error,
    }
}
