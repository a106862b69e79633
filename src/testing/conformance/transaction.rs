//! Transactions, at every level of isolation that the store can have.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinSet, yield_now};

use super::harness::{Bench, Stop, Verdict, ensure, join, known, refused, scan_gives};
use crate::error::{ErrorKind, Result};
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::testing::history::{Plain, allowed, interleave};
use crate::transaction::{Isolation, Transact, Transaction};
use crate::types::{Batch, Condition, Scan, Value};

super::check::topic! { "transaction":
    a_level_that_cannot_be_had_is_refused,
    a_transaction_sees_its_own_writes,
    nothing_is_seen_before_the_commit,
    reads_are_of_one_moment,
    of_two_updates_the_first_wins,
    a_key_that_was_read_is_unchanged,
    a_required_value_is_unchanged,
    an_entry_that_expires_is_relied_on_no_longer,
    histories_show_what_is_allowed,
    the_bank_keeps_its_money,
}

const CONFLICT: &[ErrorKind] = &[ErrorKind::Conflict];

/// The levels that the store can have.
fn levels(bench: &Bench) -> Vec<Isolation> {
    Isolation::ALL.into_iter().filter(|level| level.check(&bench.guarantees).is_ok()).collect()
}

fn needs(bench: &Bench, isolation: Isolation) -> Verdict {
    bench.needs_writes()?;
    let offered = isolation.check(&bench.guarantees).is_ok();
    if offered {
        Ok(())
    } else {
        Err(Stop::Skipped("the store cannot keep transactions apart so far"))
    }
}

async fn a_level_that_cannot_be_had_is_refused(bench: Bench) -> Verdict {
    let offered = levels(&bench);
    for isolation in Isolation::ALL {
        if !offered.contains(&isolation) {
            let begun = bench.store.begin(isolation).await;
            refused(begun, &[ErrorKind::Unsupported], "a transaction that the store cannot have")?;
        }
    }
    Ok(())
}

async fn a_transaction_sees_its_own_writes(bench: Bench) -> Verdict {
    needs(&bench, Isolation::ReadCommitted)?;
    let before = known(&[("a", "1"), ("c", "3"), ("d", "4"), ("e", "5")]);
    let after = known(&[("a", "1"), ("b", "new"), ("c", "changed"), ("e", "5"), ("f", "new")]);
    for isolation in levels(&bench) {
        bench.fill(&before).await?;
        let mut tx = bench.store.begin(isolation).await?;
        tx.put("b", "new")?;
        tx.delete("d")?;
        tx.put("g", "not kept")?;
        tx.write(Batch::new().put("c", "first").put("c", "changed").put("f", "new").delete("g"))
            .await?;
        let keys = ["g", "f", "e", "d", "c", "b", "a"].map(Bytes::from);
        for (key, got) in keys.iter().zip(tx.get_many(&keys).await?) {
            ensure!(got.as_ref() == after.get(key), "get_many of a transaction gives {got:?}");
            let got = tx.get(key).await?;
            ensure!(got.as_ref() == after.get(key), "get of a transaction gives {got:?}");
        }
        if bench.guarantees.ordered_scans {
            for scan in
                [Scan::all(), Scan::range("b"..="f").limit(3), Scan::range("a".."b").limit(9)]
            {
                scan_gives(&tx, scan.clone().page_entries(2), &after).await?;
                scan_gives(&tx, scan.clone().reverse(), &after).await?;
                scan_gives(&tx, scan.keys_only(), &after).await?;
            }
        }
        tx.commit().await?.durable().await?;
        for (key, got) in keys.iter().zip(bench.store.get_many(&keys).await?) {
            ensure!(got.as_ref() == after.get(key), "after the commit a key holds {got:?}");
        }
        let all = keys.iter().fold(Batch::new(), |batch, key| batch.delete(key.clone()));
        bench.store.write(all).await?;
    }
    Ok(())
}

