//! `cache invalidate` and `inspect`: asked of the process that runs the store, where it can be reached, and of
//! the store itself elsewhere.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::Serialize;

use tierstack::config::Config;
use tierstack::control::Client;
use tierstack::{Clock, Inspection, Presence, Scan, Scope, Store, SystemClock, Timestamp, jsonl};

use super::entries::{decode, key};
use crate::args::{Cache, Inspect, Invalidate, StoreArgs};
use crate::entry_in_words;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;
use crate::walk::{self, Skips};

/// `tierstack cache`
pub(crate) async fn run(cache: Cache, stop: &Shutdown) -> Outcome {
    match cache {
        Cache::Invalidate(args) => invalidate(args, stop).await,
    }
}

/// Which process was asked.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Asked {
    /// The process that listens on the control socket.
    Process { control: PathBuf },
    /// The store, opened by this command.
    Store,
}

impl Asked {
    fn in_words(&self, store: &str) -> String {
        match self {
            Self::Process { control } => {
                format!("asked the process that runs '{store}', on {}", control.display())
            }
            Self::Store => format!(
                "opened '{store}' here, as no process can be asked: a cache in the memory of another process is not \
                 reached without `control` in its config"
            ),
        }
    }
}

/// The process that runs the store, where it can be asked, and the name of the store.
async fn reach(args: &StoreArgs) -> Outcome<(Option<(Client, PathBuf)>, String)> {
    let config = Config::load(&args.config)?;
    let (name, _) = config.store(args.store.as_deref())?;
    let client = match config.control() {
        Some(path) => Client::connect(&path).await?.map(|client| (client, path)),
        None => None,
    };
    Ok((client, name.to_owned()))
}

#[derive(Serialize)]
struct Invalidated {
    store: String,
    asked: Asked,
    invalidated: What,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Keys(usize),
    Prefix,
    All,
}

async fn invalidate(args: Invalidate, stop: &Shutdown) -> Outcome {
    let prefix = match (args.prefix, args.prefix64) {
        (Some(text), _) => Some(Bytes::from(text)),
        (None, Some(base64)) => Some(decode(&base64, "--prefix64")?),
        (None, None) => None,
    };
    let (scope, invalidated) = if args.all {
        (Scope::All, What::All)
    } else if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Err(Failure::usage("the prefix is empty, which is every key; write --all"));
        }
        (Scope::Prefix(prefix), What::Prefix)
    } else {
        let text = args.keys.into_iter().map(|text| key(Some(text), None));
        let base64 = args.key64.into_iter().map(|base64| key(None, Some(base64)));
        let keys: Vec<Bytes> = text.chain(base64).collect::<Outcome<_>>()?;
        let count = keys.len();
        (Scope::Keys(keys), What::Keys(count))
    };
    let (reached, store) = reach(&args.store).await?;
    let asked = match reached {
        Some((mut client, control)) => {
            stop.or(async { Ok(client.invalidate(&store, scope).await?) }).await?;
            Asked::Process { control }
        }
        None => {
            session::with(&args.store, Use::Existing, stop, async |store: &Arc<dyn Store>| {
                stop.or(async { Ok(store.invalidate(scope).await?) }).await
            })
            .await?;
            Asked::Store
        }
    };
    let fact = Invalidated { store, asked, invalidated };
    output::fact(args.json.json, &fact, || {
        let what = match fact.invalidated {
            What::Keys(count) => output::counted(count as u64, "key", "keys"),
            What::Prefix => "the keys of the prefix".to_owned(),
            What::All => "every key".to_owned(),
        };
        format!("invalidated {what}; {}", fact.asked.in_words(&fact.store))
    })
}

#[derive(Serialize)]
struct Inspected<'a> {
    store: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key64: Option<String>,
    asked: Asked,
    /// As the times that follow: milliseconds since 1970.
    now: Timestamp,
    inspections: Vec<Inspection>,
}

/// `tierstack inspect`
pub(crate) async fn inspect(args: Inspect, stop: &Shutdown) -> Outcome {
    let key = match args.fingerprint {
        Some(fingerprint) => find(&args.store, fingerprint, stop).await?,
        None => key(args.key, args.key64)?,
    };
    if args.fingerprint.is_some() && !args.json.json {
        // Before it is inspected, which fails where the entry is damaged.
        output::line(format!("it is the {}", entry_in_words::key(&key)))?;
    }
    let (reached, store) = reach(&args.store).await?;
    let (asked, inspections) = match reached {
        Some((mut client, control)) => {
            let asking = stop.or(async { Ok(client.inspect(&store, &key).await?) });
            (Asked::Process { control }, asking.await?)
        }
        None => {
            let looking =
                session::with(&args.store, Use::Existing, stop, async |store: &Arc<dyn Store>| {
                    stop.or(async { Ok(store.inspect(&key).await?) }).await
                });
            (Asked::Store, looking.await?)
        }
    };
    let (text, base64) = jsonl::text_or_base64(&key);
    let now = SystemClock.now();
    let fact = Inspected { store, key: text, key64: base64, asked, now, inspections };
    output::fact(args.json.json, &fact, || {
        format!("{}\n\n{}", fact.asked.in_words(&fact.store), table(&fact.inspections, fact.now))
    })
}

