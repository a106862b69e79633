//! Writing in the model: batches, conditions, runs, and what a failed one left.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{Known, Model, Step, Stop, same, show_op};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Outcome};
use crate::ext::StoreExt;
use crate::store::Store;
use crate::types::{Batch, Condition, Conditions, Entry, Op, Page};

fn apply(known: &mut Known, ops: impl IntoIterator<Item = Op>) {
    for op in ops {
        match op {
            Op::Put(key, value) => known.insert(key, value),
            Op::Delete(key) => known.remove(&key),
        };
    }
}

impl<S: Store + ?Sized> Model<'_, S> {
    /// Draws a batch, mostly one whose conditions hold.
    fn batch(&mut self) -> (Vec<Op>, Batch) {
        let limits = &self.guarantees.limits;
        let most =
            if self.guarantees.atomic_batches { limits.batch_ops.unwrap_or(12).min(12) } else { 1 };
        // Single operations mostly, sometimes none.
        let count = match self.random.below(10) {
            0 => 0,
            1..6 => 1,
            _ => 1 + self.random.below(most),
        };
        let ops: Vec<Op> = (0..count).map(|_| self.op()).collect();
        let shown: Vec<String> = ops.iter().map(show_op).collect();
        self.log(format_args!("write {}", shown.join(", ")));
        let mut batch: Batch = ops.iter().cloned().collect();
        if self.random.chance(0.2) {
            batch = batch.durability(self.guarantees.durability_on_request);
        }
        self.forget_expired();
        if self.guarantees.conditions >= Conditions::Absence && self.random.chance(0.2) {
            self.log(format_args!("... where its keys are absent"));
            batch = batch.if_absent();
        } else if self.guarantees.conditions == Conditions::Value && self.random.chance(0.3) {
            let condition = self.condition(&ops);
            let holds = condition.holds(self.known.get(condition.key()));
            self.log(format_args!("... on a condition, which holds: {holds}"));
            batch = batch.require(condition);
        }
        (ops, batch)
    }

    /// Writes several batches at once, of which some may be refused.
    pub(super) async fn write_group(&mut self) -> Step {
        let count = self.random.below(6);
        self.log(format_args!("a group of {count} batches:"));
        self.forget_expired();
        let before = self.known.clone();
        // What is there once so many of the batches have taken effect.
        let mut states = vec![before.clone()];
        let (mut group, mut keys, mut unmet) = (Vec::new(), Vec::new(), false);
        for _ in 0..count {
            let (ops, batch) = self.batch();
            unmet |= !batch.conditions().iter().all(|c| c.holds(self.known.get(c.key())));
            keys.extend(ops.iter().map(|op| op.key().clone()));
            group.push(batch);
            if !unmet {
                apply(&mut self.known, ops);
                self.forget_expired();
                states.push(self.known.clone());
            }
        }
        self.known = before;
        let answers = self.store.write_group(group).await;
        if answers.len() != count {
            return Err(Stop::Wrong(format!("{} answers to {count} batches", answers.len())));
        }
        let written = answers.iter().take_while(|answer| answer.is_ok()).count();
        let failed: Vec<Error> = answers.into_iter().filter_map(Result::err).collect();
        if written + failed.len() != count {
            return Err(Stop::Wrong("a group goes on after a failure".to_owned()));
        }
        let Some(state) = states.get(written) else {
            return Err(Stop::Wrong("a condition that does not hold was met".to_owned()));
        };
        let Some((first, behind)) = failed.split_first() else {
            self.known = state.clone();
            return Ok(());
        };
        let refused = first.kind() == ErrorKind::Conflict && written + 1 == states.len() && unmet;
        if !refused && !self.tolerates(first) {
            return Err(first.clone().into());
        }
        let aborted = |error: &Error| error.kind() == ErrorKind::Aborted;
        if refused && !behind.iter().all(aborted) {
            return Err(Stop::Wrong("a batch behind a refused one is not called off".to_owned()));
        }
        let unknown = |error: &&Error| error.outcome() == Outcome::Unknown;
        let most = written + failed.iter().take_while(unknown).count();
        let possible = states.drain(written..=most.min(states.len() - 1)).collect();
        self.settle_group(&keys, possible).await
    }

    /// Finds out how far a group came that failed.
    async fn settle_group(&mut self, keys: &[Bytes], possible: Vec<Known>) -> Step {
        if let Some(faults) = self.faults {
            faults.clear();
        }
        let got = self.store.get_many(keys).await?;
        let is =
            |known: &Known| keys.iter().zip(&got).all(|(key, got)| got.as_ref() == known.get(key));
        match possible.into_iter().find(is) {
            Some(known) => self.known = known,
            None => {
                return Err(Stop::Wrong("what a failed group left is no prefix of it".to_owned()));
            }
        }
        Ok(())
    }

    pub(super) async fn write(&mut self) -> Step {
        let (ops, batch) = self.batch();
        let holds = |c: &Condition| c.holds(self.known.get(c.key()));
        let unmet = !batch.conditions().iter().all(holds);
        let written = self.store.write(batch).await;
        if unmet {
            return match written {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
                Err(error) => Err(error.into()),
                Ok(_) => Err(Stop::Wrong("a condition that does not hold was met".to_owned())),
            };
        }
        let mut after = self.known.clone();
        apply(&mut after, ops.iter().cloned());
        match written {
            Ok(commit) => {
                self.known = after;
                if self.random.chance(0.2) {
                    commit.durable().await?;
                }
                Ok(())
            }
            Err(error) if self.tolerates(&error) => self.settle(&ops, after).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Loads a run, by `ingest` where it is offered. Sometimes the run fails, or is out of order.
    pub(super) async fn load(&mut self) -> Step {
        let mut entries = Known::new();
        for _ in 0..self.random.below(40) {
            let key = self.key();
            entries.insert(key, self.value());
        }
        let page = 1 + self.random.below(12);
        let run =
            entries.iter().map(|(key, value)| Entry { key: key.clone(), value: value.clone() });
        let run: Vec<Entry> = run.collect();
        let mut pages: Vec<_> =
            run.chunks(page).map(|entries| Ok(Page { entries: entries.to_vec() })).collect();
        let broken = match self.random.below(8) {
            0 => Some(Err(Error::new(ErrorKind::Access, "the run breaks off"))),
            1 => run.first().map(|first| Ok(Page { entries: vec![first.clone(), first.clone()] })),
            _ => None,
        };
        let breaks = broken.is_some();
        pages.extend(broken);
        self.log(format_args!("load {} entries by {page}, breaks: {breaks}", entries.len()));
        let loaded = self.store.load(stream::iter(pages).boxed()).await;
        match loaded {
            Ok(count) if !breaks && count == entries.len() as u64 => {
                self.known.extend(entries);
                Ok(())
            }
            Ok(count) => Err(Stop::Wrong(format!("it loads {count} entries, breaks: {breaks}"))),
            Err(error) if self.tolerates(&error) => self.settle_run(entries).await,
            Err(error) if breaks => match error.kind() {
                ErrorKind::Access | ErrorKind::InvalidInput => self.settle_run(entries).await,
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Finds out which entries of a failed run are there: any of them may be.
    async fn settle_run(&mut self, run: Known) -> Step {
        if let Some(faults) = self.faults {
            faults.clear();
        }
        self.forget_expired();
        let now = self.clock.map(Clock::now);
        for (key, value) in run {
            let got = self.store.get(&key).await?;
            let expired = now.is_some_and(|now| value.is_expired(now));
            let loaded = Some(value).filter(|_| !expired);
            if got == loaded {
                match loaded {
                    Some(value) => drop(self.known.insert(key, value)),
                    None => drop(self.known.remove(&key)),
                }
            } else {
                same(&key, got.as_ref(), self.known.get(&key))?;
            }
        }
        Ok(())
    }

    /// Finds out whether a failed write happened: wholly, or not at all.
    pub(super) async fn settle(&mut self, ops: &[Op], mut after: Known) -> Step {
        if let Some(faults) = self.faults {
            faults.clear();
        }
        self.forget_expired();
        if let Some(clock) = self.clock {
            after.retain(|_, value| !value.is_expired(clock.now()));
        }
        let keys: Vec<Bytes> = ops.iter().map(|op| op.key().clone()).collect();
        let got = self.store.get_many(&keys).await?;
        let is =
            |known: &Known| keys.iter().zip(&got).all(|(key, got)| got.as_ref() == known.get(key));
        if is(&after) {
            self.known = after;
        } else if !is(&self.known) {
            return Err(Stop::Wrong("a failed batch happened in part".to_owned()));
        }
        Ok(())
    }

    /// A condition that mostly holds: on any key, or on the one that is written where there are no batches.
    fn condition(&mut self, ops: &[Op]) -> Condition {
        let key = match ops {
            [op] if !self.guarantees.atomic_batches => op.key().clone(),
            _ => self.key(),
        };
        if self.random.chance(0.2) {
            return Condition::Equals(key, self.value());
        }
        match self.known.get(&key) {
            Some(value) if self.random.chance(0.9) => Condition::Equals(key, value.clone()),
            _ => Condition::Absent(key),
        }
    }
}
