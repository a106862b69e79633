//! What each task writes: batch after batch, so that what is there tells exactly how many of them there are.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tierstack::{Batch, Condition, Op, Page, Read, Result, Scan};

pub(super) const TASKS: usize = 6;
/// Keys of each kind that a task has.
const SLOTS: u64 = 8;

/// How many batches there are of each task.
pub(super) type Counts = [u64; TASKS];

type State = BTreeMap<Bytes, Bytes>;

fn key(task: usize, name: &str) -> Bytes {
    format!("{task}/{name}").into()
}

/// A value that is of one batch only, in any size.
fn value(task: usize, number: u64, kind: char) -> Vec<u8> {
    let name = format!("{task}-{number}{kind}");
    let size = name.len() + (task as u64 * 7_919 + number * 104_729) as usize % 1_500;
    name.bytes().cycle().take(size).collect()
}

/// What a batch does besides its note of what was acknowledged before it.
fn ops(task: usize, number: u64) -> Vec<Op> {
    let mut ops = Vec::new();
    for kind in ['a', 'b'] {
        let slot = |number: u64| key(task, &format!("{kind}/{}", number % SLOTS));
        ops.push(Op::Put(slot(number), value(task, number, kind).into()));
        ops.push(Op::Delete(slot(number + SLOTS / 2)));
    }
    // Of two operations of a key the last one counts.
    let both = key(task, "both");
    let put = Op::Put(both.clone(), value(task, number, 'c').into());
    ops.push(put);
    ops.insert(if number.is_multiple_of(2) { 0 } else { ops.len() }, Op::Delete(both));
    ops
}

/// The batch of that number. It notes how many batches were acknowledged before it began.
pub(super) fn batch(task: usize, number: u64, seen: &Counts) -> Batch {
    let mut batch: Batch = ops(task, number).into_iter().collect();
    let note = seen.iter().fold(number.to_string(), |note, count| format!("{note} {count}"));
    batch.push(Op::Put(key(task, "note"), note.into_bytes().into()));
    if number.is_multiple_of(5) {
        let before = value(task, number - 1, 'a');
        batch = batch
            .require(Condition::equals(key(task, &format!("a/{}", (number - 1) % SLOTS)), before));
    }
    batch
}

/// What is there after that many batches, but for the note.
fn after(task: usize, count: u64) -> State {
    let mut state = State::new();
    for number in count.saturating_sub(2 * SLOTS) + 1..=count {
        for op in ops(task, number) {
            match op {
                Op::Put(key, value) => drop(state.insert(key, value.bytes)),
                Op::Delete(key) => drop(state.remove(&key)),
            }
        }
    }
    state
}

fn numbers(note: &[u8]) -> Vec<u64> {
    std::str::from_utf8(note).unwrap().split(' ').flat_map(str::parse).collect()
}

/// How many batches there are of a task, by its note.
///
/// # Errors
/// The store's own.
pub(super) async fn noted(store: &dyn Read, task: usize) -> Result<u64> {
    let note = store.get(&key(task, "note")).await?;
    Ok(note.and_then(|note| numbers(&note.bytes).first().copied()).unwrap_or(0))
}

/// How many batches there are of each task.
///
/// # Errors
/// The store's own. What no number of batches explains is in the answer.
pub(super) async fn count(store: &dyn Read) -> Result<Result<Counts, String>> {
    let pages: Vec<Page> = store.scan(Scan::all().page_entries(7)).try_collect().await?;
    let mut states: [State; TASKS] = Default::default();
    for entry in pages.into_iter().flat_map(|page| page.entries) {
        match states.get_mut(usize::from(entry.key[0].wrapping_sub(b'0'))) {
            Some(state) => drop(state.insert(entry.key, entry.value.bytes)),
            None => return Ok(Err("a key that no task wrote".to_owned())),
        }
    }
    Ok(explain(states))
}

fn explain(states: [State; TASKS]) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut notes = Vec::new();
    for (task, mut state) in states.into_iter().enumerate() {
        let note = numbers(&state.remove(&key(task, "note")).unwrap_or_default());
        counts[task] = note.first().copied().unwrap_or(0);
        if state != after(task, counts[task]) {
            let all = after(task, counts[task]);
            let wrong = state.iter().filter(|entry| all.get(entry.0) != Some(entry.1));
            let wrong: Vec<_> = wrong.map(|(key, value)| (key, name(value))).collect();
            let missing: Vec<_> = all.keys().filter(|key| !state.contains_key(*key)).collect();
            return Err(format!(
                "task {task}: its note says {} batches; of others there is {wrong:?}, and missing is {missing:?}",
                counts[task]
            ));
        }
        notes.push(note);
    }
    for (task, note) in notes.iter().enumerate() {
        let seen = note.get(1..).unwrap_or_default();
        if let Some(other) = seen.iter().zip(&counts).position(|(seen, there)| seen > there) {
            return Err(format!(
                "task {task}: batch {} is there, and of task {other}, which had {} acknowledged before it, there are {}",
                counts[task], seen[other], counts[other]
            ));
        }
    }
    Ok(counts)
}

/// Which batch wrote a value.
fn name(value: &[u8]) -> String {
    let end = value.iter().position(u8::is_ascii_lowercase).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierstack::Store;
    use tierstack::backends::Memory;

    async fn written(numbers: &[(usize, u64)]) -> Memory {
        let (store, mut seen) = (Memory::new(), Counts::default());
        for &(task, number) in numbers {
            let _ = store.write(batch(task, number, &seen)).await.unwrap();
            seen[task] = number;
        }
        store
    }

    #[tokio::test]
    async fn what_is_there_tells_how_many_batches_there_are() {
        let numbers: Vec<_> = (1..40).flat_map(|number| [(0, number), (3, number)]).collect();
        for end in 0..numbers.len() {
            let store = written(&numbers[..end]).await;
            let counts = count(&store).await.unwrap().unwrap();
            assert_eq!((counts[0], counts[3]), (end.div_ceil(2) as u64, end as u64 / 2));
        }
    }

    #[tokio::test]
    async fn a_torn_batch_is_noticed() {
        for at in 0..batch(0, 13, &Counts::default()).len() {
            let numbers: Vec<_> = (1..13).map(|number| (0, number)).collect();
            let store = written(&numbers).await;
            let part: Batch =
                batch(0, 13, &Counts::default()).into_ops().into_iter().take(at).collect();
            let changes = part.last_ops().iter().any(|op| op.value().is_some());
            let _ = store.write(part).await.unwrap();
            let told = count(&store).await.unwrap();
            assert_eq!(told.is_err(), changes, "the first {at} operations: {told:?}");
        }
    }

    #[tokio::test]
    async fn a_batch_without_one_that_was_acknowledged_before_it_is_noticed() {
        let store = written(&[(0, 1)]).await;
        let seen = Counts::from([1, 2, 0, 0, 0, 0]);
        let _ = store.write(batch(2, 1, &seen)).await.unwrap();
        let told = count(&store).await.unwrap().unwrap_err();
        assert!(told.contains("task 1, which had 2 acknowledged"), "{told}");
    }
}
