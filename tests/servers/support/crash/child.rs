//! The process that is killed: it tells what it finds, and writes with many tasks.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tierstack::config::{Config, Format, Registry};
use tierstack::testing::{FaultLayer, Faults};
use tierstack::{
    Context, Durability, ErrorKind, LayerConfig, OpenOptions, Operation, Profile, Result, Stack,
    StackLayer, SystemClock, Zone,
};

use super::lasts;
use super::work::{Counts, TASKS, batch, count};

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
        let faults =
            Faults::seeded(self.seed ^ u64::from(std::process::id()), SystemClock::shared());
        faults.on(Operation::Write).after_effect().chance(0.05).fail(ErrorKind::Timeout);
        faults.on(Operation::Write).chance(0.05).fail(ErrorKind::Unavailable);
        for operation in [Operation::Get, Operation::GetMany, Operation::Scan, Operation::Flush] {
            faults.on(operation).chance(0.1).fail(ErrorKind::Unavailable);
        }
        Ok(Arc::new(FaultLayer(faults)))
    }
}

/// The stack of a config.
pub(super) async fn open(config: &Path) -> Stack {
    let text = std::fs::read_to_string(config).unwrap();
    let config = Config::parse(&text, Format::Yaml, config).unwrap();
    let mut registry = Registry::standard();
    registry.layer::<FlakyConfig>().unwrap();
    Stack::open(&config, None, &registry, &OpenOptions::service()).await.unwrap()
}

/// How many batches there are of each task, however often the store fails.
pub(super) async fn look(stack: &Stack) -> Counts {
    loop {
        match count(&**stack).await {
            Ok(counts) => return counts.unwrap_or_else(|wrong| panic!("{wrong}")),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
    }
}

/// Writes until the parent kills this process, or closes its standard input.
pub(super) async fn write_until_killed(config: &Path, memory: bool) {
    println!("@@ begun");
    let stack = Arc::new(open(config).await);
    let counts = look(&stack).await;
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
        let (stack, done, ends) = (Arc::clone(&stack), Arc::clone(&done), Arc::clone(&ends));
        tokio::spawn(async move {
            let mut number = done[task].load(Ordering::SeqCst);
            while !ends.load(Ordering::SeqCst) {
                number += 1;
                let seen = std::array::from_fn(|task| done[task].load(Ordering::SeqCst));
                let mut batch = batch(task, number, &seen);
                if memory && lasts(number) {
                    batch = batch.durability(Durability::ProcessCrash);
                }
                let commit = stack.write(batch).await.unwrap();
                done[task].store(number, Ordering::SeqCst);
                println!("@@ {task} {number}");
                // Most do not wait for the store below.
                if number.is_multiple_of(50) {
                    commit.durable().await.unwrap();
                }
                // In memory it would write faster than anybody reads.
                if memory {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    stack.close().await.unwrap();
    println!("@@ closed");
}
