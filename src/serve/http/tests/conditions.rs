//! `If-Match` and `If-None-Match`: the table of RFC 9110, and races.

use super::altered::Altered;
use super::*;
use crate::backends::Memory;
use crate::error::{Error, ErrorKind, Operation, Outcome};
use crate::ext::StoreExt;
use crate::store::Read;
use crate::testing::{FaultStore, Faults};
use crate::types::Conditions;

const MATCH: &str = "if-match";
const NONE: &str = "if-none-match";

/// What a header holds: the tag of the value, another one, the same as a weak one, or any.
fn tags(of: &str, tag: &str) -> String {
    match of {
        "this" => tag.to_owned(),
        "weak" => format!("W/{tag}"),
        "listed" => format!("\"x\" , W/\"y\",{tag}"),
        "other" => "\"other\", W/\"more\"".to_owned(),
        any => any.to_owned(),
    }
}

#[tokio::test]
async fn conditions_take_precedence_as_the_standard_says() {
    // `If-Match`, `If-None-Match`; then the status of a read, a write and a removal, where there is a value and
    // where there is none.
    let table: [(&str, &str, [u16; 3], [u16; 3]); 17] = [
        ("", "", [200, 204, 204], [404, 204, 204]),
        ("this", "", [200, 204, 204], [404, 412, 412]),
        ("listed", "", [200, 204, 204], [404, 412, 412]),
        ("*", "", [200, 204, 204], [404, 412, 412]),
        // A weak tag says too little for `If-Match`.
        ("weak", "", [412, 412, 412], [404, 412, 412]),
        ("other", "", [412, 412, 412], [404, 412, 412]),
        ("", "this", [304, 412, 412], [404, 201, 204]),
        ("", "listed", [304, 412, 412], [404, 201, 204]),
        ("", "weak", [304, 412, 412], [404, 201, 204]),
        ("", "*", [304, 412, 412], [404, 201, 204]),
        ("", "other", [200, 204, 204], [404, 201, 204]),
        // `If-Match` is looked at first.
        ("other", "this", [412, 412, 412], [404, 412, 412]),
        ("other", "*", [412, 412, 412], [404, 412, 412]),
        ("this", "this", [304, 412, 412], [404, 412, 412]),
        ("this", "*", [304, 412, 412], [404, 412, 412]),
        ("this", "other", [200, 204, 204], [404, 412, 412]),
        ("*", "other", [200, 204, 204], [404, 412, 412]),
    ];
    for (matches, none, present, absent) in table {
        for (there, expected) in [(true, present), (false, absent)] {
            for (method, status) in ["GET", "PUT", "DELETE"].into_iter().zip(expected) {
                let store = Arc::new(Memory::new());
                let client = Client::of(Arc::clone(&store)).await;
                let tag = client.put("~kv/k", "old").await.header("etag").to_owned();
                if !there {
                    store.delete("k").await.unwrap();
                }
                let (matches, none) = (tags(matches, &tag), tags(none, &tag));
                // Dates are of no account: a value has none.
                let mut headers = vec![
                    ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
                    ("if-unmodified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
                ];
                headers.extend((!matches.is_empty()).then_some((MATCH, &*matches)));
                headers.extend((!none.is_empty()).then_some((NONE, &*none)));
                let case = format!("{method} {there} {headers:?}");
                let answer = client.send(&format!("{method} ~kv/k"), &headers, "new").await;
                assert_eq!(answer.status.as_u16(), status, "{case}");
                if method == "GET" {
                    let head = client.send("HEAD ~kv/k", &headers, "").await;
                    assert_eq!(head.status.as_u16(), status, "{case}");
                }
                if status == 304 {
                    assert_eq!((answer.header("etag"), answer.body.len()), (&*tag, 0));
                }
                let left = store.get(b"k").await.unwrap();
                let expected = match (method, status) {
                    ("PUT", 201 | 204) => Some("new"),
                    ("DELETE", 204) => None,
                    _ => there.then_some("old"),
                };
                assert_eq!(left, expected.map(Into::into), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_condition_that_is_malformed_is_refused_and_nothing_written() {
    let client = Client::of(Memory::new()).await;
    for (name, value) in
        [(MATCH, "abc"), (NONE, "\"a"), (MATCH, "*, \"a\""), (NONE, ""), (NONE, "\"a\" \"b\"")]
    {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = client.send(&format!("{method} ~kv/k"), &[(name, value)], "v").await;
            answer.refused(
                400,
                &format!("the header {name} is neither `*` nor tags in double quotes"),
            );
        }
    }
    client.get("~kv/k").await.refused(404, "");
    let two = [(NONE, "\"a\""), (NONE, "\"b\"")];
    assert_eq!(client.send("PUT ~kv/k", &two, "v").await.status.as_u16(), 201, "lines add up");
}

#[tokio::test]
async fn another_deadline_is_another_value() {
    let client = Client::of(Memory::new()).await;
    let first = client.put("~kv/k?expires_at=2100-01-01T00:00:00Z", "v").await;
    let tag = first.header("etag").to_owned();
    client.put("~kv/k?expires_at=2200-01-01T00:00:00Z", "v").await;
    let late = client.send("PUT ~kv/k", &[(MATCH, &tag)], "w").await;
    late.refused(412, "not the one that If-Match requires");
    assert_eq!(client.get("~kv/k").await.body, "v");
}

#[tokio::test]
async fn a_store_that_cannot_check_says_what_can() {
    let none = || Altered::new(|guarantees| guarantees.conditions = Conditions::None);
    let absence = || Altered::new(|guarantees| guarantees.conditions = Conditions::Absence);
    for method in ["PUT", "DELETE"] {
        let line = format!("{method} ~kv/k");
        let client = Client::of(none()).await;
        for header in [(MATCH, "*"), (NONE, "*"), (NONE, "\"a\"")] {
            let answer = client.send(&line, &[header], "v").await;
            answer.refused(501, "can check no condition; the backends memory, file, rocksdb");
        }
        assert_eq!(client.send(&line, &[], "v").await.status.as_u16(), 204);
        let client = Client::of(absence()).await;
        assert!(client.send(&line, &[(NONE, "*")], "v").await.status.is_success());
        for header in [(MATCH, "*"), (NONE, "\"a\"")] {
            client
                .send(&line, &[header], "v")
                .await
                .refused(501, "only check that a key is absent");
        }
    }
    // A read needs nothing of the store.
    let client = Client::of(none()).await;
    let tag = client.put("~kv/k", "v").await.header("etag").to_owned();
    assert_eq!(client.send("GET ~kv/k", &[(NONE, &tag)], "").await.status.as_u16(), 304);
}

#[tokio::test]
async fn a_tag_is_given_for_a_write_only_where_the_store_keeps_what_it_is_given() {
    let client = Client::of(Altered::new(|guarantees| guarantees.verbatim = false)).await;
    let put = client.put("~kv/k", "v").await;
    assert_eq!((put.status.as_u16(), put.headers.get("etag")), (204, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_that_create_a_key_one_succeeds() {
    let store = Arc::new(Memory::new());
    let client = Client::of(Arc::clone(&store)).await;
    let tasks: Vec<_> = (0..100)
        .map(|number: u32| {
            let client = client.clone();
            tokio::spawn(async move {
                let body = number.to_string();
                let answer = client.send("PUT ~kv/k", &[(NONE, "*")], body).await;
                (number, answer.status.as_u16())
            })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (number, 201) => winners.push(number),
            (_, status) => assert_eq!(status, 412),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let kept = store.get(b"k").await.unwrap().unwrap();
    assert_eq!(kept.bytes, winners[0].to_string());
}

/// Sixteen tasks add one to a number, a hundred times each.
async fn count_up(client: Client) {
    client.put("~kv/n", "0").await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    loop {
                        let read = client.get("~kv/n").await;
                        let number: u32 = std::str::from_utf8(&read.body).unwrap().parse().unwrap();
                        let condition = [(MATCH, read.header("etag"))];
                        let body = (number + 1).to_string();
                        let written = client.send("PUT ~kv/n", &condition, body).await;
                        match written.status.as_u16() {
                            204 => break,
                            status => assert_eq!(status, 412),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(client.get("~kv/n").await.body, "1600");
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_by_tag_lose_none() {
    count_up(Client::of(Memory::new()).await).await;
}

#[cfg(feature = "cache")]
#[tokio::test(flavor = "multi_thread")]
async fn increments_by_tag_lose_none_behind_a_cache() {
    use crate::config::{Config, Format, Registry};
    let text = "stores: { main: { backend: memory, layers: [ { cache: { capacity: 1MiB } } ] } }";
    let config = Config::parse(text, Format::Yaml, "tierstack.yaml").unwrap();
    let options = crate::stack::OpenOptions::default();
    let stack = crate::stack::Stack::open(&config, None, &Registry::standard(), &options).await;
    count_up(Client::of(stack.unwrap().store()).await).await;
}

#[tokio::test]
async fn a_race_that_is_lost_is_run_again_within_bounds() {
    let conflict = || Error::new(ErrorKind::Conflict, "another was first");
    for (header, lost, status) in [
        ((MATCH, "*"), 3, 204),
        ((NONE, "\"other\""), 15, 204),
        ((MATCH, "*"), 16, 409),
        ((NONE, "\"other\""), 1000, 409),
    ] {
        let faults = Faults::new();
        let client = Client::of(FaultStore::new(Memory::new(), &faults)).await;
        client.put("~kv/k", "old").await;
        faults.on(Operation::Write).times(lost).fail_with(conflict);
        let answer = client.send("PUT ~kv/k", &[header], "new").await;
        assert_eq!(answer.status.as_u16(), status, "{header:?} {lost}");
        if status == 409 {
            answer.refused(409, "during each of 16 attempts, so nothing was written");
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(client.get("~kv/k").await.body, "old");
        }
    }
    // What may have been written is not written again.
    let faults = Faults::new();
    let client = Client::of(FaultStore::new(Memory::new(), &faults)).await;
    client.put("~kv/k", "old").await;
    faults.on(Operation::Write).fail_with(move || conflict().with_outcome(Outcome::Unknown));
    let answer = client.send("PUT ~kv/k", &[(MATCH, "*")], "new").await;
    answer.refused(409, "another was first");
    assert_eq!(answer.json()["outcome"], "unknown");
    assert_eq!(faults.calls(Operation::Write), 2);
}
