//! What a file has in addition to its content: the one that takes its place gets it too.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};

/// Owner, group, rights and extended attributes of a file, access lists among them.
#[derive(Debug)]
pub(crate) struct Kept {
    owner: u32,
    group: u32,
    mode: u32,
    attributes: Vec<Attribute>,
}

/// A name and a value.
type Attribute = (Vec<u8>, Vec<u8>);

/// Rights without those by which a program runs as the file's owner: a write to a file takes them
/// away from it.
const RIGHTS: u32 = 0o1777;

impl Kept {
    pub(crate) fn of(file: &File, about: &std::fs::Metadata) -> io::Result<Self> {
        let attributes = attributes::all(file)?;
        let (owner, group) = (about.uid(), about.gid());
        Ok(Self { owner, group, mode: about.mode() & RIGHTS, attributes })
    }

    /// Gives it to a new file, which nobody else can read until then.
    pub(crate) fn give(&self, file: &File) -> io::Result<()> {
        let new = file.metadata()?;
        let differs = |old: u32, new: u32| (old != new).then_some(old);
        let owner = (differs(self.owner, new.uid()), differs(self.group, new.gid()));
        if owner != (None, None) {
            fchown(file, owner.0, owner.1)?;
        }
        attributes::replace(file, &self.attributes)?;
        // Last, as both of them change rights.
        file.set_permissions(Permissions::from_mode(self.mode))
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
mod attributes {
    use std::fs::File;
    use std::io;

    use rustix::fs::{
        XattrFlags, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fremovexattr,
        fsetxattr,
    };
    use rustix::io::Errno;

    use super::Attribute;

    /// What vouches for the content of the old file.
    const OF_THE_CONTENT: [&[u8]; 3] = [b"security.capability", b"security.evm", b"security.ima"];

    pub(super) fn all(file: &File) -> io::Result<Vec<Attribute>> {
        let mut names = match flistxattr_query(file) {
            Ok(bytes) => vec![0; bytes],
            // The file system has none.
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let bytes = flistxattr(file, names.as_mut_slice())?;
        names.truncate(bytes);
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let kept = names.filter(|name| !OF_THE_CONTENT.contains(name));
        let all = kept.filter_map(|name| match value(file, name) {
            Ok(value) => Some(Ok((name.to_vec(), value))),
            // It was removed meanwhile, or is the system's own.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => None,
            Err(error) => Some(Err(error.into())),
        });
        all.collect()
    }

    fn value(file: &File, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let mut value = vec![0; fgetxattr_query(file, name)?];
        let bytes = fgetxattr(file, name, value.as_mut_slice())?;
        value.truncate(bytes);
        Ok(value)
    }

    /// Sets the attributes of a new file, and removes those that it got from its folder.
    pub(super) fn replace(file: &File, wanted: &[Attribute]) -> io::Result<()> {
        let new = all(file)?;
        for (name, value) in wanted.iter().filter(|attribute| !new.contains(attribute)) {
            let set = fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
            heed(name, set)?;
        }
        for (name, _) in &new {
            if !wanted.iter().any(|(kept, _)| kept == name) {
                heed(name, fremovexattr(file, name.as_slice()))?;
            }
        }
        Ok(())
    }

    /// Labels of security modules are the system's: it gives a new file one that fits its folder.
    fn heed(name: &[u8], done: rustix::io::Result<()>) -> io::Result<()> {
        match done {
            Err(_) if name.starts_with(b"security.") || name.starts_with(b"trusted.") => Ok(()),
            done => Ok(done?),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
mod attributes {
    use std::fs::File;
    use std::io;

    use super::Attribute;

    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it fails")]
    pub(super) fn all(_: &File) -> io::Result<Vec<Attribute>> {
        Ok(Vec::new())
    }

    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it fails")]
    pub(super) fn replace(_: &File, _: &[Attribute]) -> io::Result<()> {
        Ok(())
    }
}
