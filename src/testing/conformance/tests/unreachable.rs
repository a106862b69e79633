//! Stores that hide that their data cannot be reached, each in one way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;

use super::{Fixture, Outcome, checks, outcome, run};
use crate::backends::Memory;
use crate::error::{Error, ErrorKind, Result};
use crate::forward;
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::testing::{FaultStore, Faults};
use crate::types::{Batch, Commit, Inspection, Page, Presence, Scan, Usage, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    GetSaysNone,
    GetManySaysNone,
    GetAnswersFromACopy,
    ScanIsEmpty,
    LaterPagesEnd,
    PageIsPassedOver,
    SnapshotIsEmpty,
    InspectSaysNone,
    UsageSaysZero,
    CountSaysZero,
    Acknowledges,
    AcknowledgesFromMemory,
    AcknowledgesTheRest,
    SaysConflict,
    RunIsTaken,
    FailsAsInternal,
    AbsenceIsKept,
    StaysDown,
}

/// A memory store that can be cut off, with a bug.
struct Broken {
    store: FaultStore<Arc<Memory>>,
    memory: Arc<Memory>,
    bug: Bug,
    /// Keys that could not be read.
    failed: Mutex<BTreeSet<Bytes>>,
    /// What could not be written, and is in no journal.
    said: Mutex<BTreeMap<Bytes, Option<Value>>>,
}

fn broken(bug: Bug) -> Fixture {
    let (memory, faults) = (Arc::new(Memory::new()), Faults::new());
    let store = FaultStore::new(Arc::clone(&memory), &faults);
    Fixture::new(Broken { store, memory, bug, failed: Mutex::default(), said: Mutex::default() })
        .cut_off_by(move |reachable| {
            if !reachable {
                faults.cut();
            } else if bug != Bug::StaysDown {
                faults.heal();
            }
            async { Ok(()) }
        })
}

impl Broken {
    /// The answer, or that in place of an error.
    fn instead<T>(&self, bug: Bug, answer: Result<T>, lie: T) -> Result<T> {
        match answer {
            Err(_) if self.bug == bug => Ok(lie),
            Err(_) if self.bug == Bug::FailsAsInternal => Err(Error::internal("no connection")),
            answer => answer,
        }
    }
}

impl Read for Broken {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::later(async move {
            if let Some(said) = self.said.lock().get(key) {
                return Ok(said.clone());
            }
            let found = self.store.get(key).await;
            if self.bug == Bug::AbsenceIsKept {
                let mut failed = self.failed.lock();
                if found.is_err() {
                    let _ = failed.insert(Bytes::copy_from_slice(key));
                } else if failed.contains(key) {
                    return Ok(None);
                }
            }
            let copy = self.memory.get(key).await?;
            let found = self.instead(Bug::GetAnswersFromACopy, found, copy);
            self.instead(Bug::GetSaysNone, found, None)
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        Reply::later(async move {
            let found = self.store.get_many(keys).await;
            self.instead(Bug::GetManySaysNone, found, vec![None; keys.len()])
        })
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let pages = self.store.scan(scan.clone());
        match self.bug {
            Bug::ScanIsEmpty => pages.take_while(|page| std::future::ready(page.is_ok())).boxed(),
            Bug::LaterPagesEnd => {
                let whole = move |(at, page): &(usize, Result<Page>)| {
                    std::future::ready(*at == 0 || page.is_ok())
                };
                pages.enumerate().take_while(whole).map(|(_, page)| page).boxed()
            }
            Bug::PageIsPassedOver => {
                let all = self.memory.scan(scan);
                let shown = pages.zip(all).map(|(page, at_once)| match page {
                    // A page that failed is shown one too late.
                    Err(_) => at_once.map(|mut page| {
                        page.entries.remove(0);
                        page
                    }),
                    page => page,
                });
                shown.boxed()
            }
            _ => pages,
        }
    }
}

#[async_trait]
impl Store for Broken {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let conditional = !batch.conditions().is_empty();
        let ops = batch.ops().to_vec();
        let written = self.store.write(batch).await;
        match self.bug {
            Bug::AcknowledgesFromMemory if !conditional && written.is_err() => {
                let said = ops.into_iter().map(|op| (op.key().clone(), op.value().cloned()));
                self.said.lock().extend(said);
                Ok(Commit::done())
            }
            Bug::SaysConflict if conditional && written.is_err() => {
                Err(Error::new(ErrorKind::Conflict, "the condition does not hold"))
            }
            _ => self.instead(Bug::Acknowledges, written, Commit::done()),
        }
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let written = self.store.write_group(group).await;
        let lie = || Ok(Commit::done());
        match self.bug {
            Bug::AcknowledgesTheRest => written
                .into_iter()
                .enumerate()
                .map(|(n, one)| if n == 0 { one } else { lie() })
                .collect(),
            _ => written,
        }
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let done = self.store.ingest(run).await;
        self.instead(Bug::RunIsTaken, done, 1)
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let seen = self.store.inspect(key).await;
        let mut none = Inspection::of_entry("memory", "memory", None);
        none.presence = Presence::None;
        self.instead(Bug::InspectSaysNone, seen, vec![none])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let taken = self.store.snapshot().await;
        let empty = Memory::new().snapshot().await?;
        self.instead(Bug::SnapshotIsEmpty, taken, empty)
    }

