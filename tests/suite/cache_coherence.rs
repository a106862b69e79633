//! What changes data in addition to a write, and a cache of the same process: runs that are loaded, and values that a layer
//! below rewrites.

#![cfg(all(feature = "cache", feature = "compress", feature = "testing"))]

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tierstack::backends::Memory;
use tierstack::layers::cache::{CacheConfig, Policy};
use tierstack::layers::compress::CompressConfig;
use tierstack::testing::{FaultStore, Faults};
use tierstack::units::Span;
use tierstack::{
    Context, Entry, LayerConfig, Operation, Page, Reply, Scan, Store, StoreExt, Value,
};

const POLICIES: [Policy; 2] = [Policy::S3Fifo, Policy::TinyLfu];

async fn cache_over(below: Arc<dyn Store>, policy: Policy) -> Arc<dyn Store> {
    let negative_ttl = Some(Span(Duration::from_secs(60)));
    let config = CacheConfig { policy, negative_ttl, ..CacheConfig::default() };
    config.open(&Context::default()).await.unwrap().wrap(below).await.unwrap()
}

fn is_kept(store: &Arc<dyn Store>, key: &[u8], faults: &Faults) -> bool {
    let before = faults.calls(Operation::Get);
    let now = matches!(store.get(key), Reply::Now(Ok(_)));
    now && faults.calls(Operation::Get) == before
}

/// As `import`, `copy` and a restore do: into a store whose keys were asked for, and were not there.
#[tokio::test]
async fn a_run_that_is_loaded_ends_what_is_remembered_to_be_missing() {
    for policy in POLICIES {
        let faults = Faults::new();
        let store = cache_over(Arc::new(FaultStore::new(Memory::new(), &faults)), policy).await;
        let _ = store.put("a", "old").await.unwrap();
        for key in [b"a", b"b"] {
            store.get(key).await.unwrap();
            assert!(is_kept(&store, key, &faults));
        }
        let entries = ["a", "b"].map(|key| Entry { key: key.into(), value: "new".into() });
        let run = stream::iter([Ok(Page { entries: entries.to_vec() })]).boxed();
        assert_eq!(store.load(run).await.unwrap(), 2);
        assert_eq!(faults.calls(Operation::Ingest), 1);
        for key in [b"a", b"b"] {
            assert_eq!(store.get(key).await.unwrap(), Some("new".into()));
        }
    }
}

/// A cache outside the layer holds what is the same before and after, one inside sees the layer's writes.
#[tokio::test]
async fn a_rewrite_leaves_no_cache_with_what_it_replaced() {
    for policy in POLICIES {
        let faults = Faults::new();
        let below: Arc<dyn Store> = Arc::new(FaultStore::new(Memory::new(), &faults));
        let plain = Value::new(vec![b'a'; 1000]);
        let _ = below.put("k", plain.clone()).await.unwrap();
        let inner = cache_over(Arc::clone(&below), policy).await;
        let config = CompressConfig { accept_plain: true, ..CompressConfig::default() };
        let compress = config.open(&Context::default()).await.unwrap();
        let outer = cache_over(compress.wrap(Arc::clone(&inner)).await.unwrap(), policy).await;
        assert_eq!(outer.get(b"k").await.unwrap(), Some(plain.clone()));
        assert!(is_kept(&outer, b"k", &faults) && is_kept(&inner, b"k", &faults));

        let rewriter = compress.rewriter(Arc::clone(&inner)).unwrap();
        let report = rewriter.rewrite(Scan::all(), &mut |_| ()).await.unwrap();
        assert_eq!(report.rewritten, 1);
        let stored = below.get(b"k").await.unwrap().unwrap();
        assert_ne!(stored, plain);
        assert_eq!(inner.get(b"k").await.unwrap(), Some(stored));
        assert_eq!(outer.get(b"k").await.unwrap(), Some(plain));
    }
}
