//! Buckets that may only be read, with and without the right to list: a server in between refuses the rest, and notes
//! what it was asked for.
#![cfg(all(feature = "object", feature = "opendal", feature = "cloud"))]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tierstack::backends::{Object, ObjectConfig, OpenDal, OpenDalConfig};
use tierstack::units::Secret;
use tierstack::{Context, ErrorKind, ReadExt, Scan, Store, StoreExt};

use crate::support;

const DENIED: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";

/// A policy, as the server in between follows it.
struct Policy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Policy {
    /// In front of that server. Without the right to list, what is not there is refused as well, as by S3.
    fn new(server: &str, lists: bool) -> Self {
        let upstream = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, notes) = (upstream.clone(), Arc::clone(&notes));
                std::thread::spawn(move || serve(client, &upstream, lists, &notes));
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request; the client makes another connection for the next.
fn serve(mut client: TcpStream, upstream: &str, lists: bool, notes: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    // A client that still sends would not read the answer.
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<u64>().unwrap())
    });
    std::io::copy(&mut (&client).take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
    let line = head.lines().next().unwrap().to_owned();
    let reads = ["GET ", "HEAD "].iter().any(|method| line.starts_with(method));
    let lists_now = line.contains("list-type=") || line.contains("delimiter=");
    notes.lock().unwrap().push(line);
    let mut answer = Vec::new();
    if reads && (lists || !lists_now) {
        let mut server = TcpStream::connect(upstream).unwrap();
        let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        server.write_all(head.as_bytes()).unwrap();
        server.read_to_end(&mut answer).unwrap();
    }
    let missing = answer.get(9..12) == Some(b"404");
    if answer.is_empty() || missing && !lists {
        let length = DENIED.len();
        answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{DENIED}").into_bytes();
    }
    // A client that is gone is not told.
    let _ = client.write_all(&answer);
}

/// The same objects through both backends.
async fn open(
    config: &ObjectConfig,
    endpoint: &str,
    read_only: bool,
    scans: Option<bool>,
) -> Vec<tierstack::Result<Arc<dyn Store>>> {
    let mut object = ObjectConfig { read_only, scans, ..config.clone() };
    object.options.insert("endpoint".into(), endpoint.into());
    let (bucket, root) = config.url.trim_start_matches("s3://").split_once('/').unwrap();
    let mut opendal = OpenDalConfig { read_only, scans, ..OpenDalConfig::new("s3") };
    for (name, value) in [
        ("bucket", bucket),
        ("root", root),
        ("endpoint", endpoint),
        ("region", "us-east-1"),
        ("access_key_id", "test"),
        ("disable_config_load", "true"),
        ("disable_ec2_metadata", "true"),
    ] {
        opendal.options.insert(name.into(), value.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "test").unwrap();
    opendal.options.insert("secret_access_key".into(), Secret::File(secret).into());
    let context = Context::default();
    vec![
        Object::open(&object, &context).await.map(|store| Arc::new(store) as _),
        OpenDal::open(&opendal, &context).await.map(|store| Arc::new(store) as _),
    ]
}

/// A bucket with two entries, and its settings.
async fn filled(server: &str) -> ObjectConfig {
    let config = crate::object::s3(server);
    let store = Object::open(&config, &Context::default()).await.unwrap();
    store.put("users/1", "Ada").await.unwrap();
    store.put("users/2", "Bo").await.unwrap();
    store.close().await.unwrap();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_only_read_is_asked_for_nothing_else() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let config = filled(&server).await;
    let policy = Policy::new(&server, true);
    for store in open(&config, &policy.url(), true, None).await {
        let store = store.unwrap();
        assert_eq!(store.get(b"users/1").await.unwrap(), Some("Ada".into()));
        assert_eq!(store.get(b"users/3").await.unwrap(), None);
        assert_eq!(store.collect(Scan::prefix("users/")).await.unwrap().len(), 2);
        assert!(!store.profile().guarantees.writable);
        let run = futures_util::stream::iter(Vec::new());
        for refused in [
            store.put("users/1", "x").await.map(drop).unwrap_err(),
            store.delete("users/1").await.map(drop).unwrap_err(),
            store.ingest(Box::pin(run)).await.map(drop).unwrap_err(),
        ] {
            assert!(
                refused.kind() == ErrorKind::Access
                    && refused.message().contains("`read_only: true`"),
                "{refused}"
            );
        }
        store.close().await.unwrap();
    }
    let asked = policy.asked();
    let reads = |line: &String| line.starts_with("GET ") || line.starts_with("HEAD ");
    assert!(!asked.is_empty() && asked.iter().all(reads), "{asked:?}");
    // Without the setting it opens as well, and the service refuses what it is not to do.
    for store in open(&config, &policy.url(), false, None).await {
        let refused = store.unwrap().put("users/1", "x").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Access, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_list_entries_are_found_by_their_keys() {
    let Some(server) = support::var("TIERSTACK_TEST_S3") else { return };
    let config = filled(&server).await;
    let policy = Policy::new(&server, false);
    for refused in open(&config, &policy.url(), true, None).await {
        assert_eq!(refused.map(drop).unwrap_err().kind(), ErrorKind::Access);
    }
    let before = policy.asked().len();
    for store in open(&config, &policy.url(), true, Some(false)).await {
        let store = store.unwrap();
        assert_eq!(store.get(b"users/1").await.unwrap(), Some("Ada".into()));
        // S3 says of neither whether it is there.
        assert_eq!(store.get(b"users/3").await.unwrap_err().kind(), ErrorKind::Access);
        assert!(store.collect(Scan::all()).await.is_err());
        // Every stack looks for it.
        assert_eq!(store.get(b"\0tierstack/restore").await.unwrap(), None);
    }
    let asked = policy.asked().split_off(before);
    let lists = |line: &String| line.contains("list-type=");
    assert!(!asked.iter().any(lists), "{asked:?}");
}
