//! Scans: the order of keys, ranges, limits, pages, and scans while others write.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use futures_util::StreamExt;

use super::harness::{
    Bench, Verdict, ensure, known, numbered, numbered_key, scan_gives, scans_give,
};
use crate::ext::ReadExt;
use crate::store::{Read, Store};
use crate::testing::Random;
use crate::testing::oracle::{Known, show};
use crate::types::{Order, Scan, Value};

super::check::topic! { "scan":
    an_empty_store_has_no_pages,
    keys_are_ordered_bytewise,
    every_range_in_both_directions,
    every_limit_and_page_size,
    a_prefix_selects_its_keys,
    pages_end_at_their_bytes,
    many_entries_come_in_pages,
    a_scan_reads_nothing_before_it_is_polled,
    entries_that_stay_are_seen_once_while_others_change,
    a_scan_between_pages_holds_up_nobody,
}

/// Keys that sort in ways that go wrong: prefixes of each other, 0x00 and 0xff at every place.
pub(super) fn awkward() -> Known {
    let keys: [&[u8]; 17] = [
        b"\x00",
        b"\x00\x00",
        b"\x00\xff",
        b"\x01",
        b"a",
        b"a\x00",
        b"a\x00\x00",
        b"a\x00b",
        b"a\x01",
        b"aa",
        b"a\xff",
        b"a\xff\xff",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xff\xff",
    ];
    keys.iter().map(|key| (Bytes::from_static(key), Value::new(show(key)))).collect()
}

async fn an_empty_store_has_no_pages(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    for scan in [Scan::all(), Scan::all().reverse(), Scan::prefix("a"), Scan::range("a".."b")] {
        scan_gives(&*bench.store, scan, &Known::new()).await?;
    }
    bench.put("a", "1").await?;
    bench.delete("a").await?;
    scan_gives(&*bench.store, Scan::all(), &Known::new()).await
}

async fn keys_are_ordered_bytewise(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let mut entries = awkward();
    entries.extend((0..=255u8).map(|byte| (vec![b'm', byte].into(), Value::new(vec![byte]))));
    // Written in another order than that of the keys.
    let mut keys: Vec<&Bytes> = entries.keys().collect();
    keys.sort_by_key(|key| (key.last(), key.len()));
    bench.fill(keys.into_iter().filter_map(|key| entries.get_key_value(key))).await?;
    for page in [bench.times(1, 4), 5, 1000] {
        let scan = Scan::all().page_entries(page);
        scan_gives(&*bench.store, scan.clone(), &entries).await?;
        scan_gives(&*bench.store, scan.reverse(), &entries).await?;
    }
    Ok(())
}

async fn every_range_in_both_directions(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let (entries, scans) = ranges();
    bench.fill(&entries).await?;
    scans_give(&*bench.store, some(&bench, scans), &entries).await
}

/// Entries, and every pair of bounds on and between their keys, also those that end before they start.
pub(super) fn ranges() -> (Known, Vec<Scan>) {
    let mut entries = awkward();
    let (probes, absent): (BTreeSet<Bytes>, [&[u8]; 3]) =
        (entries.keys().step_by(2).cloned().collect(), [b"a\x00a", b"aaa", b"c"]);
    // Every fourth key is a bound that is not there.
    for key in probes.iter().step_by(2) {
        entries.remove(key);
    }
    // The empty key is no key, but a bound: `Scan::prefix("")` uses it.
    let probes = probes.into_iter().chain(absent.map(Bytes::from_static)).chain([Bytes::new()]);
    let mut bounds = vec![Bound::Unbounded];
    bounds.extend(probes.flat_map(|key| [Bound::Included(key.clone()), Bound::Excluded(key)]));
    let mut scans = Vec::new();
    // Limits and page sizes take turns; their combinations are another check.
    let mut turns = [(None, 1024), (None, 2), (Some(3), 1024), (Some(4), 3)].into_iter().cycle();
    for from in &bounds {
        for to in &bounds {
            for order in [Order::Forward, Order::Reverse] {
                let (limit, page_entries) = turns.next().unwrap_or((None, 1));
                let (from, to) = (from.clone(), to.clone());
                let scan = Scan { from, to, order, limit, page_entries, ..Scan::all() };
                scans.push(scan);
            }
        }
    }
    (entries, scans)
}

/// All of many combinations, or for a service every seventh: no number of choices divides by seven, so each
/// is among them, concurrently with different ones of the others.
pub(super) fn some(bench: &Bench, scans: Vec<Scan>) -> impl Iterator<Item = Scan> + use<> {
    scans.into_iter().step_by(bench.times(1, 7))
}

async fn every_limit_and_page_size(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let entries = numbered(25);
    bench.fill(&entries).await?;
    scans_give(&*bench.store, some(&bench, limits_and_page_sizes()), &entries).await
}

/// Limits and sizes of pages on and next to the borders of 25 numbered keys.
pub(super) fn limits_and_page_sizes() -> Vec<Scan> {
    let (from, to) = (numbered_key(3), numbered_key(20));
    let ranges = [
        Scan::all(),
        Scan::range::<Bytes>(&from..&to),
        Scan::range::<Bytes>((Bound::Excluded(&from), Bound::Included(&to))),
    ];
    let mut scans = Vec::new();
    let limits = [0, 1, 2, 7, 16, 17, 18, 24, 25, 26, u64::MAX].map(Some).into_iter().chain([None]);
    for limit in limits {
        for page_entries in [0, 1, 2, 3, 7, 8, 17, 24, 25, 26, usize::MAX] {
            for range in &ranges {
                let scan = Scan { limit, page_entries, ..range.clone() };
                scans.extend([scan.clone(), scan.reverse()]);
            }
        }
    }
    scans
}

