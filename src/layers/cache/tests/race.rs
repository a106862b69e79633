//! Readers and writers on real threads.

use super::*;

/// Readers and writers of a few keys on real threads: each write carries a higher number than the
/// one before, and no reader may see less than what was acknowledged before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_less_than_what_was_acknowledged() {
    race(settings(), false).await;
}

/// Whatever is served late, loaded ahead, or kept after a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_does_one_who_is_served_old_values() {
    let span = |millis| Some(Span(Duration::from_millis(millis)));
    let config = CacheConfig {
        ttl: span(6),
        negative_ttl: span(6),
        error_ttl: span(4),
        idle: span(40),
        jitter: Fraction::percent(20),
        refresh_ahead: Some(Fraction::percent(50)),
        stale_while_refresh: span(20),
        stale_if_error: span(1000),
        retry_after_error: Span(Duration::from_millis(4)),
        soft_timeout: span(1),
        ..settings()
    };
    race(config, true).await;
}

async fn race(config: CacheConfig, fails: bool) {
    const KEYS: usize = 4;
    const WRITES: u64 = 3000;

    /// Answers at once or later, so that both paths race.
    #[derive(Debug)]
    struct Mixed(Gated, AtomicU64, bool);

    impl Read for Mixed {
        fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
            let number = self.1.fetch_add(1, Ordering::Relaxed);
            if self.2 && number.is_multiple_of(5) {
                Reply::later(async move {
                    tokio::task::yield_now().await;
                    Err(Error::new(ErrorKind::Unavailable, "out of order"))
                })
            } else if number.is_multiple_of(3) {
                self.0.memory.get(key)
            } else {
                Reply::later(async move {
                    let value = self.0.memory.get(key).await;
                    tokio::task::yield_now().await;
                    value
                })
            }
        }

        fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
            if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                return self.0.memory.get_many(keys);
            }
            Reply::later(async move {
                let values = self.0.memory.get_many(keys).await;
                tokio::task::yield_now().await;
                values
            })
        }

        fn scan(&self, scan: Scan) -> Pages<'_> {
            self.0.scan(scan)
        }
    }

    #[async_trait]
    impl Store for Mixed {
        async fn write(&self, batch: Batch) -> Result<Commit> {
            tokio::task::yield_now().await;
            let commit = self.0.write(batch).await;
            tokio::task::yield_now().await;
            commit
        }

        async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
            crate::write_in_order(self, group).await
        }

        async fn flush(&self) -> Result<()> {
            Ok(())
        }

        async fn compact(&self) -> Result<()> {
            Ok(())
        }

        async fn close(&self) -> Result<()> {
            Ok(())
        }

        forward!(self => self.0; ingest, changes, invalidate, inspect, snapshot, usage, count, profile, identity);
    }

    let layer = CacheLayer::new(&config, &Context::default()).unwrap();
    let cache = layer.layer(Mixed(Gated::new(SystemClock::shared()), AtomicU64::new(0), fails));
    let acknowledged: Arc<[AtomicU64; KEYS]> = Arc::default();
    let key = |at: usize| Bytes::from(format!("key {at}"));
    let number = |value: Option<Value>| {
        value.map_or(0, |v| u64::from_be_bytes(v.bytes[..].try_into().unwrap()))
    };

    let writers = (0..KEYS).map(|at| {
        let (cache, acknowledged) = (cache.clone(), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for number in 1..=WRITES {
                let _ = cache.put(key(at), number.to_be_bytes().to_vec()).await.unwrap();
                acknowledged[at].store(number, Ordering::SeqCst);
            }
        })
    });
    let readers = (0..8usize).map(|reader| {
        let (cache, acknowledged) = (cache.clone(), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            let mut at = reader;
            let mut seen = [0; KEYS];
            while acknowledged.iter().any(|a| a.load(Ordering::SeqCst) < WRITES) {
                at = (at * 7 + 3) % KEYS;
                let before = acknowledged[at].load(Ordering::SeqCst);
                let key = key(at);
                let read = if reader % 4 == 0 {
                    let both = [key.clone(), Bytes::from("key 0")];
                    cache.get_many(&both).await.map(|mut values| values.remove(0))
                } else {
                    cache.get(&key).await
                };
                let read = match read {
                    Ok(value) => number(value),
                    Err(error) if fails && error.kind() == ErrorKind::Unavailable => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(error) => panic!("{error:?}"),
                };
                assert!(read >= before, "read {read} after {before} was acknowledged");
                assert!(read >= seen[at], "read {read} after {} was read", seen[at]);
                seen[at] = read;
                tokio::task::yield_now().await;
            }
        })
    });
    for task in join_all(writers.chain(readers).collect::<Vec<_>>()).await {
        task.unwrap();
    }
}
