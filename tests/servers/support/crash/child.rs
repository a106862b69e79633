//! The process that is killed: it tells what it finds, and writes with many tasks.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Deserialize;
use tierstack::config::{Config, Format, Registry};
use tierstack::testing::{FaultLayer, Faults};
use tierstack::{
    Batch, Commit, Context, Durability, Error, ErrorKind, LayerConfig, OpenOptions, Operation,
    Outcome, Profile, Result, Stack, StackLayer, SystemClock, Zone,
};

use super::lasts;
use super::work::{Counts, TASKS, batch, count, noted};

/// The layer `flaky`: one call in ten fails, half of the writes after they took effect.
#[derive(Deserialize, JsonSchema)]
struct FlakyConfig {
    seed: u64,
}

#[async_trait]
impl LayerConfig for FlakyConfig {
    const NAME: &'static str = "flaky";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        Ok(Profile::layer(Self::NAME, below))
    }

    async fn open(&self, _: &Context) -> Result<Arc<dyn StackLayer>> {
        // Another opening fails at other calls.
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let opened = OPENED.fetch_add(1, Ordering::Relaxed) << 32;
        let seed = self.seed ^ u64::from(std::process::id()) ^ opened;
        let faults = Faults::seeded(seed, SystemClock::shared());
        faults.on(Operation::Write).after_effect().chance(0.05).fail(ErrorKind::Timeout);
        faults.on(Operation::Write).chance(0.05).fail(ErrorKind::Unavailable);
        for operation in [Operation::Get, Operation::GetMany, Operation::Scan, Operation::Flush] {
            faults.on(operation).chance(0.1).fail(ErrorKind::Unavailable);
        }
        Ok(Arc::new(FaultLayer(faults)))
    }
}

/// A stack, and what its store below may do.
pub(super) struct Opened {
    pub(super) stack: Stack,
    /// Whether calls of the store below fail.
    flaky: bool,
}

/// The stack of a config.
pub(super) async fn open(config: &Path) -> Opened {
    let text = std::fs::read_to_string(config).unwrap();
    let flaky = text.contains(FlakyConfig::NAME);
    let config = Config::parse(&text, Format::Yaml, config).unwrap();
    let mut registry = Registry::standard();
    registry.layer::<FlakyConfig>().unwrap();
    loop {
        let error = match Stack::open(&config, None, &registry, &OpenOptions::service()).await {
            Ok(stack) => return Opened { stack, flaky },
            Err(error) => error,
        };
        // An opening that has failed lets go of the journal a moment later.
        let held =
            error.kind() == ErrorKind::Conflict && error.to_string().contains("open already");
        assert!(flaky && (passes(&error) || held), "{error:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a store below that fails may say.
fn passes(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

impl Opened {
    /// How many batches there are of each task.
    pub(super) async fn look(&self) -> Counts {
        loop {
            if let Some(counts) = self.borne(count(&*self.stack).await) {
                return counts.unwrap_or_else(|wrong| panic!("{wrong}"));
            }
        }
    }

    async fn noted(&self, task: usize) -> u64 {
        loop {
            if let Some(number) = self.borne(noted(&*self.stack, task).await) {
                return number;
            }
        }
    }

    fn borne<T>(&self, answer: Result<T>) -> Option<T> {
        answer.map_err(|error| self.bear(&error)).ok()
    }

    /// Only what the store below does may fail.
    fn bear(&self, error: &Error) {
        assert!(self.flaky && passes(error), "{error:?}");
    }

    /// Writes a batch until it is acknowledged. `None`: it is there, and the answer did not say so.
    async fn write(&self, task: usize, number: u64, batch: &Batch) -> Option<Commit> {
        loop {
            let error = match self.stack.write(batch.clone()).await {
                Ok(commit) => return Some(commit),
                Err(error) => error,
            };
            self.bear(&error);
            if error.outcome() != Outcome::Nothing && self.noted(task).await >= number {
                return None;
            }
        }
    }
}

/// Writes until the parent kills this process, or closes its standard input.
pub(super) async fn write_until_killed(config: &Path, memory: bool) {
    println!("@@ begun");
    let opened = Arc::new(open(config).await);
    let counts = opened.look().await;
    println!("@@ there {}", counts.map(|count| count.to_string()).join(" "));
    let done: Arc<[AtomicU64; TASKS]> = Arc::new(counts.map(AtomicU64::new));
    let ends = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let ends = Arc::clone(&ends);
        move || {
            let _ = std::io::stdin().lock().read_line(&mut String::new());
            ends.store(true, Ordering::SeqCst);
        }
    });
    let tasks = (0..TASKS).map(|task| {
        let (opened, done, ends) = (Arc::clone(&opened), Arc::clone(&done), Arc::clone(&ends));
        tokio::spawn(async move {
            let mut number = done[task].load(Ordering::SeqCst);
            while !ends.load(Ordering::SeqCst) {
                number += 1;
                let seen = std::array::from_fn(|task| done[task].load(Ordering::SeqCst));
                let mut batch = batch(task, number, &seen);
                if memory && lasts(number) {
                    batch = batch.durability(Durability::ProcessCrash);
                }
                let Some(commit) = opened.write(task, number, &batch).await else { continue };
                done[task].store(number, Ordering::SeqCst);
                println!("@@ {task} {number}");
                // Most do not wait for the store below.
                if number.is_multiple_of(50) {
                    opened.borne(commit.durable().await);
                }
                // In memory it would write faster than anybody reads.
                if memory {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
            number
        })
    });
    let written = join_all(tasks.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap);
    // Of these some may not have been acknowledged.
    println!("@@ there {}", written.map(|number| number.to_string()).collect::<Vec<_>>().join(" "));
    opened.stack.close().await.unwrap();
    println!("@@ closed");
}
