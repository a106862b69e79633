//! Scans and reads of many keys: lines, ends, errors, memory.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::altered::Altered;
use super::*;
use crate::backends::Memory;
use crate::error::{ErrorKind, Operation};
use crate::ext::StoreExt;
use crate::layer::Layer;
use crate::layers::prefix::PrefixLayer;
use crate::testing::{FaultStore, Faults};
use crate::types::{Batch, Op, Value};

async fn letters() -> Memory {
    let store = Memory::new();
    for key in ["a", "b", "b1", "b2", "c"] {
        store.put(key, key.to_uppercase()).await.unwrap();
    }
    store
}

/// The keys of an answer, and its last line.
fn keys(answer: &Answer) -> (Vec<String>, Json) {
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    let mut lines = answer.lines();
    let end = lines.pop().unwrap();
    let keys = lines.iter().map(|line| line["key"].as_str().unwrap().to_owned());
    (keys.collect(), end)
}

#[tokio::test]
async fn a_range_is_answered_as_lines_with_a_last_one() {
    let client = Client::of(letters().await).await;
    let all = client.get("~kv").await;
    assert_eq!(all.header("content-type"), "application/x-ndjson");
    assert_eq!(all.header("x-content-type-options"), "nosniff");
    assert_eq!(all.header("cache-control"), "no-store");
    assert!(all.body.starts_with(b"{\"key\":\"a\",\"value\":\"A\"}\n{\"key\":\"b\""));
    assert!(all.body.ends_with(b"\n{\"end\":true,\"entries\":5}\n"));
    let head = client.send("HEAD ~kv", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));

    for (query, expected, after) in [
        ("", "a b b1 b2 c", None),
        ("prefix=b", "b b1 b2", None),
        ("prefix=", "a b b1 b2 c", None),
        ("prefix=x", "", None),
        ("from=b1", "b1 b2 c", None),
        ("to=b1", "a b", None),
        ("from=b&to=b2", "b b1", None),
        ("from=b&to=b", "", None),
        ("reverse=true", "c b2 b1 b a", None),
        ("reverse=false&limit=5", "a b b1 b2 c", None),
        ("limit=4", "a b b1 b2", Some("b2")),
        ("limit=18446744073709551615", "a b b1 b2 c", None),
        ("prefix=b&limit=2", "b b1", Some("b1")),
        ("prefix=b&limit=2&after=b1", "b2", None),
        ("prefix=b&after=b", "b1 b2", None),
        // A key in front of the range does not widen it, and one behind it leaves nothing.
        ("prefix=b&after=a", "b b1 b2", None),
        ("prefix=b&after=c", "", None),
        ("prefix=b&reverse=true&after=c", "b2 b1 b", None),
        ("prefix=b&reverse=true&after=b1", "b", None),
        ("prefix=b&reverse=true&after=a", "", None),
        ("to=b2&reverse=true&after=b2", "b1 b a", None),
        ("reverse=true&limit=1&after=b2", "b1", Some("b1")),
    ] {
        let answer = client.get(&format!("~kv?{query}")).await;
        let (keys, end) = keys(&answer);
        assert_eq!(keys.join(" "), expected, "{query}");
        let mut last = json!({"end": true, "entries": keys.len()});
        if let Some(after) = after {
            last["after"] = after.into();
        }
        assert_eq!(end, last, "{query}");
    }
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let client = Client::of(letters().await).await;
    for (query, why) in [
        ("from=c&to=a", "`from` is after `to`"),
        ("prefix=a&from=b", "`prefix` is given with `from` or `to`"),
        ("prefix=a&to=b", "`prefix` is given with `from` or `to`"),
        ("to=", "`to` is empty"),
        ("after=", "`after` is empty"),
        ("limit=0", "`limit` is 0"),
        ("limit=-1", "`limit`: invalid digit"),
        ("limit=many", "`limit`: invalid digit"),
        ("keys=1", "`keys` is neither"),
        ("prefix=%zz", "the parameter `prefix` is not percent-encoded"),
        ("perfix=a", "did you mean `prefix`?"),
        ("x", "there is no parameter `x`; allowed: `prefix`"),
    ] {
        client.get(&format!("~kv?{query}")).await.refused(400, why);
    }
    let unordered = Client::of(Altered::new(|guarantees| guarantees.ordered_scans = false)).await;
    unordered.get("~kv").await.refused(501, "no order of keys");
}