async fn nothing_is_seen_before_the_commit(bench: Bench) -> Verdict {
    needs(&bench, Isolation::ReadCommitted)?;
    for isolation in levels(&bench) {
        bench.put("k", "old").await?;
        let mut tx = bench.store.begin(isolation).await?;
        tx.put("k", "new")?;
        let mark = tx.savepoint();
        tx.put("k", "newer")?;
        tx.put("other", "not kept")?;
        bench.gives("k", Some("old")).await?;
        tx.rollback_to(mark)?;
        let mut dropped = bench.store.begin(isolation).await?;
        dropped.put("k", "of a dropped transaction")?;
        dropped.rollback();
        tx.commit().await?.durable().await?;
        bench.gives("k", Some("new")).await?;
        bench.gives("other", None).await?;
    }
    Ok(())
}

async fn reads_are_of_one_moment(bench: Bench) -> Verdict {
    needs(&bench, Isolation::ReadCommitted)?;
    for isolation in levels(&bench) {
        bench.fill(&known(&[("a", "old"), ("b", "old")])).await?;
        let tx = bench.store.begin(isolation).await?;
        let first = tx.get(b"a").await?;
        bench.fill(&known(&[("a", "new"), ("b", "new")])).await?;
        let now = match isolation {
            Isolation::ReadCommitted => "new",
            Isolation::RepeatableRead | Isolation::Serializable => "old",
        };
        ensure!(first == Some("old".into()), "the first read gives {first:?}");
        for key in [b"a", b"b"] {
            let got = tx.get(key).await?;
            ensure!(got == Some(now.into()), "with {isolation} a later read gives {got:?}");
        }
        // It wrote nothing, so it relies on nothing.
        tx.commit().await?;
    }
    Ok(())
}

