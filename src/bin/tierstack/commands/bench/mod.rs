//! `bench`: how long reads take, of one config or of two side by side.

mod plot;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::Serialize;

use tierstack::{Read, Scan, Stopwatch, Store};

use crate::args::{Bench, StoreArgs};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output_file::{self, Target};
use crate::progress::{Progress, Unit};
use crate::replay::{self, Latencies, Pattern};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;

/// What was measured, for `--json`. Times in nanoseconds.
#[derive(Serialize)]
struct Facts {
    pattern: String,
    keys: u64,
    measured: Vec<Measured>,
}

/// Reads of one store.
#[derive(Serialize)]
struct Measured {
    store: String,
    config: String,
    /// The stack from the outside in.
    shape: String,
    reads: u64,
    /// Reads that found nothing.
    missing: u64,
    reads_per_second: Option<f64>,
    mean_ns: Option<u128>,
    p50_ns: Option<u128>,
    p90_ns: Option<u128>,
    p99_ns: Option<u128>,
    p999_ns: Option<u128>,
    max_ns: Option<u128>,
    #[serde(skip)]
    latencies: Latencies,
}

/// `tierstack bench`
pub(crate) async fn run(args: &Bench, stop: &Shutdown) -> Outcome {
    if let Some(trace) = &args.trace {
        replay::look_at(trace)?;
    }
    match args.plot.as_deref() {
        Some(path) if path == Path::new("-") => {
            return Err(Failure::usage(
                "--plot names a file, as the figures go to standard output",
            ));
        }
        Some(path) => output_file::refuse_own(path, &args.store.config)?,
        None => {}
    }
    if args.against.is_none() && args.against_store.is_some() {
        return Err(Failure::usage("--against-store needs --against, the config that has it"));
    }
    let others = args
        .against
        .as_ref()
        .map(|config| StoreArgs { config: config.clone(), store: args.against_store.clone() });
    // What is wrong with the second config is told before the first is measured.
    if let Some(others) = &others {
        session::check(others)?;
    }
    let keys = session::with(&args.store, Use::Existing, stop, async |store| {
        stop.or(keys(store, args.keys)).await
    })
    .await?;
    if keys.is_empty() {
        return Err(Failure::failed("the store holds nothing that could be read")
            .next("`tierstack import` or `tierstack put` fill it"));
    }
    let reads = args.reads.map(|reads| usize::try_from(reads).unwrap_or(usize::MAX));
    let pattern = match &args.trace {
        Some(trace) => Pattern::of_trace(trace, &keys, reads.unwrap_or(replay::MAX_REQUESTS))?,
        None => Pattern::zipf(keys.len(), reads.unwrap_or(replay::READS)),
    };
    let mut measured = Vec::new();
    // One after the other: both may be of the same database, which one process opens once.
    for store in std::iter::once(&args.store).chain(&others) {
        measured.push(measure(store, &keys, &pattern, stop).await?);
    }
    if let Some(path) = &args.plot {
        let curves = measured.iter().map(|one| (one.name(), one.latencies.nanos()));
        let picture = plot::draw(&pattern.origin, &curves.collect::<Vec<_>>())?;
        let mut target = Target::open(Some(path)).await?;
        target.sink().write(|buffer| buffer.write_all(picture.as_bytes())).await?;
        target.finish().await?;
    }
    let facts = Facts { pattern: pattern.origin, keys: keys.len() as u64, measured };
    output::fact(args.json.json, &facts, || words(&facts, args))
}

/// The first keys of a store.
async fn keys(store: &Arc<dyn Store>, most: u64) -> Outcome<Vec<Bytes>> {
    let mut pages = store.scan(Scan::all().keys_only().limit(most));
    let mut keys = Vec::new();
    while let Some(page) = pages.try_next().await? {
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
    }
    Ok(keys)
}

/// Opens a store, with what it keeps in memory empty, and reads.
async fn measure(
    args: &StoreArgs,
    keys: &[Bytes],
    pattern: &Pattern,
    stop: &Shutdown,
) -> Outcome<Measured> {
    let stack = session::open(args, Use::Existing, stop).await?;
    let (name, shape) = (stack.name().to_owned(), stack.profile().to_string());
    let (mut latencies, mut missing) = (Latencies::default(), 0);
    let took = session::until_closed(stack.store(), async |store: &Arc<dyn Store>| {
        let what = format!("reading '{name}' of {}", args.config.display());
        let progress = Progress::new(what, Some(pattern.reads.len() as u64), Unit::Entries);
        let whole = Stopwatch::new();
        for turn in pattern.reads.chunks(TURN) {
            if stop.requested() {
                return Err(Failure::stopped("nothing was measured to its end"));
            }
            for key in turn.iter().filter_map(|at| keys.get(*at as usize)) {
                let read = Stopwatch::new();
                let value = store.get(key).await?;
                latencies.add(read.elapsed());
                missing += u64::from(value.is_none());
            }
            progress.add(turn.len() as u64);
        }
        let took = whole.elapsed();
        progress.finish();
        Ok(took)
    })
    .await?;
    let reads = latencies.len() as u64;
    let mut nanos = |share| latencies.percentile(share).map(|took| took.as_nanos());
    Ok(Measured {
        store: name,
        config: args.config.display().to_string(),
        shape,
        reads,
        missing,
        reads_per_second: (!took.is_zero()).then(|| reads as f64 / took.as_secs_f64()),
        p50_ns: nanos(0.5),
        p90_ns: nanos(0.9),
        p99_ns: nanos(0.99),
        p999_ns: nanos(0.999),
        max_ns: nanos(1.0),
        mean_ns: latencies.mean().map(|took| took.as_nanos()),
        latencies,
    })
}

/// Reads between two looks at whether to stop.
const TURN: usize = 1000;

impl Measured {
    fn name(&self) -> String {
        format!("{} of {}", self.store, self.config)
    }
}

fn words(facts: &Facts, args: &Bench) -> String {
    let time = |nanos: Option<u128>| match nanos.and_then(|nanos| u64::try_from(nanos).ok()) {
        Some(nanos) => output::duration(std::time::Duration::from_nanos(nanos)),
        None => "-".to_owned(),
    };
    let rows: Vec<_> = facts
        .measured
        .iter()
        .map(|one| {
            let rate = one
                .reads_per_second
                .map_or_else(|| "-".to_owned(), |rate| output::count(rate as u64));
            let times = [one.p50_ns, one.p90_ns, one.p99_ns, one.p999_ns, one.max_ns].map(time);
            [one.name()].into_iter().chain(times).chain([rate]).collect()
        })
        .collect();
    let head = ["", "p50", "p90", "p99", "p99.9", "slowest", "reads/s"];
    let mut words = String::new();
    for one in &facts.measured {
        words += &format!("{}: {}\n", one.name(), one.shape);
        if one.missing > 0 {
            let missing = output::counted(one.missing, "read", "reads");
            words += &format!("  {missing} found nothing: it does not hold the same data\n");
        }
    }
    let reads = facts.measured.first().map_or(0, |one| one.reads);
    words += &format!(
        "\n{} of {}, one after the other, by {}; memory is empty at first\n\n{}",
        output::counted(reads, "read", "reads"),
        output::counted(facts.keys, "key", "keys"),
        facts.pattern,
        output::table(&head, &rows)
    );
    if let Some(path) = &args.plot {
        words += &format!("\ndrawn into {}", path.display());
    }
    words
}
