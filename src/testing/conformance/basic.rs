//! Single entries: put, get, overwrite, delete; keys and values of any bytes and size; bulk reads.

use bytes::Bytes;

use super::harness::{Bench, Verdict, ensure, known, numbered, numbered_key, refused, seen};
use crate::error::ErrorKind;
use crate::store::{Read, Store};
use crate::testing::Random;
use crate::testing::oracle::{Known, show};
use crate::types::{Batch, Limits, Value};

super::check::topic! { "basic":
    a_missing_key_gives_none,
    a_put_is_read_back,
    an_overwrite_replaces_the_value,
    a_delete_removes_the_entry,
    deleting_a_missing_key_succeeds,
    an_entry_can_come_back,
    an_empty_batch_changes_nothing,
    an_empty_value_is_not_missing,
    every_byte_is_a_key,
    every_byte_is_a_value,
    large_values_are_read_back,
    bulk_reads_keep_the_order_of_the_keys,
    a_bulk_read_of_no_keys_gives_nothing,
    a_bulk_read_takes_a_thousand_keys,
    a_bulk_read_with_a_wrong_key_is_refused,
}

async fn a_missing_key_gives_none(bench: Bench) -> Verdict {
    bench.gives("missing", None).await?;
    bench.needs_writes()?;
    bench.put("present", "1").await?;
    for neighbour in ["presen", "present\0", "present1", "presenu"] {
        bench.gives(neighbour, None).await?;
    }
    Ok(())
}

async fn a_put_is_read_back(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.gives("k", None).await?;
    bench.put("k", "value").await?;
    bench.gives("k", Some("value")).await?;
    let value = bench.store.get(b"k").await?;
    ensure!(
        value.is_some_and(|value| value.expires_at.is_none()),
        "a value put without an expiry must have none"
    );
    Ok(())
}

async fn an_overwrite_replaces_the_value(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    for value in ["first", "second, which is longer", "3", "", "fifth"] {
        bench.put("k", value).await?;
        bench.gives("k", Some(value)).await?;
    }
    Ok(())
}

async fn a_delete_removes_the_entry(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.fill(&known(&[("a", "1"), ("b", "2"), ("c", "3")])).await?;
    bench.delete("b").await?;
    bench.gives("a", Some("1")).await?;
    bench.gives("b", None).await?;
    bench.gives("c", Some("3")).await
}

async fn deleting_a_missing_key_succeeds(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.delete("never there").await?;
    bench.put("k", "1").await?;
    bench.delete("k").await?;
    bench.delete("k").await?;
    bench.gives("k", None).await
}

async fn an_entry_can_come_back(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    for value in ["first", "second", "third"] {
        bench.put("k", value).await?;
        bench.gives("k", Some(value)).await?;
        bench.delete("k").await?;
        bench.gives("k", None).await?;
    }
    Ok(())
}

async fn an_empty_batch_changes_nothing(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.put("k", "1").await?;
    bench.store.write(Batch::new()).await?.durable().await?;
    bench.gives("k", Some("1")).await
}

async fn an_empty_value_is_not_missing(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.put("k", "").await?;
    bench.gives("k", Some("")).await?;
    bench.delete("k").await?;
    bench.gives("k", None).await
}

async fn every_byte_is_a_key(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    keys.extend((0..=255).map(|byte| vec![b'x', byte, byte]));
    let entries: Known = keys
        .into_iter()
        .map(|key| (Bytes::from(key.clone()), Value::new([b"value of ", &*key].concat())))
        .collect();
    bench.fill(&entries).await?;
    let keys: Vec<Bytes> = entries.keys().cloned().collect();
    for (key, got) in keys.iter().zip(bench.store.get_many(&keys).await?) {
        ensure!(got.as_ref() == entries.get(key), "{} is not what was put", show(key));
        let got = bench.store.get(key).await?;
        ensure!(got.as_ref() == entries.get(key), "get and get_many of {} differ", show(key));
    }
    Ok(())
}

async fn every_byte_is_a_value(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let all: Vec<u8> = (0..=255).collect();
    for byte in 0..=255u8 {
        let key = Bytes::from(vec![b'k', byte]);
        bench.put(key.clone(), vec![byte]).await?;
        let got = bench.store.get(&key).await?;
        ensure!(got == Some(Value::new(vec![byte])), "a value of the byte {byte:#04x} changed");
    }
    bench.put("all", all.clone()).await?;
    ensure!(bench.store.get(b"all").await? == Some(all.into()), "a value of all bytes changed");
    Ok(())
}

async fn large_values_are_read_back(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let limit = bench.guarantees.limits.value_bytes.unwrap_or(u64::MAX);
    let mut random = Random::new(1);
    // Around the sizes at which buffers, pages and frames like to end, random and compressible.
    let sizes = [4095, 4096, 4097, 65_535, 65_536, 65_537, (1 << 20) + 1, 5 << 20];
    let scans = bench.guarantees.ordered_scans;
    for size in sizes.into_iter().filter(|size| *size as u64 <= limit) {
        for value in [random.bytes(size), Bytes::from(vec![b'a'; size])] {
            bench.put("large", value.clone()).await?;
            let got = seen(&*bench.store, scans, &Bytes::from_static(b"large")).await;
            ensure!(got == Ok(Some(value)), "a value of {size} bytes is not what was put");
        }
    }
    bench.put("large", "small").await?;
    bench.gives("large", Some("small")).await
}

async fn bulk_reads_keep_the_order_of_the_keys(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.fill(&known(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "")])).await?;
    bench.delete("b").await?;
    let names = ["c", "missing", "a", "c", "b", "d", "a", "missing", "a\0"];
    let keys = names.map(Bytes::from);
    let values = bench.store.get_many(&keys).await?;
    let want = [Some("3"), None, Some("1"), Some("3"), None, Some(""), Some("1"), None, None];
    let want: Vec<Option<Value>> = want.into_iter().map(|value| value.map(Value::from)).collect();
    ensure!(
        values == want,
        "get_many must give one value for each key, in their order: {want:?}, not {values:?}"
    );
    Ok(())
}

async fn a_bulk_read_of_no_keys_gives_nothing(bench: Bench) -> Verdict {
    let values = bench.store.get_many(&[]).await?;
    ensure!(values.is_empty(), "get_many of no keys gives {} values", values.len());
    Ok(())
}

async fn a_bulk_read_takes_a_thousand_keys(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let entries = numbered(1000);
    bench.fill(entries.iter().filter(|(key, _)| !key.ends_with(b"7"))).await?;
    let keys: Vec<Bytes> = (0..1000).map(|n| numbered_key((n * 377) % 1000)).collect();
    let values = bench.store.get_many(&keys).await?;
    ensure!(values.len() == 1000, "get_many of 1000 keys gives {} values", values.len());
    for (key, value) in keys.iter().zip(values) {
        let want = entries.get(key).filter(|_| !key.ends_with(b"7"));
        ensure!(value.as_ref() == want, "get_many gives the wrong value for {}", show(key));
    }
    Ok(())
}

async fn a_bulk_read_with_a_wrong_key_is_refused(bench: Bench) -> Verdict {
    let long = Bytes::from(vec![b'k'; Limits::MAX_KEY_BYTES + 1]);
    for wrong in [Bytes::new(), long] {
        let keys = [Bytes::from_static(b"good"), wrong, Bytes::from_static(b"also good")];
        let many = bench.store.get_many(&keys).await;
        refused(many, &[ErrorKind::InvalidInput], "get_many with a wrong key")?;
    }
    Ok(())
}
