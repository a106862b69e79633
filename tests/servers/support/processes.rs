//! Two processes that use one store: this test binary again, running one test.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use tierstack::{Batch, Condition, Conditions, ErrorKind, Result, Store, Value};

/// Where the store is, in a process that was started to count there.
const PLACE: &str = "TIERSTACK_TEST_COUNTING_AT";
const PROCESSES: usize = 2;
/// Tasks of each process.
const TASKS: usize = 2;

/// Counts up from several processes at once, each on the condition that nobody counted meanwhile, and looks
/// whether an increment is lost. `test` is the full name of the test that calls this; `place` says where the
/// store is, of which each process opens its own.
pub(crate) async fn no_increment_is_lost<F>(
    test: &str,
    rounds: usize,
    place: impl AsyncFnOnce() -> Option<String>,
    open: impl Fn(String) -> F,
) where
    F: Future<Output = Result<Arc<dyn Store>>>,
{
    if let Ok(place) = std::env::var(PLACE) {
        return count(open(place).await.unwrap(), rounds).await;
    }
    let Some(place) = place().await else { return };
    let store = open(place.clone()).await.unwrap();
    let mut children: Vec<Child> = (0..PROCESSES).map(|_| start(test, &place)).collect();
    let mut outputs = Vec::new();
    // None begins before all of them have opened the store.
    for child in &mut children {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains("@@ ready"));
        assert!(ready.is_some(), "a process could not open the store");
        outputs.push(lines);
    }
    for child in &mut children {
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
    for (mut child, lines) in children.into_iter().zip(outputs) {
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        assert!(child.wait().unwrap().success(), "{}", said.join("\n"));
    }
    for counter in counters(&*store) {
        let counted = counted(&*store, &counter).await.unwrap();
        assert_eq!(counted, PROCESSES * TASKS * rounds, "an increment is lost");
    }
    store.close().await.unwrap();
}

fn start(test: &str, place: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn count(store: Arc<dyn Store>, rounds: usize) {
    println!("@@ ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let tasks = (0..TASKS).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..rounds {
                increment(&*store).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    store.close().await.unwrap();
}

/// Two of them where a batch can depend on several keys.
fn counters(store: &dyn Store) -> Vec<Bytes> {
    let guarantees = store.profile().guarantees;
    let several = guarantees.atomic_batches && guarantees.conditions == Conditions::Value;
    ["a", "b"][..if several { 2 } else { 1 }].iter().map(|key| Bytes::from(*key)).collect()
}

/// Of a store that compares values the value; of one that looks only whether a key is there, how many of the
/// numbered keys are.
async fn counted(store: &dyn Store, counter: &[u8]) -> Result<usize> {
    if store.profile().guarantees.conditions == Conditions::Value {
        let found = store.get(counter).await?;
        return Ok(found.map_or(0, |value| number(&value)));
    }
    let mut count = 0;
    while store.get(&numbered(counter, count)).await?.is_some() {
        count += 1;
    }
    Ok(count)
}

fn number(value: &Value) -> usize {
    std::str::from_utf8(&value.bytes).unwrap().parse().unwrap()
}

fn numbered(counter: &[u8], count: usize) -> Bytes {
    [counter, count.to_string().as_bytes()].concat().into()
}

async fn increment(store: &dyn Store) -> Result<()> {
    loop {
        let mut batch = Batch::new();
        for counter in counters(store) {
            if store.profile().guarantees.conditions == Conditions::Value {
                let found = store.get(&counter).await?;
                let count = found.as_ref().map_or(0, number);
                let condition = match found {
                    Some(value) => Condition::equals(counter.clone(), value),
                    None => Condition::absent(counter.clone()),
                };
                batch = batch.put(counter, (count + 1).to_string()).require(condition);
            } else {
                let next = numbered(&counter, counted(store, &counter).await?);
                batch = batch.put(next, "1").if_absent();
            }
        }
        match store.write(batch).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Conflict => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}
