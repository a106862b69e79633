//! Single values: bytes, keys, deadlines, parts, limits.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream;
use proptest::prelude::*;

use super::altered::Altered;
use super::*;
use crate::backends::Memory;
use crate::error::{Error, ErrorKind, Operation, Outcome, Retry};
use crate::layer::Layer;
use crate::layers::read_only::ReadOnlyLayer;
use crate::store::Read;
use crate::testing::{FaultStore, Faults};
use crate::types::Guarantees;

#[tokio::test]
async fn a_value_goes_in_and_comes_out_as_it_is() {
    let client = Client::of(Memory::new()).await;
    let put = client.send("PUT ~kv/k", &[], Body::from(&b"<html>\0\xff"[..])).await;
    assert_eq!((put.status.as_u16(), &put.body[..]), (204, &b""[..]));
    let got = client.get("~kv/k").await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (200, &b"<html>\0\xff"[..]));
    assert_eq!(put.header("etag"), got.header("etag"));
    // Whatever a browser takes it for, it is no page of this server.
    assert_eq!(got.header("content-type"), "application/octet-stream");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert_eq!(got.header("content-security-policy"), "sandbox; default-src 'none'");
    assert_eq!(got.header("cache-control"), "no-cache");

    let head = client.send("HEAD ~kv/k", &[], "").await;
    assert_eq!((head.status.as_u16(), &head.body[..]), (200, &b""[..]));
    assert_eq!(head.header("content-length"), "8");
    for (name, value) in &got.headers {
        assert_eq!(head.headers.get(name), Some(value), "{name}");
    }

    assert_eq!(client.send("DELETE ~kv/k", &[], "").await.status.as_u16(), 204);
    assert_eq!(client.send("DELETE ~kv/k", &[], "").await.status.as_u16(), 204);
    client.get("~kv/k").await.refused(404, "the key does not exist");
    assert_eq!(client.get("~kv/k").await.json()["kind"], "no_such_key");
    assert_eq!(client.send("HEAD ~kv/k", &[], "").await.status.as_u16(), 404);
    let empty = client.put("~kv/empty", "").await;
    assert_eq!(empty.status.as_u16(), 204);
    assert_eq!(client.get("~kv/empty").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_key_is_what_its_encoding_stands_for() {
    let store = Arc::new(Memory::new());
    let client = Client::of(Arc::clone(&store)).await;
    for (path, key) in [
        ("a/b", &b"a/b"[..]),
        ("a%2Fc", b"a/c"),
        ("a%2fd", b"a/d"),
        ("%00", b"\0"),
        ("%FF%fe", b"\xff\xfe"),
        (".", b"."),
        ("..", b".."),
        ("a/../b/./c", b"a/../b/./c"),
        ("%2E%2E/x", b"../x"),
        ("/", b"/"),
        ("/a//b/", b"/a//b/"),
        ("a+b", b"a+b"),
        ("a%20b", b"a b"),
        ("%25", b"%"),
        ("a;b=c,d:e@f&g", b"a;b=c,d:e@f&g"),
        ("kv", b"kv"),
    ] {
        let put = client.send(&format!("PUT ~kv/{path}"), &[], path.to_owned()).await;
        assert_eq!(put.status.as_u16(), 204, "{path}");
        assert_eq!(store.get(key).await.unwrap(), Some(path.into()), "{path}");
        assert_eq!(client.get(&format!("~kv/{path}")).await.body, path);
    }
    for path in ["%", "%4", "%zz", "a%%41", "%e"] {
        client.get(&format!("~kv/{path}")).await.refused(400, "two hexadecimal digits follow");
    }
    for line in ["GET ~kv/", "PUT ~kv/", "DELETE ~kv/"] {
        client.send(line, &[], "").await.refused(400, "a key must have at least 1 byte");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_key_and_value_survive_the_round_trip(
        key in proptest::collection::vec(any::<u8>(), 1..60),
        value in proptest::collection::vec(any::<u8>(), 0..60),
        plain in any::<bool>(),
    ) {
        tokio_test::block_on(async {
            let store = Arc::new(Memory::new());
            let client = Client::of(Arc::clone(&store)).await;
            let path = match plain {
                true => percent_encoding::percent_encode(&key, percent_encoding::NON_ALPHANUMERIC).to_string(),
                false => encoded(&key),
            };
            let put = client.send(&format!("PUT ~kv/{path}"), &[], value.clone()).await;
            assert_eq!(put.status.as_u16(), 204);
            assert_eq!(store.get(&key).await.unwrap(), Some(value.clone().into()));
            assert_eq!(client.get(&format!("~kv/{path}")).await.body, value);
            let line = client.get(&format!("~kv?prefix={}", encoded(&key))).await;
            let line = line.body.split(|byte| *byte == b'\n').next().unwrap().to_vec();
            let rules = crate::jsonl::Rules { limits: Default::default(), expiry: true };
            let entry = crate::jsonl::parse(&line, &rules).unwrap();
            assert_eq!((&entry.key[..], &entry.value.bytes[..]), (&key[..], &value[..]));
        });
    }
}

#[tokio::test]
async fn an_over_long_key_or_value_is_refused_with_the_limit() {
    let small = |guarantees: &mut Guarantees| {
        (guarantees.limits.key_bytes, guarantees.limits.value_bytes) = (4, Some(6));
    };
    let client = Client::of(Altered::new(small)).await;
    assert_eq!(client.put("~kv/1234", "123456").await.status.as_u16(), 204);
    let long = client.put("~kv/12345", "1").await;
    long.refused(414, "limit of 4 bytes");
    assert_eq!(long.json()["limit"], 4);
    let large = client.put("~kv/1234", "1234567").await;
    large.refused(413, "limit of 6 bytes");
    assert_eq!(large.json()["limit"], 6);
    let client = Client::of(Memory::new()).await;
    let longest = "k".repeat(65_000);
    assert_eq!(client.send(&format!("PUT ~kv/{longest}"), &[], "").await.status.as_u16(), 204);
    // The listener's own limit, of 64 KiB.
    let most = vec![7; 64 << 10];
    assert_eq!(client.send("PUT ~kv/k", &[], most.clone()).await.status.as_u16(), 204);
    let over = [most, vec![7]].concat();
    client.send("PUT ~kv/k", &[], over).await.refused(413, "limit of 65536 bytes");
    assert_eq!(client.get("~kv/k").await.body.len(), 64 << 10);
}

#[tokio::test]
async fn a_body_is_read_no_further_than_its_limit() {
    let client = Client::of(Memory::new()).await;
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let endless = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Bytes::from(vec![0; 1 << 10]))
    });
    let answer = client.send("PUT ~kv/k", &[], Body::from_stream(endless)).await;
    answer.refused(413, "over the limit");
    assert_eq!(read.load(Ordering::Relaxed), 65, "64 fit, and one more tells that it is too large");
}

