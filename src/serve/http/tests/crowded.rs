//! Answers that nobody reads hold no more memory than there is for them.

use axum::response::Response;
use http_body_util::BodyExt;

use super::*;
use crate::backends::Memory;
use crate::ext::StoreExt;

const CROWDED: &str = "fill the memory for answers";

/// With 4 MiB for answers, and these entries.
async fn client(entries: impl IntoIterator<Item = (&'static str, usize)>) -> Client {
    let memory = Memory::new();
    for (key, bytes) in entries {
        let _ = memory.put(key, vec![b'x'; bytes]).await.unwrap();
    }
    Client::of(memory).await
}

async fn begin(client: &Client, path: &str) -> Response {
    let response = client.begin(&format!("GET ~{path}"), &[], "").await;
    assert_eq!(response.status(), 200, "{path}");
    response
}

#[tokio::test]
async fn values_that_are_not_read_leave_no_room_for_more() {
    let client = client([("large", 1600 << 10), ("small", 1 << 10)]).await;
    let one = begin(&client, "kv/large").await;
    let other = begin(&client, "kv/large").await;
    let refused = client.get("~kv/large").await;
    refused.refused(503, CROWDED);
    assert_eq!(refused.header("retry-after"), "1");
    // A part holds the whole value.
    client.send("GET ~kv/large", &[("range", "bytes=0-1")], "").await.refused(503, CROWDED);
    // There is room for what is smaller, and for what has no body.
    assert_eq!(client.get("~kv/small").await.body.len(), 1 << 10);
    // What the body has handed on counts until it is sent.
    let mut body = one.into_body();
    let sent = body.frame().await.unwrap().unwrap().into_data().unwrap();
    drop(body);
    client.get("~kv/large").await.refused(503, CROWDED);
    drop(sent);
    assert_eq!(client.get("~kv/large").await.body.len(), 1600 << 10);
    drop(other);
}

#[tokio::test]
async fn scans_and_reads_of_many_keys_that_are_not_read_leave_no_room_for_more() {
    let client = client([("a", 1500 << 10), ("b", 800 << 10)]).await;
    let one = begin(&client, "kv").await;
    client.get("~kv").await.refused(503, CROWDED);
    client.post("~get", "{\"key\":\"a\"}\n").await.refused(503, CROWDED);
    assert_eq!(client.get("~kv?keys=true").await.lines().len(), 3);
    drop(one);
    assert_eq!(client.get("~kv").await.lines().len(), 3);
    assert_eq!(client.post("~get", "{\"key\":\"a\"}\n").await.lines().len(), 2);
}

#[tokio::test]
async fn one_alone_is_answered_however_large_it_is() {
    let client = client([("a", 5 << 20), ("b", 5 << 20)]).await;
    assert_eq!(client.get("~kv/a").await.body.len(), 5 << 20);
    assert_eq!(client.get("~kv").await.lines().len(), 3);
}

#[tokio::test]
async fn a_scan_that_finds_no_room_on_its_way_says_so() {
    let client = client([("a", 1 << 20), ("b", 5 << 19), ("v", 1 << 20)]).await;
    let value = begin(&client, "kv/v").await;
    let scan = client.get("~kv?from=a&to=c").await.lines();
    // The first page had room in addition to the value, and the second has not.
    assert_eq!(scan.len(), 2);
    assert_eq!((&scan[0]["key"], &scan[1]["error"]["status"]), (&"a".into(), &503.into()));
    assert_eq!(scan[1]["error"]["retry"], "later");
    drop(value);
    assert_eq!(client.get("~kv?from=b&to=c").await.lines().len(), 2);
}
