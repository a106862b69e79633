//! Stores of config files, opened for one command and closed at its end, however it ends.

use std::sync::Arc;

use tierstack::config::{Config, Registry};
use tierstack::{Checked, OpenOptions, Read, Stack, Store};

use crate::args::StoreArgs;
use crate::failure::{Failure, Outcome};
use crate::stop::Stop;

/// The name of the store that is meant.
pub(crate) fn name(args: &StoreArgs) -> Outcome<String> {
    let config = Config::load(&args.config)?;
    let (name, _) = config.store(args.store.as_deref())?;
    Ok(name.to_owned())
}

/// Checks the store that is meant. Opens nothing.
pub(crate) fn check(args: &StoreArgs) -> Outcome<Checked> {
    let config = Config::load(&args.config)?;
    Ok(Stack::check(&config, args.store.as_deref(), &Registry::standard())?)
}

/// Opens the store, does the work, and closes the store, whatever became of the work.
pub(crate) async fn with<T>(
    args: &StoreArgs,
    stop: &Stop,
    work: impl AsyncFnOnce(&Arc<dyn Store>) -> Outcome<T>,
) -> Outcome<T> {
    let checked = check(args)?;
    let stack = stop.or(async { Ok(checked.open(&OpenOptions::default()).await?) }).await?;
    until_closed(stack, work).await
}

/// Does the work, and closes the store, whatever became of the work.
pub(crate) async fn until_closed<T>(
    stack: Stack,
    work: impl AsyncFnOnce(&Arc<dyn Store>) -> Outcome<T>,
) -> Outcome<T> {
    let done = work(&stack.store()).await;
    let closed = stack.close().await;
    let closed =
        closed.map_err(|error| Failure::from(error.with_context("the store was not closed")));
    match (done, closed) {
        (done, Ok(())) => done,
        (Ok(_), Err(closing)) => Err(closing),
        (Err(failure), Err(closing)) => Err(failure.also(closing)),
    }
}

/// The store as it is at this moment, where it offers snapshots; otherwise as it is when it is read.
pub(crate) async fn moment(store: &Arc<dyn Store>) -> Outcome<Arc<dyn Read>> {
    if store.profile().guarantees.snapshots {
        Ok(store.snapshot().await?)
    } else {
        Ok(Arc::clone(store) as Arc<dyn Read>)
    }
}

/// Layers that stand between what a user reads and what the backend holds. A backup holds the latter, so
/// it is restored below all of them.
const ABOVE: [&str; 6] = ["cache", "compress", "encrypt", "expire", "write_back", "backup"];

/// Opens the part of a stack that stores what it is given as it is.
pub(crate) async fn open_stored(args: &StoreArgs) -> Outcome<Stack> {
    let checked = check(args)?;
    let options = OpenOptions::default();
    let levels = checked.profile().levels().map(|level| level.name.to_string());
    let innermost = levels.filter(|name| ABOVE.contains(&name.as_str())).last();
    Ok(match innermost {
        Some(layer) => checked.open_below(&layer, &options).await?,
        None => checked.open(&options).await?,
    })
}