#[tokio::test]
async fn a_deadline_is_kept_and_told() {
    let clock = ManualClock::new();
    let store = Memory::with_clock(Arc::new(clock.clone()));
    let client = Client::with(store, clock, Right::Write).await;
    assert_eq!(client.put("~kv/a?ttl=10m", "v").await.status.as_u16(), 204);
    assert_eq!(client.get("~kv/a").await.header("tierstack-expires-at"), "2024-01-01T00:10:00Z");
    let put = client.put("~kv/b?expires_at=2024-01-01T01:00:00.5%2B00:30", "v").await;
    assert_eq!(put.status.as_u16(), 204);
    let got = client.get("~kv/b").await;
    assert_eq!(got.header("tierstack-expires-at"), "2024-01-01T00:30:00.5Z");
    assert_eq!(put.header("etag"), got.header("etag"));
    client.clock.advance(Duration::from_secs(600));
    assert_eq!(client.get("~kv/a").await.status.as_u16(), 404);
    assert_eq!(client.get("~kv/b").await.status.as_u16(), 200);
    client.put("~kv/b", "v").await;
    assert_eq!(client.get("~kv/b").await.header("tierstack-expires-at"), "");

    for (query, why) in [
        ("ttl=10", "`ttl`: '10' is not a duration"),
        ("ttl=1h&expires_at=2030-01-01T00:00:00Z", "both `ttl` and `expires_at`"),
        ("expires_at=soon", "`expires_at`: 'soon' is not a time"),
        ("expires_at=%FF", "`expires_at`: it is not UTF-8"),
        ("durable=yes", "`durable` is neither `true` nor `false`"),
        ("ttl=1m&ttl=2m", "`ttl` is given more than once"),
        ("tll=1m", "did you mean `ttl`? allowed: `ttl`, `expires_at`, `durable`"),
    ] {
        client.put(&format!("~kv/c?{query}"), "v").await.refused(400, why);
    }
    assert_eq!(client.get("~kv/c").await.status.as_u16(), 404);
    client
        .get("~kv/c?ttl=1m")
        .await
        .refused(400, "there is no parameter `ttl`; this route takes none");
    let forgetful = Client::of(Altered::new(|guarantees| guarantees.expiry = false)).await;
    forgetful.put("~kv/a?ttl=10m", "v").await.refused(501, "add the `expire` layer");
}

