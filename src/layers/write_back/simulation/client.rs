//! A task that reads and writes through the layer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::history::{COUNTER, History, KEYS, PAIRS, key, number};
use super::register::Number;
use crate::clock::{Clock, ManualClock};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::ext::StoreExt;
use crate::journal::tests::faulty::Faulty;
use crate::journal::tests::rng::Rng;
use crate::store::{Pages, Read, Store};
use crate::types::{Batch, Commit, Condition, Durability, Entry, Order, Page, Scan, Value};

pub(super) struct Client {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: ManualClock,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) disk: Faulty,
    pub(super) rng: Rng,
    /// Whether a batch may ask for less than the journal.
    pub(super) memory: bool,
}

impl Client {
    pub(super) async fn run(mut self, operations: u64) {
        for _ in 0..operations {
            match self.rng.below(100) {
                0..20 => self.get().await,
                20..28 => self.get_many().await,
                28..38 => self.scan().await,
                38..46 => self.snapshot().await,
                46..76 => self.write().await,
                76..82 => self.write_group().await,
                82..94 => self.count().await,
                94..97 => self.load().await,
                _ => self.flush().await,
            }
            for _ in 0..self.rng.below(3) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// An error that may be: of a store below that fails, or once the disk has failed.
    fn tolerate(&self, error: &Error) {
        let kind = error.kind();
        let passing =
            matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Capacity);
        assert!(passing || self.disk.fired().is_some(), "{error:?}");
    }

    fn saw(&self, at: usize, begin: u64, now: crate::clock::Timestamp, found: Option<&Value>) {
        let expired = found.is_some_and(|value| value.is_expired(now));
        assert!(!expired, "key {at}: {:?} was served after its time", number(found));
        let mut history = self.history.lock();
        let end = history.tick();
        history.saw(at, begin, end, number(found));
    }

    fn begin(&self) -> (u64, crate::clock::Timestamp) {
        (self.history.lock().tick(), self.clock.now())
    }

    async fn get(&mut self) {
        let at = self.rng.below(KEYS as u64) as usize;
        let (begin, now) = self.begin();
        match self.store.get(&key(at)).await {
            Ok(found) => self.saw(at, begin, now, found.as_ref()),
            Err(error) => self.tolerate(&error),
        }
    }

    async fn get_many(&mut self) {
        let keys: Vec<Bytes> = (0..KEYS).map(key).collect();
        let (begin, now) = self.begin();
        match self.store.get_many(&keys).await {
            Ok(found) => {
                (0..KEYS).for_each(|at| self.saw(at, begin, now, found[at].as_ref()));
            }
            Err(error) => self.tolerate(&error),
        }
    }

    fn random_scan(&mut self) -> Scan {
        let order = if self.rng.percent(50) { Order::Forward } else { Order::Reverse };
        let entries = if self.rng.percent(50) { 2 } else { 100 };
        Scan { order, ..Scan::all().page_entries(entries) }
    }

    async fn scan(&mut self) {
        let scan = self.random_scan();
        let most = scan.next_page_entries();
        let (begin, now) = self.begin();
        let pages: Result<Vec<Page>> = self.store.scan(scan).try_collect().await;
        match pages {
            Ok(pages) => self.scanned(pages, most, begin, now),
            Err(error) => self.tolerate(&error),
        }
    }

    /// A scan in one page is of one moment. What is behind a page that is full was looked for at another one.
    fn scanned(&self, pages: Vec<Page>, most: usize, begin: u64, now: crate::clock::Timestamp) {
        let one = matches!(&pages[..], [page] if page.len() < most);
        let entries = pages.into_iter().flat_map(|page| page.entries);
        let found: BTreeMap<Bytes, Value> = entries.map(|entry| (entry.key, entry.value)).collect();
        (0..KEYS).for_each(|at| self.saw(at, begin, now, found.get(&key(at))));
        if one {
            self.pairs(|at| number(found.get(&key(at))));
        }
    }

    fn pairs(&self, number: impl Fn(usize) -> Number) {
        for pair in 0..PAIRS {
            let (one, other) = (number(2 * pair), number(2 * pair + 1));
            let whole = self.history.lock().is_pair(one, other);
            assert!(whole, "a batch in part: pair {pair} has {one:?} and {other:?}");
        }
    }

    async fn snapshot(&mut self) {
        let scan = self.random_scan();
        let (begin, now) = self.begin();
        let snapshot = match self.store.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => return self.tolerate(&error),
        };
        let end = self.history.lock().tick();
        for _ in 0..self.rng.below(10) {
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        for at in 0..KEYS {
            match snapshot.get(&key(at)).await {
                Ok(found) => {
                    let expired = found.as_ref().is_some_and(|value| value.is_expired(now));
                    assert!(!expired, "a snapshot served a value after its time");
                    let number = number(found.as_ref());
                    self.history.lock().saw(at, begin, end, number);
                    seen.push(number);
                }
                Err(error) => return self.tolerate(&error),
            }
        }
        self.pairs(|at| seen[at]);
        let pages: Result<Vec<Page>> = snapshot.scan(scan).try_collect().await;
        match pages {
            Ok(pages) => {
                let entries: BTreeMap<Bytes, Value> = pages
                    .into_iter()
                    .flat_map(|page| page.entries)
                    .map(|entry| (entry.key, entry.value))
                    .collect();
                for (at, seen) in seen.iter().enumerate() {
                    let found = number(entries.get(&key(at)));
                    let same = found == *seen || self.history.lock().is_pair(found, *seen);
                    assert!(same, "a snapshot has {seen:?} and {found:?} of key {at}");
                }
            }
            Err(error) => self.tolerate(&error),
        }
    }

    /// What a batch writes: whole pairs, sometimes with an earlier operation of a key, which must not count.
    fn batch(&mut self) -> (Batch, BTreeMap<usize, Number>) {
        let (mut batch, mut written) = (Batch::new(), BTreeMap::new());
        if !self.history.lock().atomic {
            let at = self.rng.below(KEYS as u64) as usize;
            let value = self.rng.percent(70).then(|| self.value());
            written.insert(at, number(value.as_ref()));
            batch = match value {
                Some(value) => batch.put(key(at), value),
                None => batch.delete(key(at)),
            };
            return (batch, written);
        }
        for _ in 0..1 + self.rng.below(2) {
            let pair = self.rng.below(PAIRS as u64) as usize;
            if self.rng.percent(20) {
                batch = batch.delete(key(2 * pair)).delete(key(2 * pair + 1));
                written.extend([(2 * pair, None), (2 * pair + 1, None)]);
                continue;
            }
            let value = self.value();
            if self.rng.percent(20) {
                batch = batch.put(key(2 * pair), vec![0; 8]).delete(key(2 * pair));
            }
            for at in [2 * pair, 2 * pair + 1] {
                batch = batch.put(key(at), value.clone());
                written.insert(at, number(Some(&value)));
            }
        }
        let durability = match self.rng.below(20) {
            0 => Some(Durability::PowerCut),
            1 if self.memory => Some(Durability::Nothing),
            _ => None,
        };
        (durability.into_iter().fold(batch, Batch::durability), written)
    }

    fn value(&mut self) -> Value {
        let deadline = self
            .rng
            .percent(15)
            .then(|| self.clock.now() + Duration::from_millis(self.rng.below(300)));
        let number = self.history.lock().draw(deadline);
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(8 + self.rng.below(200) as usize, 0);
        let value = Value::new(bytes);
        match deadline {
            Some(deadline) => value.expiring_at(deadline),
            None => value,
        }
    }

    fn ended(&self, ops: &[usize], answer: &Result<Commit>) {
        match answer {
            Ok(_) => self.history.lock().wrote(ops),
            Err(error) => {
                self.tolerate(error);
                if error.outcome() == Outcome::Nothing {
                    self.history.lock().did_not_write(ops);
                }
            }
        }
    }

    async fn write(&mut self) {
        let (batch, written) = self.batch();
        let ops = self.history.lock().writes(&written);
        if self.rng.percent(10) {
            // The caller leaves: it happens wholly or not at all.
            let patience = self.rng.below(8);
            tokio::select! {
                biased;
                answer = self.store.write(batch) => self.ended(&ops, &answer),
                () = yields(patience) => {}
            }
            return;
        }
        let answer = self.store.write(batch).await;
        self.ended(&ops, &answer);
        if let (Ok(commit), true) = (answer, self.rng.percent(20))
            && let Err(error) = commit.durable().await
        {
            self.tolerate(&error);
        }
    }

    async fn write_group(&mut self) {
        let count = 1 + self.rng.below(4);
        let (group, written): (Vec<_>, Vec<_>) = (0..count).map(|_| self.batch()).unzip();
        let ops: Vec<_> = written.iter().map(|one| self.history.lock().writes(one)).collect();
        let answers = self.store.write_group(group).await;
        assert_eq!(answers.len(), ops.len());
        let mut failed = false;
        for (ops, answer) in ops.iter().zip(&answers) {
            match answer {
                // What is behind a failure was not begun.
                Err(error) if failed && error.kind() == ErrorKind::Aborted => {
                    self.history.lock().did_not_write(ops);
                }
                answer => self.ended(ops, answer),
            }
            failed |= answer.is_err();
        }
    }

    /// Increments the counter, unless another was faster.
    async fn count(&mut self) {
        let least = self.history.lock().counter.least();
        let found = match self.store.get(COUNTER).await {
            Ok(found) => found,
            Err(error) => return self.tolerate(&error),
        };
        let count = number(found.as_ref()).unwrap_or(0);
        assert!(count >= least, "{least} was counted, and {count} is read");
        let condition = match found {
            Some(value) => Condition::equals(COUNTER, value),
            None => Condition::absent(COUNTER),
        };
        let next = count + 1;
        *self.history.lock().counter.begun.entry(next).or_default() += 1;
        let batch = Batch::new().put(COUNTER, next.to_be_bytes().to_vec()).require(condition);
        let answer = self.store.write(batch).await;
        let counter = &mut self.history.lock().counter;
        match answer {
            Ok(_) => assert!(counter.done.insert(next), "{next} was counted twice"),
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    let others = counter.begun.range(next..).map(|(_, count)| count).sum::<u64>();
                    assert!(others > 1, "nobody but this task counted {next}");
                } else {
                    self.tolerate(&error);
                }
                if error.outcome() == Outcome::Nothing {
                    *counter.begun.entry(next).or_default() -= 1;
                }
            }
        }
    }

    async fn load(&mut self) {
        let (mut entries, mut written) = (Vec::new(), BTreeMap::new());
        let pair = self.rng.below(PAIRS as u64) as usize;
        let value = self.value();
        for at in [2 * pair, 2 * pair + 1] {
            entries.push(Entry { key: key(at), value: value.clone() });
            written.insert(at, number(Some(&value)));
        }
        // In one page, so that a pair stays whole.
        let run: Pages<'_> = stream::iter([Ok(Page { entries })]).boxed();
        let ops = self.history.lock().writes(&written);
        match self.store.load(run).await {
            Ok(_) => self.history.lock().wrote(&ops),
            Err(error) => self.tolerate(&error),
        }
    }

    async fn flush(&mut self) {
        if let Err(error) = self.store.flush().await {
            self.tolerate(&error);
        }
    }
}

async fn yields(times: u64) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}