    async fn usage(&self) -> Result<Usage> {
        let zero = Usage { entries: Some(0), ..Usage::default() };
        self.instead(Bug::UsageSaysZero, self.store.usage().await, zero)
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.instead(Bug::CountSaysZero, self.store.count(prefix).await, Some(0))
    }

    forward!(self => self.store; changes, invalidate, flush, compact, close, profile, identity);
}

mod notices {
    use super::*;

    mutants! { (flavor = "multi_thread") broken:
        GetSaysNone => "unreachable::reads_fail";
        GetManySaysNone => "unreachable::reads_fail";
        GetAnswersFromACopy => "unreachable::reads_fail";
        ScanIsEmpty => "unreachable::reads_fail";
        SnapshotIsEmpty => "unreachable::reads_fail";
        InspectSaysNone => "unreachable::reads_fail";
        UsageSaysZero => "unreachable::reads_fail";
        CountSaysZero => "unreachable::reads_fail";
        FailsAsInternal => "unreachable::reads_fail";
        AbsenceIsKept => "unreachable::reads_fail";
        LaterPagesEnd => "unreachable::pages_of_a_scan_fail";
        PageIsPassedOver => "unreachable::pages_of_a_scan_fail";
        Acknowledges => "unreachable::writes_fail";
        AcknowledgesFromMemory => "unreachable::writes_fail";
        AcknowledgesTheRest => "unreachable::writes_fail";
        SaysConflict => "unreachable::writes_fail";
        RunIsTaken => "unreachable::writes_fail";
    }
}

/// Noticed after two minutes: on a paused runtime, at once.
#[tokio::test(start_paused = true)]
async fn a_store_that_stays_down_is_noticed() {
    let outcome = outcome("unreachable::reads_fail", broken(Bug::StaysDown)).await;
    assert!(
        matches!(&outcome, Outcome::Failed(why) if why.contains("reached again")),
        "{outcome:?}"
    );
}

/// The wrapper by itself must not be what fails.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_bug_every_check_passes() {
    let report = run(|| async { Ok(broken(Bug::None)) }).await;
    assert!(report.is_ok(), "{report}");
    for check in checks().filter(|check| check.name().starts_with("unreachable::")) {
        assert_eq!(check.run(broken(Bug::None)).await, Outcome::Passed, "{check:?}");
    }
}

#[tokio::test]
async fn a_fixture_says_why_its_data_are_always_there() {
    for check in checks().filter(|check| check.name().starts_with("unreachable::")) {
        let fixture = Fixture::new(Memory::new()).never_cut_off("they are in the process");
        assert_eq!(check.run(fixture).await, Outcome::Skipped("they are in the process"));
    }
}
