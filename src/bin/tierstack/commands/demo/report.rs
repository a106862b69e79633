//! The demo from beginning to end: what it does, and what it says.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use tierstack::Store;
use tierstack::backup::Target;

use super::counters::Counters;
use super::files::Files;
use super::setup::{BARE, DATA, DemoFolder, size};
use super::steps::{self, Digest, Imported, Replayed};
use crate::args::Demo;
use crate::commands::backup;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::replay::{self, Latencies, Pattern};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;

/// What the demo found, for `--json`. Times in nanoseconds.
#[derive(Default, Serialize)]
struct Facts {
    entries: u64,
    bytes: u64,
    reads: u64,
    hit_rate: Option<f64>,
    import_ns: Pair<u128>,
    p50_ns: Pair<u128>,
    p99_ns: Pair<u128>,
    stored_bytes: Pair<u64>,
    backup_bytes: u64,
    digest: String,
    every_entry_is_back: bool,
}

/// The same figure without and with the layers.
#[derive(Default, Serialize)]
struct Pair<T> {
    alone: T,
    stack: T,
}

/// Tells the story, unless only facts are wanted.
struct Teller {
    json: bool,
}

impl Teller {
    fn say(&self, text: impl AsRef<str>) -> Outcome {
        if self.json { Ok(()) } else { output::line(text) }
    }
}

/// `tierstack demo`
pub(crate) async fn run(args: Demo, stop: &Shutdown) -> Outcome {
    let teller = Teller { json: args.json.json };
    let counters = Counters::install();
    if let Some(trace) = &args.trace {
        replay::look_at(trace)?;
    }
    let place = DemoFolder::new(&args)?;
    let files = Files::find(args.files.as_deref(), args.quick)?;
    let mut facts =
        Facts { entries: files.files.len() as u64, bytes: files.bytes, ..Facts::default() };
    let checked = session::check(&place.stack())?;
    teller.say(format!("The stack    {}", checked.profile()))?;
    let (entries, bytes) =
        (output::counted(facts.entries, "file", "files"), output::bytes(files.bytes));
    teller.say(format!("The input    {entries}, {bytes}, from {}", files.origin))?;
    teller.say(format!("The folder   {}\n", place.path("").display()))?;

    // A bucket that cannot be reached shows here, not after the import.
    stop.or(backup::repository(&place.stack(), true)).await?;
    let expected = use_it(&args, &place, &files, &counters, &teller, &mut facts, stop).await?;
    back_up(&place, &teller, &mut facts, stop).await?;
    lose_it(&place, &expected, &teller, stop).await?;
    bring_back(&place, &expected, &teller, &mut facts, stop).await?;
    if args.json.json {
        return output::line(output::to_json(&facts)?);
    }
    next_thing(&place, &teller)
}

/// Imports and reads, with and without the layers.
async fn use_it(
    args: &Demo,
    place: &DemoFolder,
    files: &Files,
    counters: &Counters,
    teller: &Teller,
    facts: &mut Facts,
    stop: &Shutdown,
) -> Outcome<Digest> {
    session::with(&place.bare(), Use::Filling, stop, async |bare: &Arc<dyn Store>| {
        session::with(&place.stack(), Use::Filling, stop, async |stack: &Arc<dyn Store>| {
            let imported = steps::import(files, bare, stack, stop).await?;
            // Both at rest, so that sizes and reads are of the same kind.
            stop.or(async { Ok(bare.compact().await?) }).await?;
            stop.or(async { Ok(stack.compact().await?) }).await?;
            facts.stored_bytes =
                Pair { alone: size(&place.path(BARE))?, stack: size(&place.path(DATA))? };
            teller.say(imported_words(&place.alone(), &imported, facts))?;

            let (reads, most) = match args.quick {
                true => (replay::QUICK_READS, replay::QUICK_READS),
                false => (replay::READS, replay::MAX_REQUESTS),
            };
            let pattern = match &args.trace {
                Some(trace) => Pattern::of_trace(trace, &imported.keys, most)?,
                None => Pattern::zipf(imported.keys.len(), reads),
            };
            let hits = counters.cache_hits(&place.store);
            let (reads, keys) = (&pattern.reads, &imported.keys);
            let mut replayed = steps::replay(reads, keys, bare, stack, hits.as_ref(), stop).await?;
            teller.say(replayed_words(
                &place.alone(),
                &pattern,
                &mut replayed,
                hits.is_some(),
                facts,
            ))?;
            Ok(imported.digest)
        })
        .await
    })
    .await
}

