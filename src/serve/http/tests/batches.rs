//! Atomic batches.

use super::altered::Altered;
use super::*;
use crate::backends::Memory;
use crate::error::{ErrorKind, Operation};
use crate::ext::StoreExt;
use crate::store::Read;
use crate::testing::{FaultStore, Faults};

#[tokio::test]
async fn a_batch_takes_effect_as_a_whole_or_not_at_all() {
    let clock = ManualClock::new();
    let store = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
    let client = Client::with(Arc::clone(&store), clock.clone(), Right::Write).await;
    store.put("gone", "x").await.unwrap();
    let body = r#"{"key":"a","value":"1"}
{"op":"put","key64":"//4=","value64":"/w==","ttl":"10m"}
{"op":"put","key":"c","value":"3","expires_at":"2030-01-01T00:00:00Z"}

{"op":"delete","key":"gone"}
{"op":"absent","key":"new"}
{"op":"equals","key":"gone","value":"x"}
"#;
    let done = client.post("~batch", body).await;
    assert_eq!((done.status.as_u16(), done.body.len()), (204, 0), "{done:?}");
    assert_eq!(client.get("~kv/a").await.body, "1");
    assert_eq!(
        client.get("~kv/%FF%FE").await.header("tierstack-expires-at"),
        "2024-01-01T00:10:00Z"
    );
    assert_eq!(client.get("~kv/c").await.header("tierstack-expires-at"), "2030-01-01T00:00:00Z");
    assert_eq!(store.get(b"gone").await.unwrap(), None);

    let refused = client.post("~batch", body).await;
    refused.refused(409, "does not hold the value that was required, so nothing was written");
    assert_eq!(refused.json()["outcome"], "nothing");
    let exists = "{\"key\":\"d\",\"value\":\"4\"}\n{\"op\":\"absent\",\"key\":\"a\"}";
    client.post("~batch", exists).await.refused(409, "exists, so nothing was written");
    let other = r#"{"key":"d","value":"4"}
{"op":"equals","key":"c","value":"3"}"#;
    client.post("~batch", other).await.refused(409, "nothing was written");
    assert_eq!(store.get(b"d").await.unwrap(), None);
    assert_eq!(client.post("~batch", "").await.status.as_u16(), 204, "it changes nothing");
    // What is exported is written.
    let lines = client.get("~kv").await.body;
    let lines = lines.strip_suffix(b"{\"end\":true,\"entries\":3}\n").unwrap().to_vec();
    let copy = Client::of(Memory::with_clock(Arc::new(clock))).await;
    assert_eq!(copy.post("~batch", lines).await.status.as_u16(), 204);
    assert_eq!(copy.get("~kv").await.body, client.get("~kv").await.body);
}

#[tokio::test]
async fn a_line_that_is_wrong_is_named_and_nothing_is_written() {
    let store = Arc::new(Memory::new());
    let client = Client::of(Arc::clone(&store)).await;
    let good = "{\"key\":\"a\",\"value\":\"1\"}\n";
    for (line, column, why) in [
        ("nonsense", None, "line 2: this is not a JSON object"),
        (
            "{\"key\":\"a\" \"value\":\"\"}",
            Some(12),
            "line 2: column 12: not JSON: expected `,` or `}`",
        ),
        ("{\"key\":\"a\",\"val\":\"\"}", Some(16), "unknown field `val`"),
        (
            "{\"key\":\"a\",\"value\":\"\",\"expires_at\":null}",
            Some(39),
            "invalid type: null, expected a string",
        ),
        (
            "{\"op\":\"add\",\"key\":\"a\"}",
            Some(11),
            "unknown variant `add`, expected one of `put`, `delete`",
        ),
        ("{\"key\":\"a\"}", None, "no value; write"),
        ("{\"value\":\"a\"}", None, "no key; write"),
        ("{\"op\":\"delete\",\"key\":\"a\",\"value\":\"1\"}", None, "takes a key and nothing else"),
        ("{\"op\":\"absent\",\"key\":\"a\",\"ttl\":\"1m\"}", None, "takes a key and nothing else"),
        (
            "{\"op\":\"equals\",\"key\":\"a\",\"value\":\"\",\"ttl\":\"1m\"}",
            None,
            "has an expires_at, and no ttl",
        ),
        ("{\"key\":\"a\",\"value\":\"\",\"ttl\":\"10\"}", None, "ttl: '10' is not a duration"),
        (
            "{\"key\":\"a\",\"value\":\"\",\"expires_at\":\"soon\"}",
            None,
            "expires_at: 'soon' is not a time",
        ),
        ("{\"key\":\"\",\"value\":\"\"}", None, "line 2: a key must have at least 1 byte"),
        ("{\"key64\":\"!\",\"value\":\"\"}", None, "key64 is not base64"),
        ("\u{7f}", None, "line 2: this is not a JSON object"),
    ] {
        let answer = client.post("~batch", format!("{good}{line}\n{good}")).await;
        answer.refused(400, why);
        assert_eq!(answer.json()["line"], 2);
        assert_eq!(answer.json()["column"].as_u64(), column, "{line}");
    }
    let bytes = [good.as_bytes(), b"{\"key\":\"\xff\"}"].concat();
    client.post("~batch", bytes).await.refused(400, "line 2: column 9: the bytes are not UTF-8");
    assert_eq!(store.get(b"a").await.unwrap(), None);
    for headers in
        [&[][..], &[("content-type", "application/json")], &[("content-type", "text/plain")]]
    {
        let answer = client.send("POST ~batch", headers, good).await;
        answer.refused(415, "set `Content-Type: application/x-ndjson`");
        assert_eq!(answer.header("accept-post"), "application/x-ndjson");
    }
    let typed = [("content-type", "Application/X-NDJSON; charset=utf-8")];
    assert_eq!(client.send("POST ~batch", &typed, good).await.status.as_u16(), 204);
    client.post("~batch", vec![b'\n'; (64 << 10) + 1]).await.refused(413, "limit of 65536 bytes");
}

#[tokio::test]
async fn what_the_store_does_not_take_is_refused() {
    let put = |key: &str, value: &str| format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}\n");
    let small = Altered::new(|guarantees| {
        (guarantees.limits.key_bytes, guarantees.limits.value_bytes) = (4, Some(6));
    });
    let client = Client::of(small).await;
    let long = client.post("~batch", put("a", "1") + &put("12345", "")).await;
    long.refused(413, "line 2: a key of 5 bytes is over this store's limit of 4");
    assert_eq!((&long.json()["line"], &long.json()["limit"]), (&2.into(), &4.into()));
    let large = client.post("~batch", put("a", "1234567")).await;
    large.refused(413, "line 1: a value of 7 bytes is over this store's limit of 6");
    assert_eq!(large.json()["limit"], 6);

    let single = Client::of(Altered::new(|guarantees| guarantees.atomic_batches = false)).await;
    single.post("~batch", put("a", "1") + &put("b", "2")).await.refused(501, "no atomic batches");
    assert_eq!(single.post("~batch", put("a", "1")).await.status.as_u16(), 204);

    let faults = Faults::new();
    let client = Client::of(FaultStore::new(Memory::new(), &faults)).await;
    faults.on(Operation::Write).fail(ErrorKind::Timeout);
    let lost = client.post("~batch", put("a", "1")).await;
    lost.refused(504, "injected");
    assert_eq!((&lost.json()["outcome"], lost.header("retry-after")), (&"unknown".into(), "1"));
}