#[tokio::test]
async fn keys_are_listed_without_their_values_and_in_any_bytes() {
    let store = Memory::new();
    for key in [&b"\0"[..], b"a b", b"a+b", b"\xff\xfe"] {
        store.put(key.to_vec(), "v").await.unwrap();
    }
    let client = Client::of(store).await;
    let listed = client.get("~kv?keys=true").await;
    let expected = [
        json!({"key": "\0"}),
        json!({"key": "a b"}),
        json!({"key": "a+b"}),
        json!({"key64": "//4="}),
        json!({"end": true, "entries": 4}),
    ];
    assert_eq!(listed.lines(), expected);
    // As the libraries of all languages encode a query.
    assert_eq!(keys(&client.get("~kv?prefix=a+b").await).0, ["a b"]);
    assert_eq!(keys(&client.get("~kv?prefix=a%2Bb").await).0, ["a+b"]);
    let last = client.get("~kv?reverse=true&limit=1").await.lines().pop().unwrap();
    assert_eq!(last, json!({"end": true, "entries": 1, "after64": "//4="}));
    let rest = client.get("~kv?reverse=true&limit=1&after=%FF%FE").await;
    assert_eq!(keys(&rest).0, ["a+b"]);
}

#[tokio::test]
async fn a_store_is_read_page_after_page_by_where_the_last_one_ended() {
    let store = Memory::new();
    let mut batch = Batch::new();
    for number in 0..3000_u16 {
        batch.push(Op::Put(number.to_be_bytes().to_vec().into(), "v".into()));
    }
    store.write(batch).await.unwrap();
    let client = Client::of(store).await;
    for reverse in [false, true] {
        let (mut seen, mut after) = (0, String::new());
        loop {
            let answer =
                client.get(&format!("~kv?keys=true&limit=700&reverse={reverse}{after}")).await;
            let end = answer.lines().pop().unwrap();
            seen += end["entries"].as_u64().unwrap();
            let key = match (&end["after"], &end["after64"]) {
                (Json::String(text), _) => text.clone().into_bytes(),
                (_, Json::String(base64)) => {
                    use base64::Engine as _;
                    base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
                }
                _ => break,
            };
            after = format!("&after={}", encoded(&key));
        }
        assert_eq!(seen, 3000);
    }
}