fn imported_words(alone: &str, imported: &Imported, facts: &mut Facts) -> String {
    facts.import_ns = Pair { alone: imported.bare.as_nanos(), stack: imported.stack.as_nanos() };
    let stored = &facts.stored_bytes;
    let saved = |bytes: u64| {
        let share = 100.0 - 100.0 * bytes as f64 / facts.bytes.max(1) as f64;
        format!("{share:.0}%")
    };
    let row = |name: &str, took: Duration, bytes: u64| {
        let per_second = facts.bytes as f64 / took.as_secs_f64().max(1e-9);
        vec![
            name.to_owned(),
            output::duration(took),
            format!("{}/s", output::bytes(per_second as u64)),
            output::bytes(bytes),
            saved(bytes),
        ]
    };
    let rows =
        [row(alone, imported.bare, stored.alone), row("the stack", imported.stack, stored.stack)];
    let head = ["", "import", "throughput", "on disk", "saved"];
    format!(
        "1. Import: path → content, each batch on disk before the next\n\n{}",
        output::table(&head, &rows)
    )
}

fn replayed_words(
    alone: &str,
    pattern: &Pattern,
    replayed: &mut Replayed,
    has_cache: bool,
    facts: &mut Facts,
) -> String {
    let nanos = |latencies: &mut Latencies, share| {
        latencies.percentile(share).map_or(0, |took| took.as_nanos())
    };
    facts.reads = replayed.stack.len() as u64;
    facts.p50_ns =
        Pair { alone: nanos(&mut replayed.bare, 0.5), stack: nanos(&mut replayed.stack, 0.5) };
    facts.p99_ns =
        Pair { alone: nanos(&mut replayed.bare, 0.99), stack: nanos(&mut replayed.stack, 0.99) };
    let hit_rate = replayed.hits.len() as f64 / replayed.stack.len().max(1) as f64;
    facts.hit_rate = has_cache.then_some(hit_rate);

    let row = |name: &str, latencies: &mut Latencies| {
        let show = |took: Option<Duration>| took.map_or_else(|| "-".to_owned(), output::duration);
        let (p50, p99) = (latencies.percentile(0.5), latencies.percentile(0.99));
        let reads = output::count(latencies.len() as u64);
        vec![name.to_owned(), reads, show(p50), show(p99), show(latencies.mean())]
    };
    let mut rows = vec![row(alone, &mut replayed.bare), row("the stack", &mut replayed.stack)];
    let mut rate = String::new();
    if has_cache {
        rows.push(row("  from its cache", &mut replayed.hits));
        rows.push(row("  not from its cache", &mut replayed.misses));
        rate = format!("  Hit rate {:.1}%, the cache empty at first.\n", 100.0 * hit_rate);
    }
    let head = ["", "reads", "p50", "p99", "mean"];
    let table = output::table(&head, &rows);
    format!("2. Read: {}, both stores in turns\n\n{table}{rate}", pattern.origin)
}

async fn back_up(
    place: &DemoFolder,
    teller: &Teller,
    facts: &mut Facts,
    stop: &Shutdown,
) -> Outcome {
    let repository = backup::repository(&place.stack(), true).await?;
    let opened = session::open_below(&place.stack(), "backup", Use::Existing, stop).await?;
    let taken = session::until_closed(opened.store(), async |store| {
        backup::take_base(&**store, &repository, false, stop).await
    })
    .await?;
    facts.backup_bytes = taken.progress.uploaded_bytes;
    teller.say(format!("3. Back up: {}\n", backup::words_of_report(&taken)))
}

