//! Limits: what is at a limit works, what is over it is refused with words, and leaves nothing.

use bytes::Bytes;

use super::harness::{Bench, Stop, Verdict, ensure, refused, seen};
use crate::error::ErrorKind;
use crate::store::{Read, Store};
use crate::testing::oracle::show;
use crate::types::{Batch, Limits, Op};

super::check::topic! { "limits":
    the_longest_key_works,
    wrong_keys_are_refused,
    what_a_write_refuses_by_its_key_a_read_refuses_too,
    a_value_over_the_limit_is_refused,
    a_batch_over_the_limit_is_refused,
}

async fn the_longest_key_works(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let limit = bench.guarantees.limits.key_bytes;
    ensure!(
        (1..=Limits::MAX_KEY_BYTES).contains(&limit),
        "the profile must limit keys to between 1 and {} bytes, not {limit}",
        Limits::MAX_KEY_BYTES
    );
    let scans = bench.guarantees.ordered_scans;
    // Two that differ in the last byte only, of the largest and the smallest bytes.
    let mut keys = Vec::new();
    for (fill, last) in [(0xff, 0xff), (0xff, 0xfe), (0, 0), (0, 1)] {
        let mut key = vec![fill; limit - 1];
        key.push(last);
        keys.push(Bytes::from(key));
    }
    for (n, key) in keys.iter().enumerate() {
        bench.put(key.clone(), n.to_string()).await?;
    }
    for (n, key) in keys.iter().enumerate() {
        let got = seen(&*bench.store, scans, key).await.map_err(Stop::failed)?;
        ensure!(got == Some(n.to_string().into()), "a key of {limit} bytes has another value");
        bench.delete(key.clone()).await?;
        let got = bench.store.get(key).await?;
        ensure!(got.is_none(), "a key of {limit} bytes cannot be deleted");
    }
    Ok(())
}

async fn wrong_keys_are_refused(bench: Bench) -> Verdict {
    let long = Bytes::from(vec![b'k'; Limits::MAX_KEY_BYTES + 1]);
    let kinds = &[ErrorKind::InvalidInput];
    for key in [Bytes::new(), long] {
        let what = |how: &str| format!("{how} with a key of {} bytes", key.len());
        refused(bench.store.get(&key).await, kinds, &what("get"))?;
        let many = bench.store.get_many(std::slice::from_ref(&key)).await;
        refused(many, kinds, &what("get_many"))?;
        if bench.guarantees.writable {
            refused(bench.put(key.clone(), "value").await, kinds, &what("a put"))?;
            refused(bench.delete(key.clone()).await, kinds, &what("a delete"))?;
        }
    }
    let limit = bench.guarantees.limits.key_bytes;
    if bench.guarantees.writable && limit < Limits::MAX_KEY_BYTES {
        let key = Bytes::from(vec![b'k'; limit + 1]);
        refused(bench.put(key.clone(), "v").await, kinds, "a key over the store's own limit")?;
        // There is no such entry: whether the store says so or refuses the key is its choice.
        if let Ok(Some(_)) = bench.store.get(&key).await {
            return Err(Stop::failed("a refused key is there"));
        }
    }
    Ok(())
}

/// A read that answers "not there" about a key that no write takes could say so of an entry that is there.
async fn what_a_write_refuses_by_its_key_a_read_refuses_too(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let kinds = &[ErrorKind::InvalidInput];
    let keys: &[&[u8]] = &[
        b"/",
        b"//",
        b"/lead",
        b"trail/",
        b"a//b",
        b".",
        b"..",
        b"../up",
        b"./here",
        b"a/../b",
        b"a/.",
        b"a/",
        b"\0",
        b"a\0b",
        b"\0tierstack/",
        b"\0tierstack/restore",
        b"\xff\xfe",
        b"a\xffb",
        b"a\nb",
        b" ",
        b"a ",
        b"%",
        b"%2f",
        b"a%2Fb",
        b"~",
        b"*?[",
        b"a\\b",
        b"-x",
        b"#",
        "\u{e9}".as_bytes(),
    ];
    for key in keys.iter().map(|key| Bytes::from_static(key)) {
        let what = |how: &str| format!("{how} of a key that a put refuses, {}", show(&key));
        let put = bench.put(key.clone(), "v").await;
        if put.is_ok() {
            bench.gives(key.clone(), Some("v")).await?;
            bench.delete(key.clone()).await?;
            bench.gives(key.clone(), None).await?;
            continue;
        }
        refused(put, kinds, &format!("a put of the key {}", show(&key)))?;
        refused(bench.store.get(&key).await, kinds, &what("get"))?;
        let among = [Bytes::from("a"), key.clone()];
        refused(bench.store.get_many(&among).await, kinds, &what("get_many"))?;
        refused(bench.store.inspect(&key).await, kinds, &what("inspect"))?;
        refused(bench.delete(key.clone()).await, kinds, &what("a delete"))?;
    }
    Ok(())
}

async fn a_value_over_the_limit_is_refused(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let limit = bench.guarantees.limits.value_bytes.and_then(|limit| usize::try_from(limit).ok());
    let Some(limit) = limit.filter(|limit| *limit <= 64 << 20) else {
        return Err(Stop::Skipped("the store has no limit on values, or a large one"));
    };
    bench.put("k", vec![b'v'; limit]).await?;
    let written = bench.put("k", vec![b'w'; limit + 1]).await;
    refused(written, &[ErrorKind::InvalidInput], "a value over the limit")?;
    let got = bench.store.get(b"k").await?;
    ensure!(
        got.is_some_and(|value| value.bytes == vec![b'v'; limit]),
        "a refused value changed the entry"
    );
    Ok(())
}

async fn a_batch_over_the_limit_is_refused(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    let Some(limit) = bench.guarantees.limits.batch_ops.filter(|limit| *limit <= 100_000) else {
        return Err(Stop::Skipped("the store has no limit on batches, or a large one"));
    };
    let batch = |count: usize| -> Batch {
        (0..count).map(|n| Op::Put(n.to_string().into(), "v".into())).collect()
    };
    let written = bench.store.write(batch(limit + 1)).await;
    refused(written, &[ErrorKind::InvalidInput], "a batch over the limit")?;
    bench.gives("0", None).await?;
    bench.store.write(batch(limit)).await?.durable().await?;
    bench.gives("0", Some("v")).await
}
