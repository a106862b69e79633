//! The bound on memory, of the whole layer.

use super::*;

/// A read may find no room for another load.
fn tolerated<T>(outcome: Result<T>) {
    let kind = outcome.err().map(|error| error.kind());
    assert!(kind.is_none_or(|kind| kind == ErrorKind::Capacity), "{kind:?}");
}

/// Readers and writers of keys with values of every size, alone and in bulk, with more loads under way than entries
/// that fit, and one that looks at what is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entries_and_loads_stay_within_the_capacity_at_all_times() {
    const CAPACITY: u64 = 1 << 20;
    const KEYS: u64 = 3000;

    let (cache, _) = cached(CacheConfig { capacity: ByteSize(CAPACITY), ..settings() });
    let key = |at: u64| Bytes::from(format!("{:06}", at % KEYS));
    // Up to a seventh of the capacity: the largest pass by.
    let size = |at: u64| match at % 50 {
        0 => CAPACITY as usize / 7,
        1..6 => 20_000,
        size => size as usize * 20,
    };
    for at in 0..KEYS {
        let _ = cache.0.inner.memory.put(key(at), vec![0; size(at)]).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let observer = std::thread::spawn({
        let (cache, done) = (cache.clone(), Arc::clone(&done));
        move || {
            let (mut looks, mut most) = (0u64, 0);
            while !done.load(Ordering::Relaxed) {
                most = most.max(cache.0.engine.held());
                looks += 1;
                std::thread::yield_now();
            }
            (looks, most)
        }
    });
    let clients = (0..200u64).map(|client| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let mut at = client * 15;
            for turn in 0..100 {
                at = (at * 31 + 7) % KEYS;
                match turn % 10 {
                    0 => drop(cache.put(key(at), vec![1; size(at)]).await.unwrap()),
                    1 => {
                        let keys: Vec<Bytes> = (0..10).map(|next| key(at + next)).collect();
                        tolerated(cache.get_many(&keys).await);
                    }
                    2 => cache.delete(key(at)).await.map(drop).unwrap(),
                    _ => tolerated(cache.get(&key(at)).await),
                }
            }
        })
    });
    for client in join_all(clients.collect::<Vec<_>>()).await {
        client.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let (looks, most) = observer.join().unwrap();
    assert!(looks > 10 && most > CAPACITY / 2, "it fills up: {most} in {looks} looks");
    assert!(most <= CAPACITY + CAPACITY / 100, "{most} of {CAPACITY}");
    cache.0.engine.finish();
    assert_eq!(cache.0.engine.held(), cache.0.engine.bytes(), "no load is under way");
    assert!(cache.0.engine.bytes() <= CAPACITY);
}
