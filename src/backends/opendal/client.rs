//! OpenDAL's operator as a service of named objects.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::opendal::layers::{RetryLayer, TimeoutLayer};
use ::opendal::options::WriteOptions;
use ::opendal::{Buffer, Entry, ErrorKind as Theirs, Metadata, Operator};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::RwLock;

use super::config::OpenDalConfig;
use super::services::{Service, memcached_bytes};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Context;
use crate::objects::{Listed, MAX_VALUE_BYTES, Objects, too_large};

/// Parts of a large value, and how many of them are on their way at a time.
const PART_BYTES: usize = 8 << 20;
const PARTS: usize = 4;
/// From here on a value is written in parts, where the service takes them.
const LARGE_BYTES: usize = 2 * PART_BYTES;
/// Tries of a request in all.
const TRIES: usize = 3;
/// Before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Client {
    repeating: Operator,
    /// Repeats nothing: a create that is repeated may meet its own object, and a read that is taken up again
    /// in the middle may put two values together.
    once: Operator,
    /// For a service whose connections do not survive a request that is dropped: OpenDAL gives them back to
    /// its pool, and the next request on them gets the answer to the former. So requests are never dropped,
    /// and this is how long is waited for them.
    deadline: Option<Duration>,
    /// Whether a request that is dropped in the middle leaves nothing behind.
    whole: bool,
    /// Whether a file can be written next to its place first.
    may_put: bool,
    /// Whether a put keeps what the object has in addition to its content.
    keep_attributes: bool,
    /// For a service that shows a file while it is written: a reader of a name waits here for its writer.
    /// What other processes write is theirs to look after.
    turns: Vec<Arc<RwLock<()>>>,
    clock: Arc<dyn Clock>,
}

/// Names share them.
const TURNS: usize = 64;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("scheme", &self.once.info().scheme()).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(
        operator: Operator,
        service: &Service,
        config: &OpenDalConfig,
        context: &Context,
    ) -> Self {
        let (timeout, clock) = (config.timeout.0, Arc::clone(&context.clock));
        let deadline = (operator.info().scheme() == "memcached").then_some(timeout);
        let once = match deadline {
            Some(_) => operator,
            None => {
                operator.layer(TimeoutLayer::new().with_timeout(timeout).with_io_timeout(timeout))
            }
        };
        // Outside the deadline, so that each try has its own.
        let retry = RetryLayer::new().with_max_times(TRIES - 1).with_min_delay(PAUSE).with_jitter();
        let turns = if service.in_place { TURNS } else { 0 };
        let turns = (0..turns).map(|_| Arc::default()).collect();
        Self {
            repeating: once.clone().layer(retry),
            once,
            deadline,
            whole: service.whole,
            may_put: context.may_create || service.scheme != "fs",
            keep_attributes: config.keep_attributes && service.place == Some("bucket"),
            turns,
            clock,
        }
    }

    fn turn(&self, name: &str) -> Option<&Arc<RwLock<()>>> {
        let hash = name
            .bytes()
            .fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.turns.get(hash % TURNS)
    }

    /// To its end, also when no task waits any more, where half a request is not as good as none.
    async fn undisturbed<T: Send + 'static>(
        &self,
        request: impl Future<Output = ::opendal::Result<T>> + Send + 'static,
    ) -> ::opendal::Result<T> {
        if self.whole {
            return request.await;
        }
        self.to_its_end(request).await
    }

    async fn to_its_end<T: Send + 'static>(
        &self,
        request: impl Future<Output = ::opendal::Result<T>> + Send + 'static,
    ) -> ::opendal::Result<T> {
        let failed = |what| ::opendal::Error::new(Theirs::Unexpected, what);
        let mut request = tokio::spawn(request);
        let ended = match self.deadline {
            None => request.await,
            Some(deadline) => match select(&mut request, self.clock.sleep(deadline)).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => return Err(failed("timeout")),
            },
        };
        ended.unwrap_or_else(|error| Err(failed("the task ended").set_source(error)))
    }

    /// `None`: the object is larger than any value.
    async fn read(&self, name: &str) -> ::opendal::Result<Option<Bytes>> {
        let _turn = match self.turn(name) {
            Some(turn) => Some(turn.read().await),
            None => None,
        };
        if self.deadline.is_none() {
            return read(&self.once, name).await;
        }
        let (operator, name) = (self.once.clone(), name.to_owned());
        self.to_its_end(async move { read(&operator, &name).await }).await
    }

    /// What an object has in addition to its content, as far as the service tells and takes it.
    async fn attributes(&self, name: &str) -> ::opendal::Result<WriteOptions> {
        if !self.keep_attributes {
            return Ok(WriteOptions::default());
        }
        match self.repeating.stat(name).await {
            Ok(object) => Ok(attributes(&self.repeating, &object)),
            Err(error) if is_missing(&error) => Ok(WriteOptions::default()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, name: &str, value: Bytes) -> ::opendal::Result<()> {
        let operator = &self.repeating;
        let options = self.attributes(name).await?;
        let in_parts = value.len() > LARGE_BYTES && operator.info().capability().write_can_multi;
        if self.whole && !in_parts {
            return operator.write_options(name, value, options).await.map(drop);
        }
        let turn = self.turn(name).cloned();
        let (operator, name) = (operator.clone(), name.to_owned());
        self.to_its_end(async move {
            let _turn = match turn {
                Some(turn) => Some(turn.write_owned().await),
                None => None,
            };
            if in_parts {
                write_parts(operator, &name, value, options).await
            } else {
                operator.write_options(&name, value, options).await.map(drop)
            }
        })
        .await
    }

    /// OpenDAL takes the white space off the ends of a path.
    fn check<'n>(&self, name: &'n str) -> Result<&'n str> {
        if name.trim() != name {
            return Err(Error::invalid(
                "a key with white space at an end cannot be a name here; `names: escaped` takes any key",
            ));
        }
        if self.deadline.is_some() {
            let root = self.once.info().root();
            if memcached_bytes(root.trim_matches('/')) + 1 + memcached_bytes(name) > 250 {
                return Err(Error::invalid("the key is too long for memcached once it is escaped"));
            }
        }
        Ok(name)
    }
}

