//! `object_store` as a service of named objects.

use std::ops::Range;
use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{
    Attributes, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, UpdateVersion,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use crate::error::{Error, ErrorKind, Result};
use crate::objects::{
    Listed, MAX_VALUE_BYTES, Objects, lacks_a_bucket, redacted, to_name, to_path, too_large,
};

/// Parts of a large value, and how many of them are on their way at a time.
pub(super) const PART_BYTES: usize = 8 << 20;
const PARTS: usize = 4;
/// From here on a value is read and written in parts.
const LARGE_BYTES: usize = 2 * PART_BYTES;
/// How often a large value is read from its start again because it was replaced meanwhile.
const ATTEMPTS: usize = 5;

#[derive(Debug)]
pub(super) struct Client {
    repeating: Arc<dyn ObjectStore>,
    /// The same place without retries: a create that is repeated may meet its own object.
    once: Arc<dyn ObjectStore>,
    /// Whether a put keeps what the object has in addition to its content.
    keep_attributes: bool,
}

type Theirs = ::object_store::Error;

enum Read {
    Value(Bytes),
    /// The object was replaced meanwhile.
    Replaced,
    TooLarge,
}

impl Client {
    pub(super) fn new(
        repeating: Arc<dyn ObjectStore>,
        once: Arc<dyn ObjectStore>,
        keep_attributes: bool,
    ) -> Self {
        Self { repeating, once, keep_attributes }
    }

    async fn read(&self, path: &Path) -> ::object_store::Result<Read> {
        let object = self.repeating.get(path).await?;
        let size = object.meta.size;
        if size > MAX_VALUE_BYTES {
            return Ok(Read::TooLarge);
        }
        // A weak tag never matches.
        let tag = object.meta.e_tag.as_ref().filter(|tag| !tag.starts_with("W/"));
        let Some(tag) = tag.filter(|_| size > LARGE_BYTES as u64).cloned() else {
            return object.bytes().await.map(Read::Value);
        };
        drop(object);
        let parts = (0..size).step_by(PART_BYTES).map(|start| {
            let range = start..size.min(start + PART_BYTES as u64);
            self.read_part(path, range, tag.clone())
        });
        let mut parts = futures_util::stream::iter(parts).buffered(PARTS);
        let mut value = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        while let Some(part) = parts.next().await {
            match part {
                Ok(part) => value.extend_from_slice(&part),
                Err(Theirs::Precondition { .. }) => return Ok(Read::Replaced),
                Err(error) => return Err(error),
            }
        }
        Ok(Read::Value(value.into()))
    }

    async fn read_part(
        &self,
        path: &Path,
        range: Range<u64>,
        tag: String,
    ) -> ::object_store::Result<Bytes> {
        let options = GetOptions {
            if_match: Some(tag),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        self.repeating.get_opts(path, options).await?.bytes().await
    }

    /// On the condition that the object is still of the version that was compared.
    async fn change_at(
        &self,
        path: &Path,
        from: &[u8],
        to: Option<Bytes>,
    ) -> ::object_store::Result<bool> {
        let object = self.repeating.get(path).await?;
        if object.meta.size != from.len() as u64 {
            return Ok(false);
        }
        let version = UpdateVersion {
            e_tag: object.meta.e_tag.clone(),
            version: object.meta.version.clone(),
        };
        let attributes = if self.keep_attributes {
            with_class(object.attributes.clone(), &object.extensions)
        } else {
            Attributes::new()
        };
        if object.bytes().await? != from {
            return Ok(false);
        }
        match to {
            Some(value) => {
                let mode = PutMode::Update(version);
                let options = PutOptions { mode, attributes, ..PutOptions::default() };
                let payload = PutPayload::from_bytes(value);
                self.once.put_opts(path, payload, options).await?;
            }
            None => remove_if(version, self.once.delete(path)).await?,
        }
        Ok(true)
    }

    /// What an object has in addition to its content: its type, user metadata, class of storage. A put without them
    /// would take them away.
    async fn attributes(&self, path: &Path) -> ::object_store::Result<Attributes> {
        if !self.keep_attributes {
            return Ok(Attributes::new());
        }
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.repeating.get_opts(path, options).await {
            Ok(object) => Ok(with_class(object.attributes, &object.extensions)),
            Err(error) if is_missing(&error) => Ok(Attributes::new()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, path: &Path, value: Bytes) -> ::object_store::Result<()> {
        let attributes = self.attributes(path).await?;
        if value.len() > LARGE_BYTES {
            return self.write_parts(path, &value, attributes).await;
        }
        let options = PutOptions { attributes, ..PutOptions::default() };
        self.repeating.put_opts(path, PutPayload::from_bytes(value), options).await.map(drop)
    }

    async fn write_parts(
        &self,
        path: &Path,
        value: &Bytes,
        attributes: Attributes,
    ) -> ::object_store::Result<()> {
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let mut upload = Unfinished(Some(self.repeating.put_multipart_opts(path, options).await?));
        let Some(parts) = upload.0.as_mut() else { return Ok(()) };
        let parts: Vec<_> = (0..value.len())
            .step_by(PART_BYTES)
            .map(|start| value.slice(start..value.len().min(start + PART_BYTES)))
            .map(|part| parts.put_part(PutPayload::from_bytes(part)))
            .collect();
        let sent: Result<(), _> =
            futures_util::stream::iter(parts).buffer_unordered(PARTS).try_collect().await;
        if let (Ok(()), Some(all)) = (&sent, upload.0.as_mut()) {
            let _ = all.complete().await?;
            upload.0 = None;
        }
        sent
    }
}

/// An upload in parts, aborted when it fails or is dropped.
struct Unfinished(Option<Box<dyn MultipartUpload>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                // What cannot be aborted stays unseen, for the bucket's lifecycle rule.
                let _ = upload.abort().await;
            });
        }
    }
}

