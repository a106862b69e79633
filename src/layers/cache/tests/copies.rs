//! The copies of threads.

use super::*;

/// Threads read while another writes: each read finds at least what was acknowledged before it, and no
/// thread goes back.
#[test]
fn copies_are_never_older_than_an_acknowledged_write() {
    const KEYS: usize = 4;
    const WRITES: u64 = 3000;
    let layer = CacheLayer::new(&settings(), &Context::default()).unwrap();
    let cache = layer.layer(Memory::new());
    let acknowledged: [AtomicU64; KEYS] = Default::default();
    let done = AtomicBool::new(false);
    let (hits, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = [0; KEYS];
                let mut at = 0;
                while !done.load(Ordering::SeqCst) {
                    at = (at + 1) % KEYS;
                    let least = acknowledged[at].load(Ordering::SeqCst).max(last[at]);
                    let Reply::Now(found) = cache.get(&[at as u8]) else { panic!() };
                    let Some(value) = found.unwrap() else { continue };
                    let version = u64::from_be_bytes(value.bytes[..].try_into().unwrap());
                    // It goes on, as the writer waits for hits.
                    wrong.fetch_add(u64::from(version < least), Ordering::Relaxed);
                    last[at] = version;
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for version in 1..=WRITES {
            let at = (version % KEYS as u64) as usize;
            let batch = Batch::new().put(vec![at as u8], version.to_be_bytes().to_vec());
            let _ = tokio_test::block_on(cache.write(batch)).unwrap();
            acknowledged[at].store(version, Ordering::SeqCst);
            // Long enough for copies to be made.
            let before = hits.load(Ordering::Relaxed);
            while version % 16 == 0 && hits.load(Ordering::Relaxed) < before + 200 {
                std::hint::spin_loop();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(wrong.into_inner(), 0, "reads of what was there before a write");
}
