//! Stores of config files, opened for one command and closed at its end, however it ends.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tierstack::config::{Config, Registry};
use tierstack::{
    Checked, Clock, Durability, Guarantees, OpenOptions, Read, Stack, Store, SystemClock,
};

use crate::args::StoreArgs;
use crate::failure::{Failure, Outcome};
use crate::shutdown::Shutdown;

/// How long a store may still take to open when the command is to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether both arguments mean the same data, as far as the settings of the backends tell. Opens nothing.
pub(crate) fn is_same_backend(one: &StoreArgs, other: &StoreArgs) -> Outcome<bool> {
    let backend = |args: &StoreArgs| -> Outcome<_> {
        let config = Config::load(&args.config)?;
        let (_, store) = config.store(args.store.as_deref())?;
        // Relative paths in the settings begin here; a config without a folder is in the current one.
        let folder = config.folder().join(".").canonicalize();
        Ok((store.backend.clone(), folder.unwrap_or_else(|_| config.folder().to_owned())))
    };
    // Each opening of the memory has data of its own.
    Ok(!is_forgotten(&check(one)?.profile().guarantees) && backend(one)? == backend(other)?)
}

/// Checks the store that is meant. Opens nothing.
pub(crate) fn check(args: &StoreArgs) -> Outcome<Checked> {
    let config = Config::load(&args.config)?;
    Ok(Stack::check(&config, args.store.as_deref(), &Registry::standard())?)
}

/// Checks both stores. What the config shares between them is open once.
pub(crate) fn check_both(one: &StoreArgs, other: &StoreArgs) -> Outcome<(Checked, Checked)> {
    let config = Config::load(&one.config)?;
    let real = |args: &StoreArgs| args.config.canonicalize().ok();
    let same = one.config == other.config || real(one).is_some() && real(one) == real(other);
    let others = if same { config.clone() } else { Config::load(&other.config)? };
    let check = |config: &Config, args: &StoreArgs| {
        Stack::check(config, args.store.as_deref(), &Registry::standard())
    };
    Ok((check(&config, one)?, check(&others, other)?))
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// What is there already: to read it, to remove it, to write it again. Nothing that is missing is made.
    Existing,
    /// New entries: makes the database, the folder or the table if it is missing.
    Filling,
}

impl Use {
    fn options(self) -> OpenOptions {
        match self {
            Self::Existing => OpenOptions::reading(),
            // A command that ends soon says at once that the store is away.
            Self::Filling => OpenOptions { late: false, ..OpenOptions::default() },
        }
    }
}

/// Opens the store, does the work, and closes the store, whatever became of the work.
pub(crate) async fn with<T>(
    args: &StoreArgs,
    what_for: Use,
    stop: &Shutdown,
    work: impl AsyncFnOnce(&Arc<dyn Store>) -> Outcome<T>,
) -> Outcome<T> {
    with_checked(check(args)?, what_for, stop, work).await
}

/// Like [`with`], of a store that was checked.
pub(crate) async fn with_checked<T>(
    checked: Checked,
    what_for: Use,
    stop: &Shutdown,
    work: impl AsyncFnOnce(&Arc<dyn Store>) -> Outcome<T>,
) -> Outcome<T> {
    let stack = wait_for(checked.open(&what_for.options()), stop).await?;
    until_closed(stack.store(), work).await
}

/// Opens the whole stack. The caller ends with [`until_closed`].
pub(crate) async fn open(args: &StoreArgs, what_for: Use, stop: &Shutdown) -> Outcome<Stack> {
    wait_for(check(args)?.open(&what_for.options()), stop).await
}

/// Opens what is below a layer.
pub(crate) async fn open_below(
    args: &StoreArgs,
    layer: &str,
    what_for: Use,
    stop: &Shutdown,
) -> Outcome<Stack> {
    wait_for(check(args)?.open_below(layer, &what_for.options()), stop).await
}

