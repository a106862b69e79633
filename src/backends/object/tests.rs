//! Services that do not do what they should, and large values.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::object_store::memory::InMemory;
use ::object_store::path::Path;
use ::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::*;
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::types::{Batch, Scan};

type Outcome<T> = ::object_store::Result<T>;

/// A service in memory, with defects.
#[derive(Debug, Default)]
struct Faulty {
    inner: InMemory,
    /// Lists folders last, as some do.
    unordered: bool,
    /// Takes the condition of a create, and ignores it.
    overwrites: bool,
    /// Checks the condition without a lock.
    races: bool,
    fails_parts: bool,
    /// Parts that never arrive.
    stalls: bool,
    /// Completes an upload, and says that there is none, as a repeated completion does.
    forgets: bool,
    /// Refuses to write, as rights to read only do.
    read_only: bool,
    /// Gives tags that match nothing.
    weak_tags: bool,
    /// Says that objects are that large.
    says_size: Option<u64>,
    /// How often the object is replaced while it is read in parts.
    replaced: AtomicUsize,
    /// An object that is listed, and is not there.
    lies_about: std::sync::OnceLock<Path>,
    uploads: AtomicUsize,
    /// Objects that were asked for, and listings that were begun.
    gets: AtomicUsize,
    listings: AtomicUsize,
    aborted: Arc<AtomicUsize>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Outcome<PutResult> {
        self.check_rights()?;
        if self.overwrites {
            options.mode = PutMode::Overwrite;
        }
        if self.races && matches!(options.mode, PutMode::Create) {
            let there = self.inner.head(path).await.is_ok();
            tokio::task::yield_now().await;
            if !there {
                options.mode = PutMode::Overwrite;
            }
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Outcome<Box<dyn MultipartUpload>> {
        self.check_rights()?;
        self.uploads.fetch_add(1, Ordering::Relaxed);
        let inner = self.inner.put_multipart_opts(path, options).await?;
        let (fails, aborted) = (self.fails_parts, Arc::clone(&self.aborted));
        let (stalls, forgets) = (self.stalls, self.forgets);
        Ok(Box::new(FaultyUpload { inner, fails, stalls, forgets, aborted }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Outcome<GetResult> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let take = |left: usize| left.checked_sub(1);
        let part = options.range.is_some();
        if part && self.replaced.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            self.inner.put(path, vec![b'2'; 20 << 20].into()).await?;
        }
        if self.weak_tags && options.if_match.is_some() {
            let source = "no strong tag".into();
            return Err(::object_store::Error::Precondition { path: path.to_string(), source });
        }
        if self.lies_about.get() == Some(path) {
            let source = "under this name".into();
            return Err(::object_store::Error::NotFound { path: path.to_string(), source });
        }
        let mut found = self.inner.get_opts(path, options).await?;
        if self.weak_tags {
            found.meta.e_tag = Some("W/\"1\"".to_owned());
        }
        found.meta.size = self.says_size.unwrap_or(found.meta.size);
        Ok(found)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Outcome<Path>>,
    ) -> BoxStream<'static, Outcome<Path>> {
        match self.check_rights() {
            Ok(()) => self.inner.delete_stream(paths),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Outcome<ObjectMeta>> {
        self.listings.fetch_add(1, Ordering::Relaxed);
        let listing = self.inner.list(prefix);
        if !self.unordered {
            return listing;
        }
        let sorted = async move {
            let mut all: Vec<ObjectMeta> = listing.try_collect().await?;
            all.sort_by_key(|meta| meta.location.as_ref().contains('/'));
            Ok::<_, ::object_store::Error>(futures_util::stream::iter(all.into_iter().map(Ok)))
        };
        futures_util::stream::once(sorted).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Outcome<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Outcome<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl Faulty {
    fn check_rights(&self) -> Outcome<()> {
        let (path, source) = ("secret-key".to_owned(), "the role may only read".into());
        let denied = ::object_store::Error::PermissionDenied { path, source };
        if self.read_only { Err(denied) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    fails: bool,
    stalls: bool,
    forgets: bool,
    aborted: Arc<AtomicUsize>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.fails {
            let source = "secret-key cannot be written".into();
            return async move { Err(::object_store::Error::Generic { store: "Faulty", source }) }
                .boxed();
        }
        if self.stalls {
            return std::future::pending().boxed();
        }
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Outcome<PutResult> {
        let done = self.inner.complete().await;
        let (path, source) = ("secret-key".to_owned(), "NoSuchUpload".into());
        if self.forgets { Err(::object_store::Error::NotFound { path, source }) } else { done }
    }

    async fn abort(&mut self) -> Outcome<()> {
        self.aborted.fetch_add(1, Ordering::Relaxed);
        self.inner.abort().await
    }
}

async fn over(service: &Arc<Faulty>, config: &ObjectConfig) -> Result<Object> {
    let (repeating, once) = (Arc::clone(service) as Arc<dyn ObjectStore>, Arc::clone(service) as _);
    let client = Client::new(repeating, once, config.keep_attributes);
    Object::over(client, config.opening(&Context::default()).await?).await
}

fn config() -> ObjectConfig {
    ObjectConfig::new("s3://acme")
}

async fn put(service: &Faulty, names: &[&str]) {
    for name in names {
        service.inner.put(&Path::parse(name).unwrap(), "v".into()).await.unwrap();
    }
}

#[tokio::test]
async fn names_out_of_order_are_an_error_when_opening_and_when_scanning() {
    let service = Arc::new(Faulty { unordered: true, ..Faulty::default() });
    let store = over(&service, &config()).await.unwrap();
    put(&service, &["a", "b/1", "c"]).await;
    let scanned = store.collect(Scan::all()).await.unwrap_err();
    assert_eq!(scanned.kind(), ErrorKind::Config);
    assert!(scanned.to_string().contains("`scans: false`"), "{scanned}");
    assert!(store.collect(Scan::all().reverse()).await.is_err());

    let opened = over(&service, &config()).await.unwrap_err();
    assert!(opened.to_string().contains("`scans: false`"), "{opened}");
    let without = over(&service, &ObjectConfig { scans: Some(false), ..config() }).await.unwrap();
    assert!(!without.profile().guarantees.ordered_scans);
    assert_eq!(without.get(b"b/1").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn a_service_that_does_not_keep_writers_apart_is_refused() {
    for service in [
        Faulty { overwrites: true, ..Faulty::default() },
        Faulty { races: true, ..Faulty::default() },
    ] {
        let service = Arc::new(service);
        let config = ObjectConfig { conditional_writes: true, ..config() };
        let refused = over(&service, &config).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert!(refused.to_string().contains("`conditional_writes: false`"), "{refused}");
        assert_eq!(service.inner.list(None).count().await, 0, "what was tried out is removed");
    }
}

#[tokio::test]
async fn a_large_value_goes_in_parts_and_is_seen_whole_or_not_at_all() {
    let large: Vec<u8> = (0..(17 << 20) + 5).map(|at: u32| (at >> 7) as u8).collect();
    let service = Arc::new(Faulty::default());
    let store = over(&service, &config()).await.unwrap();
    let _ = store.put("small", vec![1; 16 << 20]).await.unwrap();
    assert_eq!(service.uploads.load(Ordering::Relaxed), 0);
    let _ = store.put("large", large.clone()).await.unwrap();
    assert_eq!(service.uploads.load(Ordering::Relaxed), 1);
    assert!(store.get(b"large").await.unwrap().unwrap().bytes == large);

    let service = Arc::new(Faulty { fails_parts: true, ..Faulty::default() });
    let store = over(&service, &config()).await.unwrap();
    let failed = store.put("large", large.clone()).await.unwrap_err();
    assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
    tokio::task::yield_now().await;
    assert_eq!(service.aborted.load(Ordering::Relaxed), 1);
    assert_eq!(store.get(b"large").await.unwrap(), None);
}

#[tokio::test]
async fn a_dropped_upload_is_aborted() {
    let service = Arc::new(Faulty { stalls: true, ..Faulty::default() });
    let store = over(&service, &config()).await.unwrap();
    let mut writing = tokio_test::task::spawn(store.put("large", vec![1; 20 << 20]));
    assert!(writing.poll().is_pending(), "its parts never arrive");
    assert_eq!(service.uploads.load(Ordering::Relaxed), 1);
    drop(writing);
    tokio::task::yield_now().await;
    assert_eq!(service.aborted.load(Ordering::Relaxed), 1);
    assert!(service.inner.head(&"large".into()).await.is_err());
}

#[tokio::test]
async fn an_upload_whose_completion_is_not_known_may_have_taken_effect() {
    let service = Arc::new(Faulty { forgets: true, ..Faulty::default() });
    let store = over(&service, &config()).await.unwrap();
    let failed = store.put("large", vec![1; 20 << 20]).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
}

#[tokio::test]
async fn a_large_value_that_is_replaced_while_it_is_read_is_one_or_the_other() {
    let service = Arc::new(Faulty { replaced: 2.into(), ..Faulty::default() });
    let store = over(&service, &config()).await.unwrap();
    let _ = store.put("large", vec![b'1'; 30 << 20]).await.unwrap();
    let read = store.get(b"large").await.unwrap().unwrap();
    assert!(read.bytes == vec![b'2'; 20 << 20]);
    // Again and again.
    service.replaced.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(store.get(b"large").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_large_value_is_read_where_tags_match_nothing() {
    let service = Arc::new(Faulty { weak_tags: true, ..Faulty::default() });
    let store = over(&service, &config()).await.unwrap();
    let _ = store.put("large", vec![1; 20 << 20]).await.unwrap();
    assert_eq!(store.get(b"large").await.unwrap().unwrap().bytes.len(), 20 << 20);
}

#[tokio::test]
async fn an_object_larger_than_any_value_is_refused_before_it_is_read() {
    let service = Arc::new(Faulty { says_size: Some(1 << 42), ..Faulty::default() });
    let store = over(&service, &config()).await.unwrap();
    put(&service, &["film"]).await;
    let refused = store.get(b"film").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Capacity, "{refused:?}");
    assert!(store.collect(Scan::all()).await.is_err());
}

#[tokio::test]
async fn rights_to_read_are_enough_for_reading() {
    let service = Arc::new(Faulty { read_only: true, ..Faulty::default() });
    put(&service, &["a"]).await;
    let store = over(&service, &config()).await.unwrap();
    assert_eq!(store.get(b"a").await.unwrap(), Some("v".into()));
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    for refused in [
        store.put("secret-key", "v").await.unwrap_err(),
        store.put("secret-key", vec![1; 20 << 20]).await.unwrap_err(),
        store.delete("secret-key").await.unwrap_err(),
        over(&service, &ObjectConfig { conditional_writes: true, ..config() }).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Access, "{refused:?}");
        assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
    }
}

/// The profile says which keys can surely be written; what others wrote is read all the same.
#[tokio::test]
async fn get_and_scan_agree_on_longer_names_of_others() {
    let service = Arc::new(Faulty::default());
    let (long, too_long) = ("x".repeat(1020), "y".repeat(1025));
    put(&service, &[&long, ".~~tierstack-probe-0123-0"]).await;
    let store = over(&service, &config()).await.unwrap();
    let scanned = store.collect(Scan::all()).await.unwrap();
    assert_eq!(scanned.len(), 1, "what was tried out is no entry");
    assert_eq!(scanned[0].key, long);
    assert_eq!(store.get(long.as_bytes()).await.unwrap(), Some("v".into()));
    let refused = store.get(too_long.as_bytes()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "no name is so long");
    let refused = store.put(long, "v").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_is_there_already_is_opened_as_it_is() {
    let service = Arc::new(Faulty::default());
    put(&service, &["users/1", "users/2", "a:b=c", "ZZ"]).await;
    let store = over(&service, &config()).await.unwrap();
    assert_eq!(store.get(b"users/1").await.unwrap(), Some("v".into()));
    let keys: Vec<_> =
        store.collect(Scan::all()).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["ZZ", "a:b=c", "users/1", "users/2"]);

    // A name that no key has is never passed over in silence.
    put(&service, &["my photo.jpg"]).await;
    let failed = store.collect(Scan::all()).await.unwrap_err();
    assert!(failed.to_string().contains("`names: plain`"), "{failed}");
    let plain = ObjectConfig { names: Names::Plain, ..config() };
    let plain = over(&service, &plain).await.unwrap();
    assert_eq!(plain.collect(Scan::all()).await.unwrap().len(), 5);
    assert_eq!(plain.collect(Scan::prefix("my ")).await.unwrap().len(), 1);
    let _ = plain.put("caf\u{e9}/1", "v").await.unwrap();
    assert_eq!(plain.get("caf\u{e9}/1".as_bytes()).await.unwrap(), Some("v".into()));
    let refused = plain.put(&b"\xff"[..], "v").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(plain.get(b"a//b").await.unwrap(), None);
}

#[tokio::test]
async fn a_reverse_scan_of_many_keeps_its_place() {
    let service = Arc::new(Faulty::default());
    let names: Vec<_> = (0..20_000).map(|n| format!("k{n:05}")).collect();
    put(&service, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let store = over(&service, &config()).await.unwrap();
    let all = store.collect(Scan::all().reverse()).await.unwrap();
    assert!(all.iter().map(|entry| &entry.key).eq(names.iter().rev()));
    let some = store.collect(Scan::range("k00100".."k19000").reverse().limit(9000)).await.unwrap();
    assert!(some.iter().map(|entry| &entry.key).eq(names[..19_000].iter().rev().take(9000)));
    let forward = store.collect(Scan::range("k19000"..)).await.unwrap();
    assert!(forward.iter().map(|entry| &entry.key).eq(&names[19_000..]));
}

#[tokio::test]
async fn a_create_that_loses_writes_nothing() {
    let service = Arc::new(Faulty::default());
    let store =
        over(&service, &ObjectConfig { conditional_writes: true, ..config() }).await.unwrap();
    let _ = store.write(Batch::new().put("lock", "me").if_absent()).await.unwrap();
    let refused = store.write(Batch::new().put("lock", "you").if_absent()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(store.get(b"lock").await.unwrap(), Some("me".into()));
}

#[test]
fn settings_that_cannot_be_are_refused_with_words() {
    use crate::types::Durability::{MachineLoss, PowerCut};
    let folder = ObjectConfig::new("./data");
    let wrong = [
        (ObjectConfig::new("ftp://x"), "`url`"),
        (ObjectConfig { scans: Some(true), ..folder.clone() }, "`file`"),
        (ObjectConfig { durability: Some(PowerCut), ..folder.clone() }, "`durability`"),
        (
            ObjectConfig { durability: Some(MachineLoss), ..ObjectConfig::new("memory://") },
            "`durability`",
        ),
        (
            ObjectConfig { conditional_values: true, ..ObjectConfig::new("az://acme") },
            "`conditional_values`",
        ),
        (ObjectConfig { timeout: "0s".parse().unwrap(), ..config() }, "`timeout`"),
        (ObjectConfig::new(format!("s3://acme/{}", "x".repeat(1023))), "no room"),
        (ObjectConfig::new("s3://ada:hunter2@acme/x"), "options"),
        (ObjectConfig::new("az://acme/x?sig=hunter2"), "options"),
        (ObjectConfig::new("~/entries"), "`~`"),
        (ObjectConfig::new("s3:/acme/x"), "another machine"),
    ];
    for (config, word) in wrong {
        let error = config.profile().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(word), "{error}");
        assert!(!format!("{error:?} {config:?}").contains("hunter2"), "{error:?} {config:?}");
    }
    let limit = |url: &str| ObjectConfig::new(url).profile().unwrap().guarantees.limits.key_bytes;
    assert_eq!((limit("memory:///"), limit("s3://acme")), (255, 255));
    assert_eq!(limit("az://acme/a/b"), 251, "a name has 254 segments at most in Azure");
    assert!(!folder.profile().unwrap().guarantees.ordered_scans);
}

#[tokio::test]
async fn a_key_that_cannot_be_a_name_is_refused_by_reads_as_by_writes() {
    let config = ObjectConfig { names: Names::Plain, ..ObjectConfig::new("memory://") };
    let store = Object::open(&config, &Context::default()).await.unwrap();
    for key in ["https://example.org/x", "back\\slash", "tab\tx", "a/./b", "/lead", "x/"] {
        let results = [
            store.put(key, "v").await.map(drop),
            store.get(key.as_bytes()).await.map(drop),
            store.get_many(&[key.into()]).await.map(drop),
            store.inspect(key.as_bytes()).await.map(drop),
            store.delete(key).await.map(drop),
        ];
        for result in results {
            let refused = result.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{key}: {refused}");
            assert!(refused.to_string().contains("`names: escaped`"), "{refused}");
        }
    }
    let long = vec![b'k'; 1025];
    assert_eq!(store.get(&long).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_put_keeps_what_the_object_has_beside_its_content() {
    use ::object_store::Attribute;
    let service = Arc::new(Faulty::default());
    let attributes: ::object_store::Attributes = [
        (Attribute::ContentType, "text/html"),
        (Attribute::CacheControl, "max-age=60"),
        (Attribute::ContentEncoding, "gzip"),
        (Attribute::Metadata("owner".into()), "me"),
    ]
    .into_iter()
    .collect();
    let kept = async |name: &str| service.inner.get(&name.into()).await.unwrap().attributes;
    let make = async |name: &str| {
        let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
        service.inner.put_opts(&name.into(), "old".into(), options).await.unwrap();
    };
    make("page").await;
    make("large").await;
    let store = over(&service, &config()).await.unwrap();
    let _ = store.put("page", "new").await.unwrap();
    let _ = store.put("large", vec![1; 17 << 20]).await.unwrap();
    assert_eq!((kept("page").await, kept("large").await), (attributes.clone(), attributes.clone()));
    assert_eq!(store.get(b"page").await.unwrap(), Some("new".into()));

    let dropping = ObjectConfig { keep_attributes: false, ..config() };
    let _ = over(&service, &dropping).await.unwrap().put("page", "newer").await.unwrap();
    assert!(kept("page").await.is_empty());
}

/// What lies before an object that cannot be read is given first, so that a reader can go on behind it.
#[tokio::test]
async fn a_scan_stops_at_what_it_cannot_read_and_not_before() {
    let config = ObjectConfig { names: Names::Plain, ..config() };
    let service = Arc::new(Faulty::default());
    put(&service, &["a", "b", "b\\x", "c", "d"]).await;
    service.lies_about.set("c".into()).unwrap();
    let store = over(&service, &config).await.unwrap();
    for (scan, first, second) in [
        (Scan::all(), vec!["a", "b", "b\\x"], vec!["d"]),
        (Scan::all().reverse(), vec!["d"], vec!["b\\x", "b", "a"]),
    ] {
        let mut pages = store.scan(scan.clone());
        let mut keys = Vec::new();
        let failed = loop {
            match pages.next().await.unwrap() {
                Ok(page) => keys.extend(page.entries.into_iter().map(|entry| entry.key)),
                Err(error) => break error,
            }
        };
        assert_eq!(keys, first);
        assert!(failed.to_string().contains("listed and cannot be read"), "{failed}");
        let mut behind = scan;
        behind.resume_after("c");
        let rest = store.collect(behind).await.unwrap();
        assert_eq!(rest.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), second);
    }
}

/// A name that no key has is met only where it lies in the range.
#[tokio::test]
async fn a_name_of_no_key_matters_within_the_range_alone() {
    let service = Arc::new(Faulty::default());
    put(&service, &["a/1", "b c", "d/1"]).await;
    let store = over(&service, &config()).await.unwrap();
    for prefix in ["a/", "d"] {
        assert_eq!(store.collect(Scan::prefix(prefix)).await.unwrap().len(), 1, "{prefix}");
    }
    for scan in [Scan::all(), Scan::prefix("b")] {
        assert_eq!(store.collect(scan).await.unwrap_err().kind(), ErrorKind::Config);
    }
}

/// What the command does when it is asked to skip what cannot be read.
#[tokio::test]
async fn a_reader_can_go_on_around_names_of_no_key() {
    use std::ops::Bound;
    let service = Arc::new(Faulty::default());
    let good = ["a", "a&", "a-b", "b", "b/c", "d"];
    let names = [" x", "a b", "a c", "b c", "d é", "é"];
    put(&service, &good).await;
    put(&service, &names).await;
    let store = over(&service, &config()).await.unwrap();
    for scan in [Scan::all(), Scan::all().reverse(), Scan::prefix("a")] {
        let (mut ranges, mut keys, mut skipped) = (vec![scan.clone()], Vec::new(), 0);
        while let Some(range) = ranges.pop() {
            let mut pages = store.scan(range.clone());
            let mut failed = None;
            let mut some = Vec::new();
            while let Some(page) = pages.next().await {
                match page {
                    Ok(page) => some.extend(page.entries.into_iter().map(|entry| entry.key)),
                    Err(error) => failed = Some(error),
                }
            }
            let Some(error) = failed else {
                keys.extend(some);
                continue;
            };
            skipped += 1;
            let bad = bytes::Bytes::copy_from_slice(error.key().unwrap());
            assert!(range.contains(&bad));
            let (mut before, mut behind) = (range.clone(), range);
            before.to = Bound::Excluded(bad.clone());
            behind.from = Bound::Excluded(bad);
            let reverse = scan.order == crate::types::Order::Reverse;
            let both = if reverse { [before, behind] } else { [behind, before] };
            ranges.extend(both);
        }
        let mut wanted: Vec<_> =
            good.into_iter().filter(|key| scan.contains(key.as_bytes())).collect();
        if scan.order == crate::types::Order::Reverse {
            wanted.reverse();
        }
        assert_eq!(keys, wanted, "{scan:?}");
        let foreign = names.into_iter().filter(|name| scan.contains(name.as_bytes()));
        assert_eq!(skipped, foreign.count());
    }
}

/// The requests that a scan makes, of objects and of listings, and what it gives.
async fn requests(service: &Faulty, store: &Object, scan: Scan) -> ([usize; 2], usize) {
    let now = || [&service.gets, &service.listings].map(|count| count.load(Ordering::Relaxed));
    let before = now();
    let found = store.collect(scan).await.unwrap().len();
    let after = now();
    ([after[0] - before[0], after[1] - before[1]], found)
}

#[tokio::test]
async fn a_scan_of_keys_only_asks_for_no_object() {
    let service = Arc::new(Faulty::default());
    let store = over(&service, &config()).await.unwrap();
    for n in 0..100 {
        let _ = store.put(format!("{n:03}"), vec![b'v'; n * 1000]).await.unwrap();
    }
    for scan in [Scan::all(), Scan::all().reverse(), Scan::prefix("05").page_entries(3)] {
        let (asked, found) = requests(&service, &store, scan.clone()).await;
        assert_eq!(asked[0], found, "{scan:?}");
        let (keys_asked, keys_found) = requests(&service, &store, scan.clone().keys_only()).await;
        assert_eq!((keys_asked, keys_found), ([0, asked[1]], found), "{scan:?}");
        // Sizes of values, as the listing tells them, end no page.
        let scan = scan.page_bytes(1000).page_entries(1000).keys_only();
        assert_eq!(store.scan(scan).count().await, 1);
    }
}

#[tokio::test]
async fn a_store_that_is_opened_to_read_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let context =
        Context { may_create: false, folder: folder.path().to_owned(), ..Context::default() };
    let missing = ObjectConfig::new("a/missing");
    let refused = Object::open(&missing, &context).await.unwrap_err();
    assert!(refused.to_string().contains("missing"), "{refused}");
    assert!(!folder.path().join("a").exists());
    // A bucket to which nothing may be written, not even to try conditions out.
    let service = Arc::new(Faulty { read_only: true, ..Faulty::default() });
    put(&service, &["a"]).await;
    let config = ObjectConfig { conditional_values: true, ..config() };
    let (repeating, once) = (Arc::clone(&service) as Arc<dyn ObjectStore>, service as _);
    let client = Client::new(repeating, once, false);
    let store = Object::over(client, config.opening(&context).await.unwrap()).await.unwrap();
    assert_eq!(store.get(b"a").await.unwrap(), Some("v".into()));
}

#[test]
fn the_identity_is_that_of_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context { folder: folder.path().to_owned(), ..Context::default() };
    let of = |config: &ObjectConfig| {
        let opening = config.opening(&context).now_or_never();
        opening.unwrap().unwrap().identity.unwrap()
    };
    let at = |url: &str| of(&ObjectConfig::new(url));
    let with = |options: &[(&str, &str)]| {
        let mut config = ObjectConfig::new("s3://acme/orders");
        for (name, value) in options {
            config.options.insert((*name).to_owned(), (*value).into());
        }
        of(&config)
    };
    assert_eq!(at("s3://acme/orders/"), at("s3://acme/orders"));
    assert_ne!(at("s3://acme/orders"), at("s3://acme/other"));
    assert_ne!(at("s3://acme/orders"), at("gs://acme/orders"));
    assert_ne!(with(&[("endpoint", "https://s3.example.org")]), at("s3://acme/orders"));
    assert_eq!(
        with(&[("endpoint", "https://s3.example.org"), ("region", "x")]),
        with(&[("aws_endpoint_url", "https://S3.example.org/")]),
    );
    let plain = ObjectConfig { names: Names::Plain, ..ObjectConfig::new("s3://acme/orders") };
    assert_ne!(of(&plain), at("s3://acme/orders"), "its names are other keys");
    assert_ne!(at("memory://"), at("memory://"));
    std::fs::create_dir(folder.path().join("a")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        assert_eq!(at("a"), at("./link"));
    }
    assert_ne!(at("a"), at("b"));
}

/// Of those that write on the value that they have read, one wins.
#[tokio::test]
async fn a_value_is_changed_only_where_it_is_still_the_one_that_was_read() {
    let service = Arc::new(Faulty::default());
    let client = Client::new(Arc::clone(&service) as Arc<dyn ObjectStore>, service as _, true);
    let change = async |from: &str, to: &str| {
        let from = from.to_owned();
        let to = bytes::Bytes::copy_from_slice(to.as_bytes());
        crate::objects::Objects::change(&client, "k", from.as_bytes(), Some(to)).await.unwrap()
    };
    assert!(!change("", "1").await, "it is not there");
    crate::objects::Objects::put(&client, "k", "1".into()).await.unwrap();
    assert!(!change("2", "3").await);
    let racers = (0..8).map(|_| change("1", "2"));
    let won = futures_util::future::join_all(racers).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}