/// Damages the database, and shows that it is damaged.
async fn lose_it(
    place: &DemoFolder,
    expected: &Digest,
    teller: &Teller,
    stop: &Shutdown,
) -> Outcome {
    let damage = steps::damage(&place.path(DATA), place.engine.extension())?;
    let overwritten = output::counted(damage.overwritten.len() as u64, "file", "files");
    let mut what =
        format!("4. Damage: overwrote 512 bytes in three places of {overwritten} of the store");
    if let Some(deleted) = damage.deleted.as_ref().and_then(|path| path.file_name()) {
        what += &format!(", deleted {}", deleted.to_string_lossy());
    }
    let read = session::with(&place.stack(), Use::Filling, stop, async |store: &Arc<dyn Store>| {
        Ok(steps::digest(store, "reading the damaged store", expected.entries).await?)
    })
    .await;
    match read {
        Err(failure) if stop.requested() => Err(failure),
        Err(failure) => {
            let said = failure.to_string();
            teller.say(format!("{what}. The store now says:\n\n{}", indented(&said)))
        }
        Ok(digest) if digest.hex() != expected.hex() => {
            Err(Failure::failed("the store gave wrong values without an error"))
        }
        Ok(_) => Err(Failure::failed("the damage had no effect: every value is still there")),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("     {line}\n")).collect()
}

/// Restores into a new store, and compares with the files that were imported.
async fn bring_back(
    place: &DemoFolder,
    expected: &Digest,
    teller: &Teller,
    facts: &mut Facts,
    stop: &Shutdown,
) -> Outcome {
    let repository = backup::repository(&place.stack(), false).await?;
    let plan = repository.plan(Target::Latest).await?;
    let opened = session::open_stored(&place.restored(), false, stop).await?;
    let options = tierstack::backup::Restore::default();
    let restored = session::until_closed(opened.store(), async |store| {
        backup::restore_base(&repository, &plan, &**store, &options, stop).await
    })
    .await?;
    let (entries, reached) = (output::entries(restored.entries), restored.reached);
    teller.say(format!("5. Restore: {entries} into a new store, as of {reached}\n"))?;

    let digest =
        session::with(&place.restored(), Use::Existing, stop, async |store: &Arc<dyn Store>| {
            stop.or(async { Ok(steps::digest(store, "comparing", expected.entries).await?) }).await
        })
        .await?;
    facts.digest = digest.hex();
    facts.every_entry_is_back = digest.hex() == expected.hex();
    if !facts.every_entry_is_back {
        return Err(Failure::failed(
            "the restored store differs from the files that were imported",
        ));
    }
    teller.say(format!(
        "6. Prove: the digest of the files as they were read, and of the restored store\n\n     \
         {}  {}\n     {}  {}\n\n   Every entry is back.\n",
        expected.hex(),
        output::counted(expected.entries, "file", "files"),
        digest.hex(),
        output::entries(digest.entries)
    ))
}

fn next_thing(place: &DemoFolder, teller: &Teller) -> Outcome {
    if place.is_temporary() {
        return teller.say(
            "Next: `tierstack demo --dir ./demo` keeps the stores to play with; and put this in front of a\n\
             database of yours: README.md, \"In front of a database that is there already\", has the config,\n\
             then\n\n    \
             tierstack check --config tierstack.yaml",
        );
    }
    let config = place.path("tierstack.json");
    let config = config.display();
    teller.say(format!(
        "Next: the restored store is yours to try\n\n    \
         tierstack check --config {config}\n    \
         tierstack scan --config {config} --store restored --keys-only --limit 5\n    \
         tierstack backup list --config {config}"
    ))
}