/// Whether two transactions both commit that begin at the same time, read `reads` and then write.
async fn both(
    bench: &Bench,
    isolation: Isolation,
    reads: &[&str],
    writes: [&'static str; 2],
) -> Result<bool> {
    let [mut one, mut two] =
        [bench.store.begin(isolation).await?, bench.store.begin(isolation).await?];
    for key in reads {
        one.get(key.as_bytes()).await?;
        two.get(key.as_bytes()).await?;
    }
    let [first, second] = writes;
    one.put(first, "of the first")?;
    two.put(second, "of the second")?;
    one.commit().await?;
    match two.commit().await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

async fn of_two_updates_the_first_wins(bench: Bench) -> Verdict {
    needs(&bench, Isolation::RepeatableRead)?;
    for isolation in [Isolation::RepeatableRead, Isolation::Serializable] {
        // Absent first, then there.
        for round in 0..2 {
            let both = both(&bench, isolation, &["k"], ["k", "k"]).await?;
            ensure!(!both, "with {isolation} an update is lost in round {round}");
            bench.gives("k", Some("of the first")).await?;
            bench.put("k", "there").await?;
        }
        bench.delete("k").await?;
    }
    let blind = both(&bench, Isolation::RepeatableRead, &[], ["k", "k"]).await?;
    ensure!(!blind, "with REPEATABLE READ a write that read nothing overwrites another");
    let blind = both(&bench, Isolation::Serializable, &[], ["k", "k"]).await?;
    ensure!(blind, "with SERIALIZABLE a write that relies on nothing is refused");
    Ok(())
}

async fn a_key_that_was_read_is_unchanged(bench: Bench) -> Verdict {
    needs(&bench, Isolation::Serializable)?;
    // Absent first, then there.
    for _ in 0..2 {
        let skewed = both(&bench, Isolation::Serializable, &["a", "b"], ["a", "b"]).await?;
        ensure!(!skewed, "with SERIALIZABLE two transactions each write what the other read");
        bench.fill(&known(&[("a", "there"), ("b", "there")])).await?;
    }
    if bench.guarantees.ordered_scans {
        let mut tx = bench.store.begin(Isolation::Serializable).await?;
        tx.collect(Scan::range("a".."c")).await?;
        bench.delete("b").await?;
        tx.put("d", "relies on the scan")?;
        refused(tx.commit().await, CONFLICT, "a commit after an entry of its scan was deleted")?;
    }
    bench.gives("d", None).await
}

async fn a_required_value_is_unchanged(bench: Bench) -> Verdict {
    needs(&bench, Isolation::ReadCommitted)?;
    bench.needs_values_as_conditions()?;
    for isolation in levels(&bench) {
        bench.fill(&known(&[("a", "1"), ("b", "1")])).await?;
        bench.delete("c").await?;
        let requires = |key, value: &'static str| {
            Batch::new().put("c", "written").require(Condition::equals(key, value))
        };
        let mut tx = bench.store.begin(isolation).await?;
        refused(
            tx.write(requires("a", "2")).await,
            CONFLICT,
            "a batch that requires another value",
        )?;
        tx.put("b", "own")?;
        tx.write(requires("b", "own")).await?;
        tx.write(requires("a", "1")).await?;
        bench.put("a", "changed").await?;
        refused(tx.commit().await, CONFLICT, "a commit whose required value was changed")?;
        bench.gives("c", None).await?;
        bench.gives("b", Some("1")).await?;
    }
    Ok(())
}

async fn an_entry_that_expires_is_relied_on_no_longer(bench: Bench) -> Verdict {
    needs(&bench, Isolation::RepeatableRead)?;
    bench.needs_expiry()?;
    for isolation in [Isolation::RepeatableRead, Isolation::Serializable] {
        let deadline = bench.soon();
        bench.put("k", Value::from("v").expiring_at(deadline)).await?;
        let mut tx = bench.store.begin(isolation).await?;
        let seen = tx.get(b"k").await?;
        bench.pass_until(deadline).await;
        let again = tx.get(b"k").await?;
        ensure!(seen == again, "an entry expires within a transaction: {seen:?}, then {again:?}");
        tx.put("k", "of the transaction")?;
        if seen.is_some() {
            refused(tx.commit().await, CONFLICT, "a commit that relies on what has expired")?;
            bench.gives("k", None).await?;
        }
    }
    Ok(())
}

/// Transactions that are open at the same time, in an order that a seed gives.
async fn histories_show_what_is_allowed(bench: Bench) -> Verdict {
    needs(&bench, Isolation::ReadCommitted)?;
    for isolation in levels(&bench) {
        let begin = Plain(Arc::clone(&bench.store), isolation);
        for seed in 0..3 {
            let prefix = format!("{isolation}-{seed}-");
            let history = interleave(&begin, &prefix, bench.guarantees.ordered_scans, seed).await?;
            let (found, allowed) = (history.anomalies(), allowed(isolation));
            let wrong: Vec<_> = found.difference(&allowed).collect();
            ensure!(wrong.is_empty(), "with {isolation}, seed {seed}, the history shows {wrong:?}");
            let committed = history.runs.iter().filter(|run| run.committed).count();
            ensure!(committed > 3, "with {isolation}, seed {seed}, {committed} are committed");
        }
    }
    Ok(())
}

const ACCOUNTS: u8 = 5;
const DEPOSIT: u64 = 100;
const CLERKS: usize = 4;
/// Of each clerk.
const TRANSFERS: usize = 6;

fn account(number: usize) -> Bytes {
    Bytes::from(format!("account-{}", number % usize::from(ACCOUNTS)))
}

fn balance(value: Option<&Value>) -> Verdict<u64> {
    let text = value.and_then(|value| std::str::from_utf8(&value.bytes).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Stop::failed("an account has no balance"))
}

/// Clerks transfer money at the same time, and count the transfers; auditors see the same sum at any time.
async fn the_bank_keeps_its_money(bench: Bench) -> Verdict {
    needs(&bench, Isolation::ReadCommitted)?;
    bench.needs_values_as_conditions()?;
    for isolation in levels(&bench) {
        let accounts = (0..ACCOUNTS).map(|n| (account(n.into()), Value::new(DEPOSIT.to_string())));
        let opened: Vec<_> = accounts.chain([("transfers".into(), "0".into())]).collect();
        bench.fill(opened.iter().map(|(key, value)| (key, value))).await?;
        let mut clerks = JoinSet::new();
        for clerk in 0..CLERKS {
            let store = Arc::clone(&bench.store);
            clerks.spawn(async move {
                let bank = Transact::new(isolation).attempts(1000).seed(clerk as u64);
                for n in 0..TRANSFERS {
                    let (from, to) = (account(n * 3 + clerk), account(n * 3 + clerk + 1 + n % 3));
                    if isolation == Isolation::ReadCommitted {
                        while !transfer_once(&store, &from, &to).await? {
                            yield_now().await;
                        }
                    } else {
                        let (from, to) = (&from, &to);
                        let transfer = |tx| async move { transfer(tx, isolation, from, to).await };
                        bank.run(&store, transfer).await?;
                    }
                }
                Ok(())
            });
        }
        if isolation != Isolation::ReadCommitted {
            let (store, scans) = (Arc::clone(&bench.store), bench.guarantees.ordered_scans);
            clerks.spawn(async move {
                for _ in 0..TRANSFERS {
                    audit(&store.begin(isolation).await?, scans).await?;
                    yield_now().await;
                }
                Ok(())
            });
        }
        join(clerks).await?;
        audit(&*bench.store, bench.guarantees.ordered_scans).await?;
        let count = bench.store.get(b"transfers").await?;
        let all = Value::new((CLERKS * TRANSFERS).to_string());
        ensure!(count == Some(all), "with {isolation} a transfer is lost: {count:?}");
    }
    Ok(())
}

/// Moves half of what an account has. With `READ COMMITTED` it requires what it read.
async fn transfer(
    mut tx: Transaction,
    isolation: Isolation,
    from: &Bytes,
    to: &Bytes,
) -> Result<(Transaction, ())> {
    let keys = [from.clone(), to.clone(), "transfers".into()];
    let found = tx.get_many(&keys).await?;
    // Others come between, also where nothing waits.
    yield_now().await;
    let number =
        |at: usize| found.get(at).and_then(|value| balance(value.as_ref()).ok()).unwrap_or(0);
    let (has, gets, count) = (number(0), number(1), number(2));
    let moved = has / 2;
    let put = |key: &Bytes, number: u64| Batch::new().put(key.clone(), number.to_string());
    let mut batches =
        vec![put(from, has - moved), put(to, gets + moved), put(&"transfers".into(), count + 1)];
    if isolation == Isolation::ReadCommitted {
        for ((batch, key), value) in batches.iter_mut().zip(&keys).zip(&found) {
            let value = value.clone().unwrap_or_default();
            *batch = std::mem::take(batch).require(Condition::equals(key.clone(), value));
        }
    }
    for batch in batches {
        tx.write(batch).await?;
    }
    Ok((tx, ()))
}

/// With `READ COMMITTED` what is required may fail already while the batch is written.
async fn transfer_once(store: &Arc<dyn Store>, from: &Bytes, to: &Bytes) -> Result<bool> {
    let steps = async {
        let tx = store.begin(Isolation::ReadCommitted).await?;
        let (tx, ()) = transfer(tx, Isolation::ReadCommitted, from, to).await?;
        tx.commit().await
    };
    match steps.await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

async fn audit<R: Read + ?Sized>(bank: &R, scans: bool) -> Verdict {
    let mut sum = 0;
    if scans {
        for entry in bank.collect(Scan::prefix("account-").page_entries(2)).await? {
            sum += balance(Some(&entry.value))?;
        }
    } else {
        let keys: Vec<Bytes> = (0..ACCOUNTS).map(|n| account(n.into())).collect();
        for value in bank.get_many(&keys).await? {
            sum += balance(value.as_ref())?;
        }
    }
    let deposited = DEPOSIT * u64::from(ACCOUNTS);
    ensure!(sum == deposited, "the bank holds {sum} instead of {deposited}");
    Ok(())
}
