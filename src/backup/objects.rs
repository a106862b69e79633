//! The few operations on an object store that a repository needs, with this crate's errors.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};

use super::documents::{Capabilities, Hash, random_id};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::objects::{kind_of, lacks_a_bucket};

#[derive(Clone, Debug)]
pub(super) struct Objects(pub(super) Arc<dyn ObjectStore>);

/// Whose object is under a name after an attempt to create it.
pub(super) enum Created {
    Ours,
    Theirs,
}

/// What is read whole is never larger: 4 GiB of manifest list more than a petabyte.
const MAX_DOCUMENT: u64 = 4 << 30;
/// How often creating is tried while nobody's object appears under the name.
const ATTEMPTS: usize = 3;
/// Writers of a race, and races, when a store is probed.
const RACERS: usize = 8;
const RACES: usize = 3;

impl Objects {
    pub(super) async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let Some(object) = found(self.0.get(path).await, "reading", path)? else { return Ok(None) };
        if object.meta.size > MAX_DOCUMENT {
            return Err(Error::corruption(format!(
                "{path} has {} bytes, more than any document of a repository",
                object.meta.size
            )));
        }
        found(object.bytes().await, "reading", path)
    }

    pub(super) async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes> {
        let (length, end) = (range.end - range.start, range.end);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let read = async { self.0.get_opts(path, options).await?.bytes().await };
        let too_short = || Error::corruption(format!("{path} ends too early"));
        match found(read.await, "reading", path) {
            Ok(Some(bytes)) if bytes.len() as u64 == length => Ok(bytes),
            Ok(Some(_)) => Err(too_short()),
            Ok(None) => Err(missing(path)),
            // A range behind the end is told like any other failure.
            Err(error) => match self.size(path).await? {
                Some(size) if size < end => Err(too_short()),
                _ => Err(error),
            },
        }
    }

    pub(super) async fn size(&self, path: &Path) -> Result<Option<u64>> {
        Ok(found(self.0.head(path).await, "looking for", path)?.map(|meta| meta.size))
    }

    /// Writes an object whose name is a hash of its content: doing it twice changes nothing, and
    /// repairs what was damaged.
    #[tracing::instrument(name = "upload", level = "debug", skip_all, fields(bytes = bytes.len()))]
    pub(super) async fn put_content(&self, path: &Path, bytes: Bytes) -> Result<()> {
        let written = self.0.put(path, PutPayload::from_bytes(bytes)).await;
        written.map(|_| ()).map_err(|error| translate(error, "writing", path))
    }

    /// Creates an object that nobody else writes with the same bytes (it holds an identifier drawn at
    /// random), and says whose is there.
    ///
    /// After an error the object may have been created all the same: a retry inside the client then
    /// says that it exists, a timeout says nothing. And S3's "409 conflict" is told as existing even
    /// where nothing does. So only reading it back decides.
    pub(super) async fn create(&self, path: &Path, bytes: &Bytes) -> Result<Created> {
        let mut failure = Error::internal("nothing was tried");
        for _ in 0..ATTEMPTS {
            let put = self.0.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await;
            failure = match put {
                Ok(_) => return Ok(Created::Ours),
                Err(error) => translate(error, "creating", path),
            };
            if !matches!(
                failure.kind(),
                ErrorKind::Conflict | ErrorKind::Timeout | ErrorKind::Unavailable
            ) {
                break;
            }
            match self.get(path).await? {
                Some(found) if found == bytes => return Ok(Created::Ours),
                Some(_) => return Ok(Created::Theirs),
                None => {}
            }
        }
        Err(failure)
    }

    /// The keyed hash of an object, which is never whole in memory.
    pub(super) async fn keyed_hash(&self, path: &Path, key: &Hash) -> Result<Option<Hash>> {
        let Some(object) = found(self.0.get(path).await, "reading", path)? else { return Ok(None) };
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        let mut parts = object.into_stream();
        while let Some(part) = parts.next().await {
            let Some(part) = found(part, "reading", path)? else { return Ok(None) };
            hasher.update(&part);
        }
        Ok(Some(Hash(*hasher.finalize().as_bytes())))
    }

    /// Everything below a folder. Only for verifying, and once when a repository is created: what is
    /// listed may be out of date.
    pub(super) fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta>> {
        let path = Path::from(folder);
        let listed = self.0.list(Some(&path));
        listed.map_err(move |error| translate(error, "listing", &path)).boxed()
    }

    /// Whether the store keeps the guarantee that everything rests on: of several clients that create an object,
    /// one wins and the others learn that they lost. Some servers ignore the condition and overwrite,
    /// some check it without a lock, so it is tried out, also in a race.
    pub(super) async fn probe(&self) -> Result<Capabilities> {
        let folder = format!("probe/{}", random_id()?);
        let mut tried = Vec::new();
        let create = self.probe_create(&folder, &mut tried).await;
        let update = self.probe_update(&folder, &mut tried).await;
        for path in tried {
            // What stays behind is harmless and small.
            let _ = self.0.delete(&path).await;
        }
        create?;
        Ok(Capabilities { create: true, update })
    }

    async fn probe_create(&self, folder: &str, tried: &mut Vec<Path>) -> Result<()> {
        let path = Path::from(format!("{folder}/twice"));
        tried.push(path.clone());
        let create = |path: Path, body: String| async move {
            self.0.put_opts(&path, body.into(), PutMode::Create.into()).await
        };
        create(path.clone(), "first".into())
            .await
            .map_err(|error| translate(error, "trying out conditional create with", &path))?;
        if create(path.clone(), "second".into()).await.is_ok()
            || self.get(&path).await?.as_deref() != Some(b"first")
        {
            return Err(no_create("it overwrote an object that it was asked only to create"));
        }
        for race in 0..RACES {
            let path = Path::from(format!("{folder}/race-{race}"));
            tried.push(path.clone());
            let racers = (0..RACERS).map(|racer| create(path.clone(), racer.to_string()));
            let results = futures_util::future::join_all(racers).await;
            let winners: Vec<_> = (0..RACERS)
                .zip(&results)
                .filter(|(_, result)| result.is_ok())
                .map(|(racer, _)| racer.to_string())
                .collect();
            let stands = self.get(&path).await?;
            match winners.as_slice() {
                [winner] if stands.as_deref() == Some(winner.as_bytes()) => {}
                // All were told to lose, or one whose answer got lost has won: no guarantee is broken.
                [] => {}
                _ => {
                    return Err(no_create(&format!(
                        "of {RACERS} writers that created one object at a time, {} were told that \
                         they had",
                        winners.len()
                    )));
                }
            }
        }
        Ok(())
    }

    async fn probe_update(&self, folder: &str, tried: &mut Vec<Path>) -> bool {
        let path = Path::from(format!("{folder}/update"));
        tried.push(path.clone());
        let Ok(first) = self.0.put(&path, "first".into()).await else { return false };
        let version = UpdateVersion { e_tag: first.e_tag, version: first.version };
        let update = |body: &'static str| {
            let options = PutOptions::from(PutMode::Update(version.clone()));
            let path = &path;
            async move { self.0.put_opts(path, body.into(), options).await }
        };
        // The second finds a version that is gone.
        update("second").await.is_ok() && update("third").await.is_err()
    }
}

fn no_create(what: &str) -> Error {
    Error::unsupported(format!(
        "this object store cannot keep two writers apart: {what}. A repository needs conditional \
         create (If-None-Match: *) that is atomic, as on Amazon S3, Google Cloud Storage, Azure, \
         Ceph or a folder; use another place"
    ))
    .with_operation(Operation::Backup)
}

fn found<T>(result: object_store::Result<T>, what: &str, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(translate(error, what, path)),
    }
}

/// An object that must be there is not.
pub(super) fn missing(path: &Path) -> Error {
    Error::corruption(format!("{path} is missing")).with_operation(Operation::Backup)
}

pub(super) fn translate(error: object_store::Error, what: &str, path: &Path) -> Error {
    if lacks_a_bucket(&error) {
        let message = "the bucket does not exist; create it, or correct the name";
        return Error::invalid(message).with_source(error).with_operation(Operation::Backup);
    }
    Error::new(kind_of(&error), format!("{what} {path} failed"))
        .with_source(error)
        .with_operation(Operation::Backup)
}
