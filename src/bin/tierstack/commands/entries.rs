//! `get`, `put`, `delete`, `scan`: single entries and runs of them.

use std::io::{Read, Write};
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use bytes::Bytes;
use futures_util::TryStreamExt;

use tierstack::{
    Batch, Clock, Error, Op, Read as _, Scan, Store, StoreExt, SystemClock, Value, jsonl,
};

use crate::args::{Delete, Get, Put, ScanArgs};
use crate::failure::{Failure, Outcome};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;
use crate::sink::Sink;
use crate::walk::{self, Skips};

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
pub(crate) async fn get(args: Get, stop: &Shutdown) -> Outcome {
    let key = key(args.key, args.key64)?;
    session::with(&args.store, Use::Existing, stop, async |store: &Arc<dyn Store>| {
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
        stop.or(async {
            let mut out = Sink::stdout();
            out.write(|out| match args.json {
                true => jsonl::write(out, &key, Some(&value)),
                false => out.write_all(&value.bytes),
            })
            .await?;
            out.finish().await
        })
        .await
    })
    .await
}

/// `tierstack put`
pub(crate) async fn put(args: Put, stop: &Shutdown) -> Outcome {
    let (key, value) = match args.key64 {
        Some(base64) => (key(None, Some(base64))?, args.first),
        None => (key(args.first, None)?, args.second),
    };
    // Asked for before the store is opened, so that a pipe may come from the same store.
    let limits = session::check(&args.store)?.profile().guarantees.limits;
    let bytes = match value {
        Some(text) if text != "-" => Bytes::from(text),
        _ => stop.or(standard_input(limits.value_bytes)).await?,
    };
    limits.check(key.len(), bytes.len())?;
    let expires_at = args.expires_in.map(|span| SystemClock.now() + span.0);
    session::with(&args.store, Use::Filling, stop, async |store: &Arc<dyn Store>| {
        let value = Value { bytes, expires_at };
        stop.or(async { Ok(store.put(key, value).await?.durable().await?) }).await?;
        session::warn_if_forgotten(&**store);
        Ok(())
    })
    .await
}

/// Standard input, up to the first byte that is too much. Read on a thread of its own, which ctrl-C leaves
/// behind.
async fn standard_input(most: Option<u64>) -> Outcome<Bytes> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // The command may be over.
        let _ = send.send(read_up_to(std::io::stdin().lock(), most));
    });
    match receive.await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => Err(Error::io("standard input cannot be read", error).into()),
        Err(_) => Err(Error::internal("the reader of standard input ended early").into()),
    }
}

/// All that a reader has, or one byte more than is allowed.
fn read_up_to(reader: impl Read, most: Option<u64>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most.map_or(u64::MAX, |most| most.saturating_add(1))).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `tierstack delete`
pub(crate) async fn delete(args: Delete, stop: &Shutdown) -> Outcome {
    let text = args.keys.into_iter().map(|text| key(Some(text), None));
    let base64 = args.key64.into_iter().map(|base64| key(None, Some(base64)));
    let keys: Vec<Bytes> = text.chain(base64).collect::<Outcome<_>>()?;
    session::with(&args.store, Use::Existing, stop, async |store: &Arc<dyn Store>| {
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
pub(crate) async fn scan(args: ScanArgs, stop: &Shutdown) -> Outcome {
    let range = range(&args);
    if range.limit != Some(0) && range.is_empty() {
        return Err(Failure::usage("--from is after --to; no key lies between them"));
    }
    let skips = Skips::asked(args.skip.skip);
    session::with(&args.store, Use::Existing, stop, async |store: &Arc<dyn Store>| {
        let scanned = stop
            .or(async {
                let mut pages = walk::pages(&**store, range, &skips);
                let mut out = Sink::stdout();
                while let Some(page) = pages.try_next().await? {
                    for entry in page.entries {
                        out.write(|out| match args.keys_only && !args.json {
                            true => out.write_all(&entry.key).and_then(|()| out.write_all(b"\n")),
                            false => {
                                let value = (!args.keys_only).then_some(&entry.value);
                                jsonl::write(out, &entry.key, value)
                            }
                        })
                        .await?;
                    }
                }
                out.finish().await
            })
            .await;
        skips.sum_up();
        scanned
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
    scan.keys_only = args.keys_only;
    scan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_it_takes_to_see_that_it_is_too_much() {
        let endless = || std::io::repeat(b'x');
        assert_eq!(read_up_to(endless(), Some(3)).unwrap(), b"xxxx");
        assert_eq!(read_up_to(endless().take(3), Some(3)).unwrap(), b"xxx");
        assert_eq!(read_up_to(endless().take(3), None).unwrap(), b"xxx");
    }
}