async fn read(operator: &Operator, name: &str) -> ::opendal::Result<Option<Bytes>> {
    let mut pieces = operator.reader(name).await?.into_stream(..).await?;
    let (mut value, mut bytes) = (Vec::new(), 0);
    while let Some(piece) = pieces.try_next().await? {
        bytes += piece.len() as u64;
        if bytes > MAX_VALUE_BYTES {
            return Ok(None);
        }
        value.push(piece);
    }
    Ok(Some(value.into_iter().flatten().collect::<Buffer>().to_bytes()))
}

fn attributes(operator: &Operator, object: &Metadata) -> WriteOptions {
    let can = operator.info().capability();
    let text = |can: bool, text: Option<&str>| text.filter(|_| can).map(str::to_owned);
    let user = object.user_metadata().filter(|_| can.write_with_user_metadata).map(|metadata| {
        metadata.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    });
    WriteOptions {
        content_type: text(can.write_with_content_type, object.content_type()),
        content_encoding: text(can.write_with_content_encoding, object.content_encoding()),
        content_disposition: text(can.write_with_content_disposition, object.content_disposition()),
        cache_control: text(can.write_with_cache_control, object.cache_control()),
        user_metadata: user,
        ..WriteOptions::default()
    }
}

async fn write_parts(
    operator: Operator,
    name: &str,
    value: Bytes,
    options: WriteOptions,
) -> ::opendal::Result<()> {
    let options = WriteOptions { chunk: Some(PART_BYTES), concurrent: PARTS, ..options };
    let mut writer = operator.writer_options(name, options).await?;
    let written = match writer.write(value).await {
        Ok(()) => writer.close().await.map(drop),
        failed => failed,
    };
    if written.is_err() {
        // What cannot be aborted stays unseen.
        let _ = writer.abort().await;
    }
    written
}

#[async_trait]
impl Objects for Client {
    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let mut tried = 1;
        loop {
            match self.read(self.check(name)?).await {
                Ok(Some(value)) => return Ok(Some(value)),
                Ok(None) => return Err(too_large()),
                Err(error) if is_missing(&error) => return Ok(None),
                Err(error) if error.is_temporary() && tried < TRIES => {
                    self.clock.sleep(PAUSE * (1 << (tried - 1))).await;
                    tried += 1;
                }
                Err(error) => return Err(redacted(&error, "reading")),
            }
        }
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<()> {
        if !self.may_put {
            return Err(Error::unsupported("the folder was opened to read only"));
        }
        if value.is_empty() && !self.once.info().capability().write_can_empty {
            return Err(Error::unsupported("this service takes no empty values"));
        }
        let written = self.write(self.check(name)?, value).await;
        written.map_err(|error| redacted(&error, "writing"))
    }

    async fn create(&self, name: &str, value: Bytes) -> Result<bool> {
        let (operator, name) = (self.once.clone(), self.check(name)?.to_owned());
        let writing = async move { operator.write_with(&name, value).if_not_exists(true).await };
        match self.undisturbed(writing).await {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    Theirs::ConditionNotMatch | Theirs::AlreadyExists | Theirs::Conflict
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(redacted(&error, "creating")),
        }
    }

