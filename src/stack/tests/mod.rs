//! What every stack does, whatever its layers.

mod late;
mod notes;
mod opening;
mod probe;
mod sharing;
mod together;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use super::*;
use crate::config::Format;
use crate::types::Batch;

/// With the key of a restore's mark, a store could not be opened any more.
#[tokio::test]
async fn every_stack_refuses_reserved_keys() {
    for layers in ["", "read_only", "cache, { compress: {} }", "{ prefix: { prefix: p } }"] {
        let text = format!("stores: {{ main: {{ layers: [ {layers} ], backend: memory }} }}");
        let config = Config::parse(&text, Format::Yaml, "test.yaml").unwrap();
        let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
        let stack = checked.open(&OpenOptions::default()).await.unwrap();
        let mark: &[u8] = b"\0tierstack/restore";
        for error in [
            stack.write(Batch::new().put(mark, "v")).await.unwrap_err(),
            stack.write(Batch::new().delete(mark)).await.unwrap_err(),
            stack.get(mark).await.unwrap_err(),
            stack.inspect(mark).await.unwrap_err(),
        ] {
            let kinds = [crate::ErrorKind::InvalidInput, crate::ErrorKind::Access];
            assert!(kinds.contains(&error.kind()), "{layers}: {error}");
        }
        stack.close().await.unwrap();
    }
}

/// A boundary has one series, also where the config asks for it.
#[test]
fn a_layer_of_metrics_counts_each_operation_once() {
    let recorder = DebuggingRecorder::new();
    let text = "stores: { main: { layers: [ metrics ], backend: memory } }";
    let config = Config::parse(text, Format::Yaml, "test.yaml").unwrap();
    metrics::with_local_recorder(&recorder, || {
        tokio_test::block_on(async {
            let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
            let stack = checked.open(&OpenOptions::default()).await.unwrap();
            stack.get(b"").await.unwrap_err();
        });
    });
    let errors = |value| match value {
        DebugValue::Counter(count) => count,
        _ => 0,
    };
    crate::telemetry::gather();
    let series = recorder.snapshotter().snapshot().into_vec();
    let counted = series.into_iter().filter(|(key, ..)| {
        let has = |name, value| key.key().labels().any(|l| l.key() == name && l.value() == value);
        key.key().name() == "tierstack_ops_total"
            && has("layer", "metrics")
            && has("op", "get")
            && has("outcome", "error")
    });
    assert_eq!(counted.map(|(.., value)| errors(value)).sum::<u64>(), 1);
}

#[cfg(feature = "object")]
#[test]
fn a_store_that_cannot_have_reserved_keys_opens() {
    use crate::ext::StoreExt as _;

    let text = "stores: { main: { backend: { object: { url: 'memory://', names: plain } } } }";
    let config = Config::parse(text, Format::Yaml, "test.yaml").unwrap();
    let checked = Stack::check(&config, None, &Registry::standard()).unwrap();
    tokio_test::block_on(async {
        let store = checked.open(&OpenOptions::default()).await.unwrap();
        store.put("a", "1").await.unwrap().durable().await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap(), Some("1".into()));
    });
}

/// Logs of one process are looked up in another.
#[test]
fn a_key_has_the_same_fingerprint_in_every_opening_of_a_store() {
    let text = "stores: { main: { backend: memory }, other: { backend: memory } }\ndefault: main";
    let config = Config::parse(text, Format::Yaml, "test.yaml").unwrap();
    let open = |name| {
        let checked = Stack::check(&config, Some(name), &Registry::standard()).unwrap();
        tokio_test::block_on(checked.open(&OpenOptions::default())).unwrap()
    };
    let (one, again, other) = (open("main"), open("main"), open("other"));
    let error = tokio_test::block_on(async { one.get(b"").await.unwrap_err() });
    assert_eq!(error.key(), Some(&b""[..]));
    assert_eq!(error.key_fingerprint(), Some(again.fingerprint(b"")));
    assert_eq!(one.fingerprint(b"k"), again.fingerprint(b"k"));
    assert_ne!(one.fingerprint(b"k"), other.fingerprint(b"k"));
}

#[test]
fn the_path_of_an_error_ends_with_the_setting_that_it_is_about() {
    for (layer, said) in [
        ("retry: { attempts: 0 }", "stores.main.layers[0].retry.attempts: attempts is 0"),
        ("retry: { max_delay: 1ms }", "stores.main.layers[0].retry.max_delay: max_delay is 1ms"),
        // What is left out is nowhere in the file.
        ("retry: { min_delay: 1h }", "stores.main.layers[0].retry: max_delay is"),
        #[cfg(feature = "cache")]
        (
            "cache: { disk: { path: '', capacity: 1GiB } }",
            "stores.main.layers[0].cache.disk.path: disk.path is empty",
        ),
    ] {
        let text = format!("stores: {{ main: {{ layers: [ {layer} ], backend: memory }} }}");
        let config = Config::parse(&text, Format::Yaml, "tierstack.yaml").unwrap();
        let error = Stack::check(&config, None, &Registry::standard()).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
}
