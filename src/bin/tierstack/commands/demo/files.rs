//! The real input: files of the machine, path → content.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use tierstack::{Error, Limits, Result};

use crate::failure::{Failure, Outcome};
use crate::output;

/// What the demo takes at most, so that it ends within minutes. It says when it leaves something out.
const MAX_BYTES: u64 = 512 << 20;
const MAX_FILE_BYTES: u64 = 16 << 20;
/// With `--quick`.
const QUICK_FILES: usize = 300;

/// One file.
pub(super) struct File {
    /// The path below the root.
    pub(super) key: Bytes,
    path: PathBuf,
    bytes: u64,
}

/// The files that are imported, in the order of their keys.
pub(super) struct Files {
    pub(super) files: Vec<File>,
    /// Where they come from, in words.
    pub(super) origin: String,
    pub(super) bytes: u64,
}

impl Files {
    /// Finds the files: of the folder that was asked for, or of the first that exists of cargo's
    /// registry and what most machines have.
    pub(super) fn find(asked: Option<&Path>, quick: bool) -> Outcome<Self> {
        if let Some(folder) = asked {
            return match Self::below(folder, quick)? {
                Some(files) => Ok(files),
                None => Err(Failure::usage(format!(
                    "{} holds no file; --files must name a folder with some",
                    folder.display()
                ))),
            };
        }
        let registry = registry();
        let others = ["/usr/share/doc", "/usr/include", "/usr/lib", "/etc"].map(PathBuf::from);
        for folder in registry.iter().chain(&others) {
            if let Ok(Some(mut files)) = Self::below(folder, quick) {
                if Some(folder) != registry.as_ref() {
                    files.origin += ", as cargo's registry holds no sources";
                }
                return Ok(files);
            }
        }
        Err(Failure::failed("there are no files to import")
            .next("name a folder with `--files DIR`"))
    }

    /// The files below a folder; `None` if there are none.
    fn below(folder: &Path, quick: bool) -> Outcome<Option<Self>> {
        let mut all = Vec::new();
        walk(folder, folder, &mut all).map_err(|error| {
            Error::io(format!("the folder {} cannot be read", folder.display()), error)
        })?;
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let found = all.len();
        let all = if quick { spread(all, QUICK_FILES) } else { all };
        let mut bytes = 0;
        let mut files = Vec::new();
        for file in all {
            if file.bytes <= MAX_FILE_BYTES && bytes + file.bytes <= MAX_BYTES {
                bytes += file.bytes;
                files.push(file);
            }
        }
        let mut origin = folder.display().to_string();
        if files.len() < found {
            let (most, each) = (output::bytes(MAX_BYTES), output::bytes(MAX_FILE_BYTES));
            let why =
                if quick { "--quick".to_owned() } else { format!("at most {most}, {each} each") };
            origin += &format!(" ({} of {}: {why})", output::count(files.len() as u64), found);
        }
        Ok((!files.is_empty()).then_some(Self { files, origin, bytes }))
    }
}

impl File {
    /// Its content now.
    pub(super) fn read(&self) -> Result<Bytes> {
        std::fs::read(&self.path).map(Bytes::from).map_err(|error| {
            Error::io(format!("the file {} cannot be read", self.path.display()), error)
        })
    }
}

/// `$CARGO_HOME/registry/src`
fn registry() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    home.map(|home| home.join("registry").join("src"))
}

/// Symbolic links are not followed: they may lead in circles.
fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            // A folder that others may not read is not ours to import.
            match walk(root, &path, files) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                walked => walked?,
            }
        } else if kind.is_file() && std::fs::File::open(&path).is_ok() {
            let key = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_encoded_bytes();
            if (1..=Limits::MAX_KEY_BYTES).contains(&key.len()) {
                let key = Bytes::copy_from_slice(key);
                files.push(File { key, bytes: entry.metadata()?.len(), path });
            }
        }
    }
    Ok(())
}

/// So many, from all over the list.
fn spread(files: Vec<File>, most: usize) -> Vec<File> {
    let step = files.len().div_ceil(most).max(1);
    files.into_iter().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_their_keys_and_what_is_left_out_is_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["b/2", "b/1", "a", "c"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let big = std::fs::File::create(folder.path().join("big")).unwrap();
        big.set_len(MAX_FILE_BYTES + 1).unwrap();
        let found = Files::find(Some(folder.path()), false).ok().unwrap();
        let keys: Vec<_> = found.files.iter().map(|file| file.key.clone()).collect();
        assert_eq!(keys, ["a", "b/1", "b/2", "c"]);
        assert_eq!(found.bytes, 8);
        assert!(found.origin.contains("4 of 5"), "{}", found.origin);
        assert_eq!(found.files[1].read().unwrap(), "b/1");
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Files::find(Some(folder.path()), false).err().unwrap();
        assert!(failure.to_string().contains("--files must name a folder"), "{failure}");
    }
}