    async fn change(&self, _: &str, _: &[u8], _: Option<Bytes>) -> Result<bool> {
        // OpenDAL removes nothing on a condition.
        Err(Error::unsupported("the service cannot compare values"))
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let (operator, name) = (self.repeating.clone(), self.check(name)?.to_owned());
        match self.undisturbed(async move { operator.delete(&name).await }).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(redacted(&error, "removing")),
        }
    }

    fn list(&self, after: Option<&str>) -> BoxStream<'static, Result<Listed>> {
        let (operator, after) = (self.repeating.clone(), after.map(str::to_owned));
        let listing = async move {
            let begins = operator.info().capability().list_with_start_after;
            let lister = operator.lister_with("/").recursive(true);
            let lister = match after.as_deref().filter(|_| begins) {
                Some(after) => lister.start_after(after).await?,
                None => lister.await?,
            };
            // Elsewhere what lies before is listed too.
            Ok(lister.try_filter(move |entry| {
                let wanted = after.as_deref().is_none_or(|after| entry.path() > after);
                std::future::ready(wanted && !is_mark(entry))
            }))
        };
        futures_util::stream::once(listing)
            .try_flatten()
            .map_ok(|entry: Entry| Listed { name: entry.path().to_owned(), size: size(&entry) })
            .map_err(|error: ::opendal::Error| redacted(&error, "listing"))
            .boxed()
    }
}

/// Whether it marks a folder. OpenDAL takes each object whose name ends in `/` for one, and tells no size of it,
/// but an `ETag`: that of an empty object, or of one that holds something.
fn is_mark(entry: &Entry) -> bool {
    const OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";
    let tag = entry.metadata().etag().map(|tag| tag.trim_matches('"'));
    entry.metadata().is_dir() && tag.is_none_or(|tag| tag.eq_ignore_ascii_case(OF_NOTHING))
}

/// Some listings tell no sizes, and OpenDAL then says 0.
fn size(entry: &Entry) -> Option<u64> {
    Some(entry.metadata().content_length()).filter(|size| *size > 0)
}

/// The object is missing, and the bucket is there. A folder is no entry.
fn is_missing(error: &::opendal::Error) -> bool {
    match error.kind() {
        Theirs::NotFound => !lacks_a_bucket(error),
        Theirs::IsADirectory | Theirs::NotADirectory => true,
        _ => is_a_folder(error),
    }
}

fn is_a_folder(error: &::opendal::Error) -> bool {
    use std::io::ErrorKind as Io;
    file_system(error).is_some_and(|kind| matches!(kind, Io::IsADirectory | Io::NotADirectory))
}

fn file_system(error: &::opendal::Error) -> Option<std::io::ErrorKind> {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
}

fn lacks_a_bucket(error: &::opendal::Error) -> bool {
    let text = error.to_string();
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]
        .iter()
        .any(|code| text.contains(code))
}

const BLOCKED: (ErrorKind, &str) = (
    ErrorKind::Conflict,
    "a folder is where the file should be, or a file where its folder should be",
);

/// OpenDAL's words name the object, which is the key, so they are not kept.
fn redacted(error: &::opendal::Error, doing: &str) -> Error {
    if lacks_a_bucket(error) {
        return Error::config("the bucket does not exist; create it, or correct `options`");
    }
    let timed_out = error.message().contains("timeout");
    let (kind, words) = match error.kind() {
        Theirs::PermissionDenied => {
            (ErrorKind::Access, "the service refuses access; check credentials and rights")
        }
        Theirs::Unsupported => (ErrorKind::Unsupported, "the service cannot do this"),
        Theirs::ConfigInvalid => {
            (ErrorKind::Config, "the service does not take the settings; check `options`")
        }
        Theirs::NotFound => {
            (ErrorKind::Config, "the place does not exist; create it, or correct `options`")
        }
        Theirs::RateLimited => (ErrorKind::Unavailable, "the service is busy; slow down"),
        Theirs::Conflict => (ErrorKind::Unavailable, "somebody else writes the same object now"),
        Theirs::IsADirectory | Theirs::NotADirectory => BLOCKED,
        _ if is_a_folder(error) => BLOCKED,
        _ if timed_out => (ErrorKind::Timeout, "the service did not answer within `timeout`"),
        _ => of_the_disk(error).unwrap_or((
            ErrorKind::Unavailable,
            "the service cannot be reached, is busy or failed",
        )),
    };
    Error::new(kind, format!("{doing}: {words}"))
}

/// A full disk, where the error is one of the file system.
fn of_the_disk(error: &::opendal::Error) -> Option<(ErrorKind, &'static str)> {
    let kind = file_system(error)?;
    match Error::io("", std::io::Error::from(kind)).kind() {
        ErrorKind::Capacity => Some((ErrorKind::Capacity, "the disk is full")),
        ErrorKind::Access => {
            Some((ErrorKind::Access, "the folder or the file system is read-only"))
        }
        _ => None,
    }
}
