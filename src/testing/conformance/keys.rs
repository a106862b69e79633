//! Scans of keys only: the keys of a full scan, and no values.

use std::time::Duration;

use bytes::Bytes;

use super::harness::{
    Bench, Verdict, ensure, known, numbered, numbered_key, scan_gives, scans_give,
};
use super::scan::{awkward, limits_and_page_sizes, ranges, seen_once_while_others_change, some};
use crate::store::{Read, Store};
use crate::testing::Random;
use crate::testing::oracle::{Known, show_value};
use crate::types::{Scan, Value};

super::check::topic! { "keys":
    they_are_those_of_the_entries,
    every_range_in_both_directions,
    every_limit_and_page_size,
    pages_end_at_the_bytes_of_their_keys,
    their_values_are_empty_and_those_of_reads_are_not,
    those_of_expired_entries_do_not_appear,
    those_that_stay_are_seen_once_while_others_change,
    a_snapshot_lists_its_own,
}

async fn they_are_those_of_the_entries(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    scan_gives(&*bench.store, Scan::all().keys_only(), &Known::new()).await?;
    let entries = awkward();
    bench.fill(&entries).await?;
    for prefix in [&b""[..], b"a", b"a\xff", b"\xff", b"zz"] {
        for page in [1, 2, 1000] {
            let scan = Scan::prefix(prefix).page_entries(page).keys_only();
            scan_gives(&*bench.store, scan.clone(), &entries).await?;
            scan_gives(&*bench.store, scan.reverse(), &entries).await?;
        }
    }
    Ok(())
}

fn keys_only(scans: Vec<Scan>) -> Vec<Scan> {
    scans.into_iter().map(Scan::keys_only).collect()
}

async fn every_range_in_both_directions(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let (entries, scans) = ranges();
    bench.fill(&entries).await?;
    scans_give(&*bench.store, some(&bench, keys_only(scans)), &entries).await
}

async fn every_limit_and_page_size(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let entries = numbered(25);
    bench.fill(&entries).await?;
    let scans = keys_only(limits_and_page_sizes());
    scans_give(&*bench.store, some(&bench, scans), &entries).await
}

async fn pages_end_at_the_bytes_of_their_keys(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let mut random = Random::new(2);
    let entries: Known = (0..40).map(|n| (numbered_key(n), random.bytes(100 * n).into())).collect();
    bench.fill(&entries).await?;
    for page_bytes in [0, 1, 9, 10, 55, 1 << 20, usize::MAX] {
        let scan = Scan::all().page_bytes(page_bytes).keys_only();
        scan_gives(&*bench.store, scan.clone(), &entries).await?;
        scan_gives(&*bench.store, scan.reverse().page_entries(7), &entries).await?;
    }
    Ok(())
}

/// Small and large ones, empty ones, and such with a deadline.
async fn their_values_are_empty_and_those_of_reads_are_not(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let mut entries = known(&[("empty", ""), ("small", "1")]);
    entries.insert("large".into(), Random::new(3).bytes(100_000).into());
    if bench.guarantees.expiry {
        // In whole seconds, which is what some stores keep.
        let deadline = bench.now() + Duration::from_secs(3600);
        entries.insert("until".into(), Value::from("1").expiring_at(deadline));
        entries.insert("until, empty".into(), Value::default().expiring_at(deadline));
    }
    bench.fill(&entries).await?;
    for _ in 0..2 {
        for scan in [Scan::all(), Scan::all().reverse().page_entries(2)] {
            scan_gives(&*bench.store, scan.clone().keys_only(), &entries).await?;
            scan_gives(&*bench.store, scan, &entries).await?;
        }
        for (key, value) in &entries {
            let got = bench.store.get(key).await?;
            let shown = show_value(got.as_ref());
            ensure!(got.as_ref() == Some(value), "after a scan of keys only, get gives {shown}");
        }
    }
    Ok(())
}

async fn those_of_expired_entries_do_not_appear(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    bench.needs_scans()?;
    let deadline = bench.soon();
    let mut entries = numbered(60);
    for (n, value) in entries.values_mut().enumerate() {
        value.expires_at = (n % 2 == 0 || (20..40).contains(&n)).then_some(deadline);
    }
    bench.fill(&entries).await?;
    bench.pass_until(deadline).await;
    entries.retain(|_, value| value.expires_at.is_none());
    for limit in [None, Some(1), Some(5), Some(25)] {
        for page in [1, 3, 1000] {
            let scan = Scan { limit, ..Scan::all().page_entries(page).keys_only() };
            scan_gives(&*bench.store, scan.clone(), &entries).await?;
            scan_gives(&*bench.store, scan.reverse(), &entries).await?;
        }
    }
    Ok(())
}

async fn those_that_stay_are_seen_once_while_others_change(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    seen_once_while_others_change(&bench, Scan::all().keys_only()).await
}

async fn a_snapshot_lists_its_own(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    bench.needs_scans()?;
    let entries = numbered(30);
    bench.fill(&entries).await?;
    let snapshot = bench.store.snapshot().await?;
    bench.fill(&known(&[("key-00005!", "later"), ("key-00006", "changed")])).await?;
    bench.delete(numbered_key(7)).await?;
    for limit in [None, Some(1), Some(10)] {
        for page in [1, 4, 100] {
            let (from, to): (Bytes, Bytes) = (numbered_key(3), numbered_key(27));
            let range = Scan::range::<Bytes>(&from..=&to).page_entries(page).keys_only();
            let scan = Scan { limit, ..range };
            scan_gives(&*snapshot, scan.clone(), &entries).await?;
            scan_gives(&*snapshot, scan.reverse(), &entries).await?;
        }
    }
    Ok(())
}
