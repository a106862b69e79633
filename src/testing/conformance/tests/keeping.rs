//! A store with a small cache of its own, and what can be wrong about it.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Fixture, Outcome, checks, outcome};
use crate::backends::Memory;
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::reply::Reply;
use crate::store::{Read, Store};
use crate::types::{Batch, Commit, Inspection, Op, Presence, Scope, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    DropsNothing,
    DropsKeysOnly,
    DropsTheFirstKeyOnly,
    TakesAPrefixForAKey,
    DropsTheData,
    KeepsLoadsUnderWay,
    RefusesWhatIsNotThere,
    InvalidatesAfterClose,
    LooksNowhere,
    SeesWhatWasDeleted,
    SeesNothing,
    FillsByLooking,
    LooksForAnyKey,
    LooksAfterClose,
    TellsTheKey,
}

struct Keeping {
    memory: Arc<Memory>,
    bug: Bug,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// What a load that began in an older one found, is not kept.
    generation: u64,
    entries: HashMap<Bytes, Option<Value>>,
}

impl Kept {
    fn drop_where(&mut self, old: impl Fn(&[u8]) -> bool) {
        self.generation += 1;
        self.entries.retain(|key, _| !old(key));
    }
}

fn keeping(bug: Bug) -> Fixture {
    let memory = Arc::new(Memory::new());
    let store = Keeping { memory: Arc::clone(&memory), bug, kept: Mutex::default() };
    Fixture::new(store).changed_by(move |op| {
        let memory = Arc::clone(&memory);
        async move { memory.write([op].into_iter().collect()).await.map(drop) }
    })
}

impl Keeping {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    fn drop_here(&self, scope: &Scope) -> Result<()> {
        let mut kept = self.kept.lock();
        match (self.bug, scope) {
            (Bug::DropsNothing, _) => {}
            (Bug::DropsKeysOnly, Scope::Prefix(_) | Scope::All) => {}
            (Bug::DropsTheFirstKeyOnly, Scope::Keys(keys)) => {
                kept.drop_where(|key| keys.first().is_some_and(|first| first == key));
            }
            (Bug::TakesAPrefixForAKey, Scope::Prefix(prefix)) => {
                kept.drop_where(|key| key == prefix);
            }
            (Bug::RefusesWhatIsNotThere, Scope::Keys(keys)) => {
                if keys.iter().any(|key| !kept.entries.contains_key(key)) {
                    return Err(Error::new(ErrorKind::InvalidInput, "there is no such key"));
                }
                kept.drop_where(|key| scope.contains(key));
            }
            _ => kept.drop_where(|key| scope.contains(key)),
        }
        Ok(())
    }

    async fn load(&self, key: &[u8]) -> Result<Option<Value>> {
        let _open = self.memory.usage().await?;
        let began = {
            let kept = self.kept.lock();
            if let Some(value) = kept.entries.get(key) {
                return Ok(value.clone());
            }
            kept.generation
        };
        let value = self.memory.get(key).await?;
        // A load that is not given up is made longer, so that an invalidation surely comes in between.
        for _ in 0..if self.has(Bug::KeepsLoadsUnderWay) { 32 } else { 1 } {
            tokio::task::yield_now().await;
        }
        let mut kept = self.kept.lock();
        if kept.generation == began || self.has(Bug::KeepsLoadsUnderWay) {
            kept.entries.insert(Bytes::copy_from_slice(key), value.clone());
        }
        Ok(value)
    }
}

impl Read for Keeping {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::later(self.load(key))
    }

    forward!(self => self.memory; get_many, scan);
}

