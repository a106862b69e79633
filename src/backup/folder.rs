//! A folder as the place of a repository.
//!
//! `object_store` knows folders, and does everything here but writing: it makes files and folders that
//! others may read, and a backup holds all that the store holds. What is made here is for its owner
//! alone, and it is on the disk, with its name and those of the folders above, before it counts.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::path::Path as FilePath;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as TheirResult,
};

use crate::error::{Error, Result};
use crate::filesystem::stage;
use crate::spelling::check_folder;

/// Opens a folder. `create` makes it where it is missing.
pub(super) fn open(path: &FilePath, create: bool) -> Result<Arc<dyn ObjectStore>> {
    let context = |what: &str| format!("the folder {what}");
    if create {
        make(path).map_err(|error| Error::io(context("cannot be created"), error))?;
    }
    check_folder("the folder", path)?;
    let folder = LocalFileSystem::new_with_prefix(path)
        .map_err(|error| Error::config(context("cannot hold objects")).with_source(error))?;
    Ok(Arc::new(Folder(folder.with_fsync(true))))
}

/// Makes a folder and those above it that are missing, and brings their names to the disk.
fn make(path: &FilePath) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = above(path);
    make(above)?;
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => sync(above),
        // Another was faster.
        Err(_) if path.is_dir() => Ok(()),
        // Not to be taken for the object.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::ErrorKind::NotADirectory.into())
        }
        Err(error) => Err(error),
    }
}

fn above(path: &FilePath) -> &FilePath {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => FilePath::new("."),
    }
}

/// Brings the names in a folder to the disk.
fn sync(folder: &FilePath) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        // A folder above may be open for passing through only.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file, which appears whole or not at all. With `create` it must not exist.
fn write(path: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let folder = above(path);
    make(folder)?;
    let (mut file, staged) = stage(path)?;
    let written = (payload.iter().try_for_each(|part| file.write_all(part)))
        .and_then(|()| file.sync_all())
        .and_then(|()| match create {
            true => fs::hard_link(&staged, path),
            false => fs::rename(&staged, path),
        });
    if create || written.is_err() {
        // What stays behind is never listed.
        let _ = fs::remove_file(&staged);
    }
    written?;
    sync(folder).inspect_err(|_| {
        if create {
            // Read back, it would pass for what is on the disk.
            let _ = fs::remove_file(path);
        }
    })
}

#[derive(Debug)]
struct Folder(LocalFileSystem);

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Folder {
    /// A repository is written by `put_opts` alone.
    fn no(&self, operation: &str) -> object_store::Error {
        object_store::Error::NotImplemented {
            operation: operation.to_owned(),
            implementer: self.to_string(),
        }
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> TheirResult<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            // A folder cannot, and the error says so.
            PutMode::Update(_) => return self.0.put_opts(location, payload, options).await,
        };
        let path = self.0.path_to_filesystem(location)?;
        let written = tokio::task::spawn_blocking(move || write(&path, &payload, create)).await?;
        match written {
            Ok(()) => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
            Err(error) if create && error.kind() == io::ErrorKind::AlreadyExists => {
                let path = location.to_string();
                Err(object_store::Error::AlreadyExists { path, source: error.into() })
            }
            Err(error) => {
                Err(object_store::Error::Generic { store: "folder", source: error.into() })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> TheirResult<Box<dyn MultipartUpload>> {
        Err(self.no("put_multipart_opts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> TheirResult<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, TheirResult<Path>>,
    ) -> BoxStream<'static, TheirResult<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, TheirResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> TheirResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> TheirResult<()> {
        Err(self.no("copy_opts"))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use futures_util::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    fn mode(path: &FilePath) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn what_is_made_is_for_its_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("a/b");
        assert!(open(&root, false).is_err() && !root.exists());
        let folder = open(&root, true).unwrap();
        folder.put(&"c/d/file".into(), "1".into()).await.unwrap();
        folder.put(&"c/d/file".into(), "22".into()).await.unwrap();
        let created = folder.put_opts(&"c/new".into(), "3".into(), PutMode::Create.into()).await;
        created.unwrap();
        let again = folder.put_opts(&"c/new".into(), "4".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })));

        for name in ["a", "a/b", "a/b/c", "a/b/c/d"] {
            assert_eq!(mode(&place.path().join(name)), 0o700, "{name}");
        }
        for (name, content) in [("c/d/file", "22"), ("c/new", "3")] {
            assert_eq!(mode(&root.join(name)), 0o600, "{name}");
            assert_eq!(folder.get(&name.into()).await.unwrap().bytes().await.unwrap(), content);
        }
        let names = |path: &FilePath| fs::read_dir(path).unwrap().count();
        assert_eq!(
            (names(&root.join("c")), names(&root.join("c/d"))),
            (2, 1),
            "nothing stays behind"
        );
    }

    #[tokio::test]
    async fn a_writer_that_was_cut_off_is_in_nobodys_way() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path(), false).unwrap();
        fs::write(root.path().join("file#1"), "half").unwrap();
        folder.put_opts(&"file".into(), "1".into(), PutMode::Create.into()).await.unwrap();
        let listed: Vec<_> = folder.list(None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(fs::read(root.path().join("file")).unwrap(), b"1");
    }

    #[tokio::test]
    async fn what_stands_in_the_way_is_an_error_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path(), false).unwrap();
        fs::write(root.path().join("data"), "mine").unwrap();
        assert!(folder.put(&"data/x".into(), "1".into()).await.is_err());
        assert!(open(&root.path().join("data/x"), true).is_err());
        assert_eq!(fs::read(root.path().join("data")).unwrap(), b"mine");
    }
}
