//! Stores that share a backend which reports what others write.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tierstack::config::{Config, Format, Registry};
use tierstack::{Change, Changes, OpenOptions, Read, Stacks, Store};
use tokio::time::timeout;

/// Nothing here may take longer: then it hangs.
async fn ends<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(120), work).await.expect("it hangs")
}

/// The keys that are reported until that one is.
async fn until(changes: &mut Changes, last: &str) -> Vec<Bytes> {
    let mut heard = Vec::new();
    loop {
        match ends(changes.next()).await.expect("the change feed ends when the store is closed") {
            Change::Keys(keys) => heard.extend(keys),
            // As the change feed begins.
            Change::All if heard.is_empty() => {}
            other => panic!("{other:?}"),
        }
        if heard.iter().any(|key| key == last) {
            return heard;
        }
    }
}

/// Two stores with prefixes over a shared backend, each behind a cache: what another program puts is received by the
/// store whose it is, under that store's name of the key, and by no other.
pub(crate) async fn each_hears_of_its_own(backend: &str, put: impl AsyncFn(&str, &str)) {
    let text = format!(
        "
backends: {{ main: {{ {backend} }} }}
stores:
  left: {{ layers: [ cache ], backend: {{ shared: main, prefix: l/ }} }}
  right: {{ layers: [ cache ], backend: {{ shared: main, prefix: r/ }} }}
default: left
"
    );
    let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
    let options = OpenOptions::default();
    let stacks = Stacks::open_all(&config, &Registry::standard(), &options).await.unwrap();
    let (left, right) = (&stacks["left"], &stacks["right"]);
    let mut of_left = ends(left.changes()).await.unwrap();
    let mut of_right = ends(right.changes()).await.unwrap();
    for round in 0..20 {
        let name = |what: &str| format!("{what}-{round}");
        let (old, new, first, last) = (name("old"), name("new"), name("first"), name("last"));
        for prefix in ["l/", "r/"] {
            put(&format!("{prefix}k"), &old).await;
            put(&format!("{prefix}{first}"), "v").await;
        }
        for (store, changes) in [(left, &mut of_left), (right, &mut of_right)] {
            until(changes, &first).await;
            assert_eq!(ends(store.get(b"k")).await.unwrap(), Some(old.clone().into()));
        }
        put("l/k", &new).await;
        put(&format!("l/{last}"), "v").await;
        put(&format!("r/{last}"), "v").await;
        let heard = ends(until(&mut of_left, &last)).await;
        assert!(heard.iter().any(|key| key == "k"), "{heard:?}");
        assert!(heard.iter().all(|key| key == "k" || *key == last), "{heard:?}");
        assert_eq!(ends(left.get(b"k")).await.unwrap(), Some(new.into()));
        let heard = ends(until(&mut of_right, &last)).await;
        assert!(heard.iter().all(|key| *key == last), "{heard:?}");
        assert_eq!(ends(right.get(b"k")).await.unwrap(), Some(old.into()));
    }
    // One that is closed is told nothing more, and the other still does.
    ends(left.close()).await.unwrap();
    assert!(ends(of_left.next()).await.is_none());
    put("r/k", "at last").await;
    until(&mut of_right, "k").await;
    assert_eq!(ends(right.get(b"k")).await.unwrap(), Some("at last".into()));
    ends(stacks.close_all()).await.unwrap();
}