/// 32 MiB in 32 pages.
async fn large(store: &Altered) {
    for number in 0..256_u32 {
        let value = Value::new(vec![b'x'; 128 << 10]);
        store.memory.put(number.to_be_bytes().to_vec(), value).await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_reader_holds_up_the_scan() {
    let store = Altered::new(|_| ());
    large(&store).await;
    let client = Client::of(store.clone()).await;
    let mut body = client.begin("GET ~kv", &[], "").await.into_body();
    let (mut read, mut most) = (0, 0);
    while let Some(frame) = body.frame().await {
        let chunk = frame.unwrap().into_data().unwrap();
        read += chunk.len();
        // However long the reader waits here, nothing more is read.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let ahead = (store.pages.load(Ordering::Relaxed) << 20).saturating_sub(read);
        most = most.max(ahead);
    }
    assert!(read > 32 << 20);
    assert!(store.pages.load(Ordering::Relaxed) >= 32);
    assert!(most <= 2 << 20, "{most} bytes were read ahead");
}

#[tokio::test]
async fn a_scan_that_nobody_reads_on_ends() {
    let store = Altered::new(|_| ());
    large(&store).await;
    let client = Client::of(store.clone()).await;
    let mut body = client.begin("GET ~kv", &[], "").await.into_body();
    body.frame().await.unwrap().unwrap();
    let pages = store.pages.load(Ordering::Relaxed);
    drop(body);
    tokio::task::yield_now().await;
    assert_eq!(store.pages.load(Ordering::Relaxed), pages);
    assert!(Arc::strong_count(&store.pages) <= 2, "the store of the server, and ours");
}

#[tokio::test]
async fn a_scan_that_fails_in_the_middle_ends_with_the_error() {
    let store = Memory::new();
    for number in 0..3000_u32 {
        store.put(number.to_be_bytes().to_vec(), "v").await.unwrap();
    }
    let faults = Faults::new();
    faults.on(Operation::Scan).at_page(2).fail(ErrorKind::Corruption);
    let client = Client::of(FaultStore::new(store, &faults)).await;
    let answer = client.get("~kv").await;
    assert_eq!(answer.status.as_u16(), 200, "it was sent before the failure");
    let mut lines = answer.lines();
    let end = lines.pop().unwrap();
    assert_eq!(lines.len(), 2 * 1024, "what was read before is not lost");
    let error = &end["error"];
    assert_eq!((&error["kind"], &error["status"]), (&"corruption".into(), &500.into()));
    assert_eq!(error["detail"], "injected by a fault plan");

    faults.clear();
    faults.on(Operation::Scan).fail(ErrorKind::Unavailable);
    client.get("~kv").await.refused(503, "injected by a fault plan");
}

#[tokio::test]
async fn a_key_in_a_body_that_is_over_the_limit_is_no_matter_of_the_path() {
    let below = PrefixLayer::new("p".repeat(1_000)).unwrap().layer(Memory::new());
    let client = Client::of(below).await;
    let line = format!("{{\"key\":\"{}\"}}\n", "k".repeat(65_000));
    let answer = client.post("~get", line).await;
    answer.refused(413, "64536");
    let told = answer.json();
    assert_eq!((&told["kind"], &told["limit"]), (&json!("too_large"), &json!(64_536)));
}

#[tokio::test]
async fn many_values_are_read_at_once() {
    let client = Client::of(letters().await).await;
    let body = "{\"key\":\"b\"}\n\n{\"key64\":\"eA==\"}\r\n{\"key\":\"a\"}\n{\"key64\":\"//4=\"}";
    let answer = client.post("~get", body).await;
    let expected = [
        json!({"key": "b", "value": "B"}),
        json!({"key": "x", "missing": true}),
        json!({"key": "a", "value": "A"}),
        json!({"key64": "//4=", "missing": true}),
        json!({"end": true, "found": 2, "missing": 2}),
    ];
    assert_eq!(answer.lines(), expected);
    assert_eq!(
        client.post("~get", "").await.lines(),
        [json!({"end": true, "found": 0, "missing": 0})]
    );
    let many: String = (0..300).map(|n| format!("{{\"key\":\"{n}\"}}\n")).collect();
    assert_eq!(client.post("~get", many).await.lines().len(), 301);

    for (body, line, column, why) in [
        ("{\"key\":\"a\"}\n{\"key\":1}", 2, 8, "line 2: column 8: invalid type"),
        ("[]", 1, 0, "line 1: this is a JSON array"),
        ("{\"key\":\"a\",\"value\":\"\"}", 1, 18, "unknown field `value`"),
        ("{\"key\":\"a\",\"key64\":null}", 1, 23, "invalid type: null, expected a string"),
        ("{}", 1, 0, "no key; write"),
        ("\n\n{\"key\":\"a\"", 3, 0, "line 3: column 10: the line ends within the object"),
    ] {
        let answer = client.post("~get", body).await;
        answer.refused(400, why);
        assert_eq!(answer.json()["line"], line);
        if column > 0 {
            assert_eq!(answer.json()["column"], column);
        }
    }
    client.post("~get", "{\"key\":\"\"}").await.refused(400, "a key must have at least 1 byte");
    client
        .send("POST ~get", &[], "{\"key\":\"a\"}")
        .await
        .refused(415, "set `Content-Type: application/x-ndjson`");
    client.post("~get", vec![b' '; (64 << 10) + 1]).await.refused(413, "limit of 65536 bytes");
}