async fn a_prefix_selects_its_keys(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let entries = awkward();
    bench.fill(&entries).await?;
    let prefixes: [&[u8]; 9] =
        [b"", b"a", b"a\x00", b"a\xff", b"\x00", b"\xff", b"\xff\xff", b"\xff\xff\xff", b"zz"];
    for prefix in prefixes {
        let of_prefix: Known = entries
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        // Compared with `starts_with`, not with the bounds that the scan came up with.
        for scan in [Scan::prefix(prefix), Scan::prefix(prefix).reverse().page_entries(2)] {
            let got = bench.store.collect(scan).await?;
            let got: Known = got.into_iter().map(|entry| (entry.key, entry.value)).collect();
            ensure!(got == of_prefix, "the prefix {} selects {} entries", show(prefix), got.len());
        }
    }
    Ok(())
}

async fn pages_end_at_their_bytes(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let mut random = Random::new(2);
    // Bytes that do not compress: a codec below must not be able to make a page larger.
    let entries: Known =
        (0..40).map(|n| (numbered_key(n), random.bytes(1000 + n).into())).collect();
    bench.fill(&entries).await?;
    for page_bytes in [0, 1, 1008, 5000, 1 << 20, usize::MAX] {
        let scan = Scan::all().page_bytes(page_bytes);
        scan_gives(&*bench.store, scan.clone(), &entries).await?;
        scan_gives(&*bench.store, scan.reverse().page_entries(7), &entries).await?;
    }
    Ok(())
}

async fn many_entries_come_in_pages(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let many = bench.times(3000, 1100);
    let entries = numbered(many);
    bench.fill(&entries).await?;
    scan_gives(&*bench.store, Scan::all(), &entries).await?;
    scan_gives(&*bench.store, Scan::all().reverse(), &entries).await?;
    let middle = Scan::range(numbered_key(many / 3)..).limit(many as u64 / 2).page_entries(100);
    scan_gives(&*bench.store, middle, &entries).await
}

async fn a_scan_reads_nothing_before_it_is_polled(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    bench.put("a", "1").await?;
    let pages = bench.store.scan(Scan::all());
    bench.put("b", "2").await?;
    bench.delete("a").await?;
    let found: Vec<_> = pages.collect().await;
    let mut keys = Vec::new();
    for page in found {
        keys.extend(page?.entries.into_iter().map(|entry| entry.key));
    }
    ensure!(keys == ["b"], "a scan must see what was written before its first poll");
    Ok(())
}

async fn entries_that_stay_are_seen_once_while_others_change(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    seen_once_while_others_change(&bench, Scan::all()).await
}

/// Keys ending in 0 and 5 stay; between pages others come, go, and change.
pub(super) async fn seen_once_while_others_change(bench: &Bench, all: Scan) -> Verdict {
    let stays = |n: usize| n.is_multiple_of(5);
    for order in [Order::Forward, Order::Reverse] {
        bench.fill(numbered(200).iter().filter(|(key, _)| !key.ends_with(b"3"))).await?;
        let mut random = Random::new(3);
        let mut seen: Vec<Bytes> = Vec::new();
        let mut pages = bench.store.scan(Scan { order, ..all.clone().page_entries(7) });
        while let Some(page) = pages.next().await {
            seen.extend(page?.entries.into_iter().map(|entry| entry.key));
            for _ in 0..10 {
                let n = random.below(220);
                match n % 5 {
                    0 => bench.put(numbered_key(n - n % 10), "changed").await?,
                    1 | 3 => bench.put(numbered_key(n), "come").await?,
                    _ => bench.delete(numbered_key(n)).await?,
                }
            }
        }
        drop(pages);
        let sorted = seen.is_sorted_by(|a, b| if order == Order::Forward { a < b } else { a > b });
        ensure!(sorted, "a scan gives keys twice or out of order when others write between pages");
        for n in (0..200).filter(|n| stays(*n)) {
            let key = numbered_key(n);
            ensure!(
                seen.contains(&key),
                "an entry that stays is missing from a scan: {}",
                show(&key)
            );
        }
    }
    Ok(())
}

async fn a_scan_between_pages_holds_up_nobody(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    bench.fill(&numbered(30)).await?;
    let store = &bench.store;
    // More at once than any sensible number of permits.
    let mut open = Vec::new();
    for _ in 0..bench.times(300, 100) {
        let mut pages = store.scan(Scan::all().page_entries(2));
        ensure!(pages.next().await.transpose()?.is_some(), "a scan finds nothing");
        open.push(pages);
    }
    bench.put("new", "1").await?;
    bench.gives("new", Some("1")).await?;
    store.flush().await?;
    store.compact().await?;
    bench.fill(&known(&[("newer", "2")])).await?;
    bench.gives("newer", Some("2")).await?;
    for mut pages in open {
        ensure!(pages.next().await.transpose()?.is_some(), "a scan ends after its first page");
    }
    Ok(())
}
