//! A folder in which a file that takes the place of another gets what that had in addition to its content: owner, rights,
//! extended attributes. `object_store` does everything else.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path as FilePath;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::filesystem::file_metadata::Kept;
use crate::filesystem::stage;

#[derive(Clone, Debug)]
pub(super) struct Replacing(pub(super) LocalFileSystem);

impl fmt::Display for Replacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Replaces a file, wholly or not at all. `false`: there is none.
fn replace(path: &FilePath, payload: &PutPayload) -> io::Result<bool> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) if about.is_file() => about,
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let kept = Kept::of(&File::open(path)?, &about)?;
    let (mut file, staged) = stage(path)?;
    let written = payload
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| kept.give(&file))
        .and_then(|()| fs::rename(&staged, path));
    if written.is_err() {
        // What stays behind is never listed.
        let _ = fs::remove_file(&staged);
    }
    written.map(|()| true)
}

#[async_trait]
impl ObjectStore for Replacing {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Overwrite) {
            let (path, parts) = (self.0.path_to_filesystem(location)?, payload.clone());
            let replaced = tokio::task::spawn_blocking(move || replace(&path, &parts)).await?;
            let failed = |error: io::Error| {
                let path = location.to_string();
                match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        object_store::Error::PermissionDenied { path, source: error.into() }
                    }
                    _ => object_store::Error::Generic { store: "folder", source: error.into() },
                }
            };
            if replaced.map_err(failed)? {
                return Ok(PutResult {
                    e_tag: None,
                    version: None,
                    extensions: Default::default(),
                });
            }
        }
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let options = PutOptions { attributes: options.attributes, ..PutOptions::default() };
        Ok(Box::new(Parts {
            folder: self.clone(),
            location: location.clone(),
            options,
            parts: Vec::new(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// The parts of a value, which share its bytes.
#[derive(Debug)]
struct Parts {
    folder: Replacing,
    location: Path,
    options: PutOptions,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.parts.push(part);
        ready(Ok(())).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = self.parts.drain(..).flatten().collect();
        self.folder.put_opts(&self.location, payload, self.options.clone()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_keeps_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let objects = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let (bare, objects) = (objects.clone(), Replacing(objects));
        let path = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        for mode in [0o600, 0o640, 0o777] {
            fs::write(path("a"), "old").unwrap();
            fs::set_permissions(path("a"), fs::Permissions::from_mode(mode)).unwrap();
            objects.put(&"a".into(), "new".into()).await.unwrap();
            assert_eq!(fs::metadata(path("a")).unwrap().permissions().mode() & 0o777, mode);
            assert_eq!(fs::read(path("a")).unwrap(), b"new");
            let mut upload = objects.put_multipart(&"a".into()).await.unwrap();
            for part in ["in ", "parts"] {
                upload.put_part(part.into()).await.unwrap();
            }
            upload.complete().await.unwrap();
            assert_eq!(fs::metadata(path("a")).unwrap().permissions().mode() & 0o777, mode);
            assert_eq!(fs::read(path("a")).unwrap(), b"in parts");
        }
        objects.put(&"b/new".into(), "1".into()).await.unwrap();
        bare.put(&"c".into(), "1".into()).await.unwrap();
        assert_eq!(mode("b/new"), mode("c"), "as the umask says");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing stays behind");
    }
}