/// Which names there can be, the [naming](crate::objects::Naming) knows.
fn path(name: &str) -> Result<Path> {
    Path::parse(to_path(name)).map_err(|_| Error::invalid("the key cannot be a name here"))
}

#[cfg(feature = "cloud")]
use crate::objects::only_if as remove_if;

#[cfg(not(feature = "cloud"))]
async fn remove_if(
    _: UpdateVersion,
    _: impl Future<Output = ::object_store::Result<()>>,
) -> ::object_store::Result<()> {
    Err(Theirs::NotImplemented {
        operation: "a conditional removal".into(),
        implementer: "".into(),
    })
}

/// The client tells of the class of storage only to those that wrote for its wire.
#[cfg(feature = "cloud")]
fn with_class(mut attributes: Attributes, extensions: &::object_store::Extensions) -> Attributes {
    use ::object_store::Attribute;
    if let Some(class) = extensions.get::<crate::objects::StorageClass>() {
        let _ = attributes.insert(Attribute::StorageClass, class.0.clone().into());
    }
    attributes
}

#[cfg(not(feature = "cloud"))]
fn with_class(attributes: Attributes, _: &::object_store::Extensions) -> Attributes {
    attributes
}

#[async_trait]
impl Objects for Client {
    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let path = path(name)?;
        for _ in 0..ATTEMPTS {
            match self.read(&path).await {
                Ok(Read::Value(value)) => return Ok(Some(value)),
                Ok(Read::Replaced) => {}
                Ok(Read::TooLarge) => return Err(too_large()),
                Err(error) if is_missing(&error) => return Ok(None),
                Err(error) => return Err(redacted(&error, "reading an object")),
            }
        }
        let message = "a large value was replaced again and again while it was read";
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<()> {
        self.write(&path(name)?, value).await.map_err(|error| match error {
            // Completed before, by a try whose answer got lost, or aborted by a rule of the bucket.
            Theirs::NotFound { .. } if !lacks_a_bucket(&error) => Error::new(
                ErrorKind::Unavailable,
                "writing an object: its upload in parts is gone, and may have taken effect",
            ),
            error => redacted(&error, "writing an object"),
        })
    }

    async fn create(&self, name: &str, value: Bytes) -> Result<bool> {
        let path = path(name)?;
        let payload = PutPayload::from_bytes(value);
        match self.once.put_opts(&path, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Theirs::AlreadyExists { .. } | Theirs::Precondition { .. }) => Ok(false),
            Err(error) => Err(redacted(&error, "creating an object")),
        }
    }

    async fn change(&self, name: &str, from: &[u8], to: Option<Bytes>) -> Result<bool> {
        let path = path(name)?;
        match self.change_at(&path, from, to).await {
            Ok(changed) => Ok(changed),
            Err(Theirs::AlreadyExists { .. } | Theirs::Precondition { .. }) => Ok(false),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(redacted(&error, "changing an object")),
        }
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.repeating.delete(&path(name)?).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(redacted(&error, "removing an object")),
        }
    }

    fn list(&self, after: Option<&str>) -> BoxStream<'static, Result<Listed>> {
        let listing = match after.and_then(|after| Path::parse(after).ok()) {
            Some(after) => self.repeating.list_with_offset(None, &after),
            None => self.repeating.list(None),
        };
        listing
            .map_err(|error| redacted(&error, "listing objects"))
            .and_then(|meta| {
                let size = Some(meta.size);
                let name = to_name(meta.location.into());
                let listed = name.map(|name| Listed { name, size });
                std::future::ready(
                    listed.ok_or_else(|| Error::internal("a listed name is malformed")),
                )
            })
            .boxed()
    }
}

/// The object is missing, and the bucket is there.
fn is_missing(error: &Theirs) -> bool {
    matches!(error, Theirs::NotFound { .. }) && !lacks_a_bucket(error)
}
