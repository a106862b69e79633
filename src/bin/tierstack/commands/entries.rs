//! `get`, `put`, `delete`, `scan`: single entries and runs of them.

use std::io::{Read as _, Write};
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use bytes::Bytes;
use futures_util::TryStreamExt;

use tierstack::{Batch, Clock, Error, Op, Read, Scan, Store, StoreExt, SystemClock, Value};

use crate::args::{Delete, Get, Put, ScanArgs};
use crate::failure::{Failure, Outcome};
use crate::jsonl;
use crate::output;
use crate::session;
use crate::stop::Stop;

/// A key given as text or as base64.
pub(super) fn key(text: Option<String>, base64: Option<String>) -> Outcome<Bytes> {
    let key = match (text, base64) {
        (_, Some(base64)) => decode(&base64, "--key64")?,
        (Some(text), None) => Bytes::from(text),
        (None, None) => Bytes::new(),
    };
    if key.is_empty() {
        return Err(Failure::usage("the key is empty; it must have at least 1 byte"));
    }
    Ok(key)
}

/// The bytes that an option gives as base64.
pub(super) fn decode(base64: &str, option: &str) -> Outcome<Bytes> {
    STANDARD_PAD_INDIFFERENT.decode(base64).map(Bytes::from).map_err(|error| {
        Error::config(format!("{option} is not base64; write A-Z, a-z, 0-9, + and /"))
            .with_source(error)
            .into()
    })
}

/// `tierstack get`
pub(crate) async fn get(args: Get, stop: &Stop) -> Outcome {
    let key = key(args.key, args.key64)?;
    session::with(&args.store, stop, async |store: &Arc<dyn Store>| {
        let value = stop.or(async { Ok(store.get(&key).await?) }).await?;
        let value = value.ok_or_else(|| {
            let missing =
                Failure::failed(format!("the key '{}' does not exist", key.escape_ascii()));
            if store.profile().guarantees.ordered_scans {
                missing.next("`tierstack scan --keys-only` lists the keys that do")
            } else {
                missing
            }
        })?;
        let mut out = output::buffered();
        let written = if args.json {
            jsonl::write(&mut out, &key, Some(&value))
        } else {
            out.write_all(&value.bytes)
        };
        written.and_then(|()| out.flush()).map_err(Failure::output)
    })
    .await
}

/// `tierstack put`
pub(crate) async fn put(args: Put, stop: &Stop) -> Outcome {
    let (key, value) = match args.key64 {
        Some(base64) => (key(None, Some(base64))?, args.first),
        None => (key(args.first, None)?, args.second),
    };
    // Asked for before the store is opened, so that a pipe may come from the same store.
    session::check(&args.store)?;
    let bytes = match value {
        Some(text) if text != "-" => Bytes::from(text),
        _ => stop.or(standard_input()).await?,
    };
    let expires_at = args.expires_in.map(|span| SystemClock.now() + span.0);
    session::with(&args.store, stop, async |store: &Arc<dyn Store>| {
        let value = Value { bytes, expires_at };
        stop.or(async { Ok(store.put(key, value).await?.durable().await?) }).await?;
        session::warn_if_forgotten(&**store);
        Ok(())
    })
    .await
}

/// All of standard input. Read on a thread of its own, which ctrl-C leaves behind.
async fn standard_input() -> Outcome<Bytes> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes);
        // The command may be over.
        let _ = send.send(read);
    });
    match receive.await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => Err(Error::io("standard input cannot be read", error).into()),
        Err(_) => Err(Error::internal("the reader of standard input ended early").into()),
    }
}

/// `tierstack delete`
pub(crate) async fn delete(args: Delete, stop: &Stop) -> Outcome {
    let text = args.keys.into_iter().map(|text| key(Some(text), None));
    let base64 = args.key64.into_iter().map(|base64| key(None, Some(base64)));
    let keys: Vec<Bytes> = text.chain(base64).collect::<Outcome<_>>()?;
    session::with(&args.store, stop, async |store: &Arc<dyn Store>| {
        let most = store.profile().guarantees.batch_ops().unwrap_or(usize::MAX);
        for keys in keys.chunks(most) {
            let batch: Batch = keys.iter().cloned().map(Op::Delete).collect();
            stop.or(async { Ok(store.write(batch).await?.durable().await?) }).await?;
        }
        Ok(())
    })
    .await
}

/// `tierstack scan`
pub(crate) async fn scan(args: ScanArgs, stop: &Stop) -> Outcome {
    let range = range(&args);
    if range.limit != Some(0) && range.is_empty() {
        return Err(Failure::usage("--from stands behind --to; no key lies between them"));
    }
    session::with(&args.store, stop, async |store: &Arc<dyn Store>| {
        stop.or(async {
            let mut pages = store.scan(range);
            let mut out = output::buffered();
            while let Some(page) = pages.try_next().await? {
                for entry in page.entries {
                    let written = if args.keys_only && !args.json {
                        out.write_all(&entry.key).and_then(|()| out.write_all(b"\n"))
                    } else {
                        let value = (!args.keys_only).then_some(&entry.value);
                        jsonl::write(&mut out, &entry.key, value)
                    };
                    written.map_err(Failure::output)?;
                }
            }
            out.flush().map_err(Failure::output)
        })
        .await
    })
    .await
}

fn range(args: &ScanArgs) -> Scan {
    let mut scan = match &args.prefix {
        Some(prefix) => Scan::prefix(prefix),
        None => Scan::range::<&str>((
            args.from.as_deref().map_or(Bound::Unbounded, Bound::Included),
            args.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        )),
    };
    if args.reverse {
        scan = scan.reverse();
    }
    scan.limit = args.limit;
    scan
}
