//! Objects that are files of a folder, which may go away under an open store: a disk is taken out, a folder is moved
//! or replaced. A file that is not found is absent only while the folder is the one that was opened.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::service::{Listed, Objects};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::filesystem;

/// The files of a folder.
pub(super) struct InFolder {
    objects: Arc<dyn Objects>,
    folder: Arc<Folder>,
}

struct Folder {
    path: PathBuf,
    opened: Option<Is>,
}

/// What tells a folder from others, as far as the system says.
type Is = Option<[String; 3]>;

impl InFolder {
    pub(super) fn new(objects: Arc<dyn Objects>, path: PathBuf) -> Self {
        let opened = what_is(&path);
        Self { objects, folder: Arc::new(Folder { path, opened }) }
    }
}

/// `None`: there is no folder.
fn what_is(path: &PathBuf) -> Option<Is> {
    let about = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
    Some(filesystem::identity(&about))
}

impl Folder {
    /// Fails where the folder is gone. Nothing was done.
    async fn check(self: &Arc<Self>) -> Result<()> {
        let folder = Arc::clone(self);
        let is_there = move || folder.opened.is_some() && what_is(&folder.path) == folder.opened;
        match tokio::task::spawn_blocking(is_there).await {
            Ok(true) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                "the folder is not the one that was opened: it was moved, removed or replaced, or its disk is gone; bring it back, or open the store again",
            )
            .with_outcome(Outcome::Nothing)),
        }
    }
}

#[async_trait]
impl Objects for InFolder {
    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let found = self.objects.get(name).await?;
        if found.is_none() {
            self.folder.check().await?;
        }
        Ok(found)
    }

    async fn put(&self, name: &str, value: Bytes) -> Result<()> {
        self.folder.check().await?;
        self.objects.put(name, value).await
    }

    async fn create(&self, name: &str, value: Bytes) -> Result<bool> {
        self.folder.check().await?;
        self.objects.create(name, value).await
    }

    async fn change(&self, name: &str, from: &[u8], to: Option<Bytes>) -> Result<bool> {
        self.folder.check().await?;
        self.objects.change(name, from, to).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.folder.check().await?;
        self.objects.delete(name).await
    }

    /// The end of a listing that came to nothing more is looked at.
    fn list(&self, after: Option<&str>) -> BoxStream<'static, Result<Listed>> {
        let folder = Arc::clone(&self.folder);
        let end = futures_util::stream::once(async move { folder.check().await });
        let end = end.filter_map(|checked| std::future::ready(checked.err().map(Err)));
        self.objects.list(after).chain(end).boxed()
    }
}