#[tokio::test]
async fn a_part_of_a_value_is_served() {
    let client = Client::of(Memory::new()).await;
    let tag = client.put("~kv/k", "0123456789").await.header("etag").to_owned();
    let part = async |headers: &[(&str, &str)]| client.send("GET ~kv/k", headers, "").await;
    let middle = part(&[("range", "bytes=2-4")]).await;
    assert_eq!((middle.status.as_u16(), &middle.body[..]), (206, &b"234"[..]));
    assert_eq!(middle.header("content-range"), "bytes 2-4/10");
    assert_eq!(middle.header("content-length"), "3");
    assert_eq!((middle.header("etag"), middle.header("accept-ranges")), (&*tag, "bytes"));
    assert_eq!(part(&[("range", "bytes=-3")]).await.body, "789");
    let behind = part(&[("range", "bytes=10-")]).await;
    behind.refused(416, "behind the end of the value, of 10 bytes");
    assert_eq!(behind.header("content-range"), "bytes */10");
    for ignored in ["bytes=5-3", "bytes=0-1,3-4", "lines=1-2", "bytes", "bytes=x-"] {
        let whole = part(&[("range", ignored)]).await;
        assert_eq!((whole.status.as_u16(), whole.body.len()), (200, 10), "{ignored}");
    }
    let range = ("range", "bytes=2-4");
    assert_eq!(part(&[range, ("if-range", &tag)]).await.body, "234");
    for other in ["\"other\"", &format!("W/{tag}"), "Sat, 29 Oct 1994 19:43:31 GMT"] {
        assert_eq!(part(&[range, ("if-range", other)]).await.body, "0123456789", "{other}");
    }
    let unchanged = part(&[range, ("if-none-match", &tag)]).await;
    assert_eq!(unchanged.status.as_u16(), 304);
    let head = client.send("HEAD ~kv/k", &[range], "").await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "10"));
    client
        .send("PUT ~kv/k", &[("content-range", "bytes 0-1/10")], "xx")
        .await
        .refused(400, "put as a whole");
    client
        .send("PUT ~kv/k", &[("content-encoding", "gzip")], "xx")
        .await
        .refused(415, "Content-Encoding");
}

#[tokio::test]
async fn a_durable_write_waits_and_tells_what_kept_it() {
    for (line, lines) in
        [("PUT ~kv/k", ""), ("DELETE ~kv/k", ""), ("POST ~batch", "application/x-ndjson")]
    {
        let (store, kept) = Altered::kept_later();
        let client = Client::of(store).await;
        let headers = [("content-type", lines)];
        assert_eq!(client.send(line, &headers, "").await.status.as_u16(), 204);
        let durable = format!("{line}?durable=true");
        let mut waiting = tokio_test::task::spawn(client.send(&durable, &headers, ""));
        tokio_test::assert_pending!(waiting.poll());
        kept.send_replace(Some(true));
        assert_eq!(waiting.await.header("tierstack-sequence"), "7");
        kept.send_replace(Some(false));
        let lost = client.send(&durable, &headers, "").await;
        lost.refused(503, "the write took effect, and may not be kept: the disk is gone");
        assert_eq!(
            (&lost.json()["outcome"], &lost.json()["op"]),
            (&"unknown".into(), &"write".into())
        );
    }
}

#[tokio::test]
async fn what_a_store_fails_with_has_its_status() {
    let later = |kind| Error::new(kind, "for a test").with_retry(Retry::Later);
    for (error, status, retry_after) in [
        (Error::new(ErrorKind::InvalidInput, "x"), 400, ""),
        (Error::new(ErrorKind::Access, "x"), 403, ""),
        (Error::new(ErrorKind::Conflict, "x"), 409, ""),
        (later(ErrorKind::Capacity), 429, "1"),
        (Error::new(ErrorKind::Corruption, "x"), 500, ""),
        (Error::new(ErrorKind::Config, "x"), 500, ""),
        (Error::new(ErrorKind::Internal, "x"), 500, ""),
        (Error::new(ErrorKind::Unsupported, "x"), 501, ""),
        (Error::new(ErrorKind::Unavailable, "x"), 503, "1"),
        (Error::new(ErrorKind::Unavailable, "x").with_retry(Retry::GaveUp), 503, ""),
        (Error::new(ErrorKind::Closed, "x"), 503, ""),
        (Error::new(ErrorKind::Aborted, "x"), 503, "1"),
        (Error::new(ErrorKind::Timeout, "x"), 504, "1"),
        (Error::new(ErrorKind::Capacity, "x"), 507, ""),
    ] {
        let faults = Faults::new();
        let client = Client::of(FaultStore::new(Memory::new(), &faults)).await;
        let made = error.clone().with_layer("disk").with_key(b"secret");
        faults.on(Operation::Write).fail_with(move || made.clone());
        let answer = client.put("~kv/secret", "v").await;
        assert_eq!(answer.problem().0, status);
        assert_eq!(answer.header("retry-after"), retry_after, "{error}");
        let json = answer.json();
        assert_eq!(
            (&json["kind"], &json["layer"], &json["op"]),
            (&error.kind().as_str().into(), &"disk".into(), &"write".into())
        );
        let outcome = if error.outcome() == Outcome::Nothing { "nothing" } else { "unknown" };
        assert_eq!(json["outcome"], outcome);
        assert_eq!(json["fingerprint"].as_str().unwrap().len(), 16);
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    }
}

#[tokio::test]
async fn what_a_caller_may_not_do_is_refused() {
    let client = Client::with(Memory::new(), ManualClock::new(), Right::Read).await;
    assert_eq!(client.get("~kv/k").await.status.as_u16(), 404);
    for line in ["PUT ~kv/k", "DELETE ~kv/k", "POST ~batch"] {
        client.send(line, &[], "").await.refused(403, "the right `write`");
    }
    client.get("/v1/stores/other/kv/k").await.refused(404, "serves no such store");
    client.get("/v1/stores/ma%69n/kv/k").await.refused(404, "the key does not exist");
    let read_only = Client::of(ReadOnlyLayer.layer(Memory::new())).await;
    read_only.put("~kv/k", "v").await.refused(403, "");
}
