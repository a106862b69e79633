//! Writers behind the back of the cache, and readers through it, on real threads.

use super::*;

/// Writers behind the back of the cache that report late, and readers through it, on real threads. Once
/// a report was passed on, no reader sees less than what it is about.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_less_than_what_was_reported() {
    const KEYS: usize = 4;
    const WRITES: u64 = 3000;

    let below = Gated { change_feed: Some(WITHIN), ..Gated::new(SystemClock::shared()) };
    let inner = CacheLayer::new(&settings(), &Context::default()).unwrap().layer(below);
    let outer = CacheLayer::new(&settings(), &Context::default()).unwrap().layer(inner.clone());
    let key = |at: usize| Bytes::from(format!("key {at}"));
    let number = |value: Option<Value>| {
        value.map_or(0, |value| u64::from_be_bytes(value.bytes[..].try_into().unwrap()))
    };
    /// What was written, and which of it was reported by which cache.
    #[derive(Default)]
    struct StripeVersion {
        written: [AtomicU64; KEYS],
        reported: [[AtomicU64; KEYS]; 2],
    }
    let seen: Arc<StripeVersion> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));

    // The barrier: what was written when a change was sent is reported when it comes out. A number is
    // sent as a key, in front of the keys.
    let caches: [Arc<dyn Store>; 2] = [Arc::new(inner.clone()), Arc::new(outer.clone())];
    let mut tasks = Vec::new();
    for (at, cache) in caches.iter().enumerate() {
        let (seen, mut changes) = (Arc::clone(&seen), cache.changes().await.unwrap());
        tasks.push(tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                let Change::Keys(keys) = change else { continue };
                let [key, number] = &keys[..] else { panic!("a key and a number") };
                let key: usize = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
                let number = std::str::from_utf8(number).unwrap().parse().unwrap();
                seen.reported[at][key].fetch_max(number, Ordering::SeqCst);
            }
        }));
    }
    let writers: Vec<_> = (0..KEYS)
        .map(|at| {
            let (inner, seen) = (inner.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                for number in 1..=WRITES {
                    let value = number.to_be_bytes().to_vec();
                    let _ = inner.0.inner.memory.put(key(at), value).await.unwrap();
                    seen.written[at].store(number, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    let change = Change::Keys(vec![key(at), Bytes::from(number.to_string())]);
                    inner.0.inner.report(change);
                    match number % 500 {
                        100 => inner.0.inner.report(Change::Lost),
                        150 => inner.0.inner.report(Change::All),
                        _ => {}
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..8usize)
        .map(|reader| {
            let (seen, done, level) = (Arc::clone(&seen), Arc::clone(&done), reader % 2);
            let cache = Arc::clone(&caches[level]);
            tokio::spawn(async move {
                let (mut at, mut hits) = (reader, 0u64);
                while !done.load(Ordering::SeqCst) {
                    at = (at * 7 + 3) % KEYS;
                    let key = key(at);
                    let before = seen.reported[level][at].load(Ordering::SeqCst);
                    let read = if reader % 4 == 3 {
                        number(cache.get_many(std::slice::from_ref(&key)).await.unwrap().remove(0))
                    } else {
                        let reply = cache.get(&key);
                        hits += u64::from(matches!(reply, Reply::Now(_)));
                        number(reply.await.unwrap())
                    };
                    assert!(read >= before, "read {read} after {before} was reported at {level}");
                    let written = seen.written[at].load(Ordering::SeqCst);
                    assert!(read <= written + 1, "read {read} before it was written");
                    tokio::task::yield_now().await;
                }
                hits
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    inner.0.inner.report(Change::All);
    done.store(true, Ordering::SeqCst);
    let mut hits = 0;
    for reader in readers {
        hits += reader.await.unwrap();
    }
    assert!(hits > 0, "nothing was kept");
    outer.close().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
}