#[async_trait]
impl Store for Keeping {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let keys: Vec<Bytes> = batch.ops().iter().map(|op| op.key().clone()).collect();
        let commit = self.memory.write(batch).await;
        self.kept.lock().drop_where(|key| keys.iter().any(|written| written == key));
        commit
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_in_order(self, group).await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        if !self.has(Bug::InvalidatesAfterClose) {
            let _open = self.memory.usage().await?;
        }
        self.drop_here(&scope)?;
        if let (Bug::DropsTheData, Scope::Keys(keys)) = (self.bug, scope) {
            let deletes = keys.into_iter().filter(|key| !key.is_empty() && key.len() < 100);
            let _ = self.memory.write(deletes.map(Op::Delete).collect()).await?;
        }
        Ok(())
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = match self.memory.get(key).await {
            Err(_) if self.has(Bug::TellsTheKey) => {
                return Err(Error::invalid(format!(
                    "no such key: {}",
                    String::from_utf8_lossy(key)
                )));
            }
            Err(error)
                if error.kind() == ErrorKind::InvalidInput && self.has(Bug::LooksForAnyKey) =>
            {
                None
            }
            Err(error) if error.kind() == ErrorKind::Closed && self.has(Bug::LooksAfterClose) => {
                None
            }
            value => value?,
        };
        let mut below = Inspection::of_entry("memory", "memory", value.as_ref());
        match self.bug {
            Bug::LooksNowhere => return Ok(Vec::new()),
            Bug::SeesNothing => below = Inspection::none("memory", "memory"),
            Bug::SeesWhatWasDeleted => below.presence = Presence::Entry,
            _ => {}
        }
        let mut here = match self.kept.lock().entries.get(key) {
            None => Inspection::none("keeping", "memory"),
            Some(value) => Inspection::of_entry("keeping", "memory", value.as_ref()),
        };
        if self.has(Bug::FillsByLooking) {
            self.load(key).await?;
        }
        if self.has(Bug::SeesWhatWasDeleted) {
            here.presence = Presence::None;
        }
        Ok(vec![here, below])
    }

    forward!(self => self.memory; ingest, changes, snapshot, flush, compact, usage, count, close, profile, identity);
}

mod notices {
    use super::*;

    mutants! { (flavor = "multi_thread") keeping:
        DropsNothing =>
            "invalidate::what_others_changed_is_seen",
            "invalidate::who_comes_afterwards_sees_no_older_value";
        DropsKeysOnly => "invalidate::what_others_changed_is_seen";
        DropsTheFirstKeyOnly => "invalidate::what_others_changed_is_seen";
        TakesAPrefixForAKey => "invalidate::what_others_changed_is_seen";
        DropsTheData => "invalidate::no_data_are_changed";
        KeepsLoadsUnderWay => "invalidate::who_comes_afterwards_sees_no_older_value";
        RefusesWhatIsNotThere => "invalidate::keys_that_are_not_there_succeed";
        InvalidatesAfterClose => "close::operations_after_close_fail_as_closed";
        LooksNowhere => "inspect::a_missing_key_is_nowhere";
        SeesWhatWasDeleted =>
            "inspect::an_entry_is_seen_in_the_innermost_place",
            "inspect::a_missing_key_is_nowhere";
        SeesNothing => "inspect::an_entry_is_seen_in_the_innermost_place";
        FillsByLooking => "inspect::looking_changes_nothing";
        LooksForAnyKey => "inspect::wrong_keys_are_refused";
        LooksAfterClose => "close::operations_after_close_fail_as_closed";
        TellsTheKey => "upkeep::errors_do_not_tell_the_key";
    }
}

/// The cache by itself must not be what fails the mutants.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_bug_every_check_of_these_passes() {
    let topics = ["invalidate::", "inspect::", "close::", "upkeep::errors"];
    let mut passed = 0;
    for check in checks().filter(|check| topics.iter().any(|topic| check.name().starts_with(topic)))
    {
        let outcome = check.run(keeping(Bug::None)).await;
        assert!(!matches!(outcome, Outcome::Failed(_)), "{}: {outcome:?}", check.name());
        passed += u32::from(outcome == Outcome::Passed);
    }
    assert!(passed >= 12, "{passed}");
}
