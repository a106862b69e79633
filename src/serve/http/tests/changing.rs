//! Changes as server-sent events.

use std::time::Duration;

use super::altered::Altered;
use super::*;
use crate::serve::shared::Phase;
use crate::store::Change;

/// The events of a stream that has begun, one after the other.
struct Events(Body);

impl Events {
    async fn of(client: &Client, query: &str) -> Self {
        let answer = client.begin(&format!("GET ~changes{query}"), &[], "").await;
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let mut events = Self(answer.into_body());
        assert_eq!(events.next().await.unwrap(), ": subscribed\n\n");
        events
    }

    async fn next(&mut self) -> Option<String> {
        let data = self.0.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(data.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn changes_are_told_as_events() {
    let (store, changed) = Altered::announcing();
    let client = Client::of(store).await;
    let mut events = Events::of(&client, "?prefix=user:").await;
    let keys = |keys: &[&'static [u8]]| {
        Change::Keys(keys.iter().map(|key| Bytes::from_static(key)).collect())
    };
    for change in [
        keys(&[b"order:1"]),
        keys(&[b"user:1", b"order:2", b"user:\xff"]),
        Change::Prefix("order".into()),
        Change::Prefix("user:2/".into()),
        Change::Prefix("us".into()),
        Change::Lost,
        Change::All,
    ] {
        changed.send(change).unwrap();
    }
    for expected in [
        "event: keys\ndata: {\"keys\":[{\"key\":\"user:1\"},{\"key64\":\"dXNlcjr/\"}]}\n\n",
        "event: prefix\ndata: {\"prefix\":\"user:2/\"}\n\n",
        "event: prefix\ndata: {\"prefix\":\"us\"}\n\n",
        "event: lost\ndata: {}\n\n",
        "event: all\ndata: {}\n\n",
    ] {
        assert_eq!(events.next().await.unwrap(), expected);
    }
    drop(changed);
    assert_eq!(events.next().await.unwrap(), "event: end\ndata: {}\n\n", "the store was closed");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_silent_stream_is_alive_and_ends_when_the_server_drains() {
    let (store, changed) = Altered::announcing();
    let client = Client::of(store).await;
    let mut events = Events::of(&client, "?prefix=a").await;
    let second = Duration::from_secs(1);
    for _ in 0..2 {
        let mut next = tokio_test::task::spawn(events.next());
        for _ in 0..14 {
            tokio_test::assert_pending!(next.poll());
            client.clock.advance(second);
            // What is not of its prefix is no sign of life.
            changed.send(Change::Keys(vec!["b".into()])).unwrap();
        }
        tokio_test::assert_pending!(next.poll());
        client.clock.advance(second);
        assert_eq!(next.await.unwrap(), ": alive\n\n");
    }
    client.shared.advance(Phase::Draining);
    assert_eq!(events.next().await.unwrap(), "event: end\ndata: {}\n\n");
    assert_eq!(events.next().await, None);
    drop(changed);
}

#[tokio::test]
async fn a_store_that_announces_nothing_says_so() {
    let client = Client::of(Altered::new(|_| ())).await;
    client.get("~changes").await.refused(501, "there is no change feed");
    client
        .get("~changes?key=a")
        .await
        .refused(400, "there is no parameter `key`; allowed: `prefix`");
}