/// Opens the part of a stack that stores what it is given as it is, into which a backup is restored. `over_journal`: also where
/// `write_back` has something that would be written over it.
pub(crate) async fn open_stored(
    args: &StoreArgs,
    over_journal: bool,
    stop: &Shutdown,
) -> Outcome<Stack> {
    let options = OpenOptions { over_journal, ..Use::Filling.options() };
    wait_for(check(args)?.open_stored(&options), stop).await
}

async fn wait_for(
    opening: impl Future<Output = tierstack::Result<Stack>>,
    stop: &Shutdown,
) -> Outcome<Stack> {
    let mut opening = pin!(opening);
    tokio::select! {
        biased;
        stack = &mut opening => Ok(stack?),
        () = stop.wait() => {
            // An engine is opened by a thread of its own, which the end of the process would tear apart. But a file
            // with a secret may never answer.
            tokio::select! {
                biased;
                stack = &mut opening => if let Ok(stack) = stack {
                    stack.close().await?;
                },
                () = SystemClock.sleep(PATIENCE) => {}
            }
            Err(Failure::stopped("the store was not opened yet, and nothing was written"))
        }
    }
}

/// Does the work, and closes the store, whatever became of the work.
pub(crate) async fn until_closed<T>(
    store: Arc<dyn Store>,
    work: impl AsyncFnOnce(&Arc<dyn Store>) -> Outcome<T>,
) -> Outcome<T> {
    let done = work(&store).await;
    let closed = store.close().await;
    let closed =
        closed.map_err(|error| Failure::from(error.with_context("the store was not closed")));
    match (done, closed) {
        (done, Ok(())) => done,
        (Ok(_), Err(closing)) => Err(closing),
        (Err(failure), Err(closing)) => Err(failure.also(closing)),
    }
}

/// Says so where what was written does not outlive the command.
pub(crate) fn warn_if_forgotten(store: &dyn Store) {
    if is_forgotten(&store.profile().guarantees) {
        // A closed standard error leaves no caller to tell.
        let note = "note: this store is in memory only, and gone when the command ends";
        let _ = writeln!(std::io::stderr(), "{note}");
    }
}

fn is_forgotten(guarantees: &Guarantees) -> bool {
    let survives = guarantees.durability.max(guarantees.durability_after_flush);
    // What a server holds outlives the command, whatever may become of it there.
    survives == Durability::Nothing && guarantees.places.is_empty()
}

/// The store as it is at this moment, where it offers snapshots; otherwise as it is when it is read.
pub(crate) async fn moment(store: &Arc<dyn Store>) -> Outcome<Arc<dyn Read>> {
    if store.profile().guarantees.snapshots {
        Ok(store.snapshot().await?)
    } else {
        Ok(Arc::clone(store) as Arc<dyn Read>)
    }
}

#[cfg(test)]
mod tests {
    use tierstack::backends::Memory;
    use tierstack::testing::{FaultStore, Faults};
    use tierstack::{ErrorKind, Operation};

    use super::*;

    #[tokio::test]
    async fn a_store_is_closed_also_after_a_failure_and_closing_can_fail_too() {
        let faults = Faults::new();
        let store = || Arc::new(FaultStore::new(Memory::new(), &faults)) as Arc<dyn Store>;
        assert!(until_closed(store(), async |_| Ok(())).await.is_ok());
        let fail = async |_: &Arc<dyn Store>| Outcome::<()>::Err(Failure::failed("no luck"));
        let failed = until_closed(store(), fail).await.err().unwrap();
        assert_eq!(faults.calls(Operation::Close), 2);
        assert_eq!(failed.to_string(), "error: no luck\n");

        faults.on(Operation::Close).fail(ErrorKind::Capacity);
        let failed = until_closed(store(), fail).await.err().unwrap().to_string();
        assert!(
            failed.starts_with("error: no luck\n  also: the store was not closed: "),
            "{failed}"
        );
        let failed = until_closed(store(), async |_| Ok(())).await.err().unwrap().to_string();
        assert!(failed.starts_with("error: the store was not closed: "), "{failed}");
    }
}