/// The key that messages call by a number: looked for among all keys, past what cannot be read. Values are read
/// where a layer keeps deadlines in them.
async fn find(args: &StoreArgs, fingerprint: u64, stop: &Shutdown) -> Outcome<Bytes> {
    let stack = Arc::new(session::open(args, Use::Existing, stop).await?);
    let damaged = Arc::new(Mutex::new(None));
    let skips = {
        let (stack, damaged) = (Arc::clone(&stack), Arc::clone(&damaged));
        Skips::told(true, move |error| {
            let key = error.key().filter(|key| stack.fingerprint(key) == fingerprint);
            if let Some(key) = key {
                *damaged.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Bytes::copy_from_slice(key));
            }
        })
    };
    session::until_closed(stack.store(), async |store: &Arc<dyn Store>| {
        let source = session::moment(store).await?;
        let progress =
            Progress::new("looking for the key", store.usage().await?.entries, Unit::Entries);
        let mut pages = walk::pages(&*source, Scan::all().keys_only(), &skips);
        let found = stop
            .or(async {
                while let Some(page) = pages.try_next().await? {
                    progress.add(page.len() as u64);
                    let mut keys = page.entries.into_iter().map(|entry| entry.key);
                    if let Some(key) = keys.find(|key| stack.fingerprint(key) == fingerprint) {
                        return Ok(Some(key));
                    }
                }
                Ok(None)
            })
            .await?;
        progress.finish();
        let damaged = damaged.lock().unwrap_or_else(PoisonError::into_inner).take();
        found.or(damaged).ok_or_else(|| {
            let what =
                format!("no key of '{}' has the fingerprint #{fingerprint:016x}", stack.name());
            Failure::failed(what).next("it is of another store, or of a key that is gone")
        })
    })
    .await
}

fn table(inspections: &[Inspection], now: Timestamp) -> String {
    let head = ["layer", "place", "has it", "size", "age", "fresh", "kept", "expires", "dirty"];
    let unknown = || "-".to_owned();
    let moment = |at: Option<Timestamp>| at.map_or_else(unknown, |at| relative(at, now));
    let rows: Vec<_> = inspections
        .iter()
        .map(|seen| {
            let has = match seen.presence {
                Presence::None => "no",
                Presence::Absence => "that there is none",
                Presence::Failure => "that a load failed",
                Presence::Entry => "yes",
            };
            vec![
                seen.layer.clone(),
                seen.place.clone(),
                has.to_owned(),
                seen.bytes.map_or_else(unknown, output::bytes),
                seen.age.map_or_else(unknown, |age| output::duration(age.0)),
                moment(seen.fresh_until),
                moment(seen.kept_until),
                moment(seen.expires_at),
                seen.dirty
                    .map_or_else(unknown, |dirty| if dirty { "yes" } else { "no" }.to_owned()),
            ]
        })
        .collect();
    output::table(&head, &rows)
}

/// `9m 55s more`, `over for 3.00 s`
fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("{} more", output::duration(at.since(now)))
    } else {
        format!("over for {}", output::duration(now.since(at)))
    }
}

#[cfg(test)]
mod tests {
    use tierstack::Value;
    use tierstack::units::Span;

    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_place() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let value = Value::from("a value");
        let cache = Inspection {
            age: Some(Span(std::time::Duration::from_secs(5))),
            fresh_until: Some(now + std::time::Duration::from_secs(595)),
            expires_at: Some(Timestamp::from_millis(now.as_millis() - 3000)),
            ..Inspection::of_entry("cache", "memory", Some(&value))
        };
        let below = Inspection::none("rocksdb", "disk");
        let expected = "  layer     place  has it  size     age        fresh  kept          expires  dirty\n  \
                        ───────  ──────  ──────  ────  ──────  ───────────  ────  ───────────────  ─────\n  \
                        cache    memory     yes   7 B  5.00 s  9m 55s more     -  over for 3.00 s      -\n  \
                        rocksdb    disk      no     -       -            -     -                -      -\n";
        assert_eq!(table(&[cache, below], now), expected);
    }
}
