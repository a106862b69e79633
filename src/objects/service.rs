//! What an object store is reduced to.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::names::PROBE;
use crate::error::{Error, ErrorKind, Result};

/// What a service of named objects can do. Errors hold no name.
#[async_trait]
pub(crate) trait Objects: Send + Sync + 'static {
    /// The object of that name.
    async fn get(&self, name: &str) -> Result<Option<Bytes>>;
    /// Sets the object of that name, visible once it is whole.
    async fn put(&self, name: &str, value: Bytes) -> Result<()>;
    /// Makes the object unless there is one. `false`: there is one, and nothing was written. Is never
    /// repeated by itself, as it might meet its own object.
    async fn create(&self, name: &str, value: Bytes) -> Result<bool>;
    /// Sets or removes the object, provided that it holds just this. `false`: it does not, and nothing was
    /// changed. Is never repeated by itself.
    async fn change(&self, name: &str, from: &[u8], to: Option<Bytes>) -> Result<bool>;
    /// Removes the object, if it is there.
    async fn delete(&self, name: &str) -> Result<()>;
    /// The objects whose names lie behind `after`, in the order of the service.
    fn list(&self, after: Option<&str>) -> BoxStream<'static, Result<Listed>>;
}

/// What a listing tells of an object.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// `None`: the listing does not tell.
    pub(crate) size: Option<u64>,
}

impl Listed {
    /// Whether it is no entry: a folder as consoles mark them, also the one that the store is in, or a probe.
    pub(super) fn is_mark(&self) -> bool {
        let is_folder = self.name.is_empty() || self.name.ends_with('/');
        self.size == Some(0) && is_folder || self.name.starts_with(PROBE)
    }
}

/// 5 GiB: a value is in memory as a whole.
pub(crate) const MAX_VALUE_BYTES: u64 = 5 << 30;

/// An object of others.
pub(crate) fn too_large() -> Error {
    Error::new(
        ErrorKind::Capacity,
        "reading: an object is larger than 5 GiB, the most that a value has",
    )
}
