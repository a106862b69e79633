//! The files that commands write. Every one is opened here.
//!
//! A file is written next to its place and renamed at the end, so that it is whole, or as it was before. What
//! is there already keeps its mode and its owner; through a symbolic link its target is written; a pipe and a
//! device are written into. A file of a store, or the config, is refused.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::NamedTempFile;

use tierstack::Error;
use tierstack::config::Config;

use crate::failure::{Failure, Outcome};
use crate::sink::Sink;

/// Where a command writes.
pub(crate) struct Target {
    sink: Sink,
    place: Destination,
}

enum Destination {
    Stdout,
    /// Written into as it is: a pipe, a device.
    Special,
    /// Under another name until it is whole.
    Beside {
        new: NamedTempFile,
        path: PathBuf,
    },
}

impl Target {
    /// Opens what a path names; standard output without a path, and for `-`. A named pipe is waited for, until
    /// somebody reads it.
    pub(crate) async fn open(path: Option<&Path>) -> Outcome<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self { sink: Sink::stdout(), place: Destination::Stdout });
        };
        let shown = path.to_owned();
        let failed = move |error| cannot_write(&shown, error);
        match fs::metadata(path) {
            Ok(there) if is_stdout(&there) => {
                Ok(Self { sink: Sink::stdout(), place: Destination::Stdout })
            }
            Ok(there) if there.is_file() => Self::beside(path, Some(&there)),
            Ok(there) if there.is_dir() => {
                let what = format!("{} is a folder; name a file", path.display());
                Err(Failure::usage(what))
            }
            Ok(there) if is_pipe_or_device(&there) => {
                let name = path.to_owned();
                let opening = move || File::options().write(true).open(name);
                let file = tokio::task::spawn_blocking(opening)
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                let file = file.map_err(&failed)?;
                Ok(Self { sink: Sink::new(file, failed), place: Destination::Special })
            }
            Ok(_) => {
                let what = format!("{} is no file, pipe or terminal; name another", path.display());
                Err(Failure::usage(what))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::beside(path, None),
            Err(error) => Err(failed(error)),
        }
    }

    fn beside(path: &Path, there: Option<&Metadata>) -> Outcome<Self> {
        let shown = path.to_owned();
        let failed = move |error| cannot_write(&shown, error);
        let real = behind_links(path).map_err(&failed)?;
        let mut beside = tempfile::Builder::new();
        beside.prefix(".tierstack-export-");
        #[cfg(unix)]
        if there.is_none() {
            use std::os::unix::fs::PermissionsExt;
            // As any new file: the user's mask takes away what it must.
            beside.permissions(fs::Permissions::from_mode(0o666));
        }
        let new = beside.tempfile_in(folder(&real)).map_err(&failed)?;
        if let Some(there) = there {
            keep(there, path, new.as_file()).map_err(|failure| {
                failure.next("nothing was written; write to another file, or remove this one first")
            })?;
        }
        let writer = new.as_file().try_clone().map_err(&failed)?;
        Ok(Self { sink: Sink::new(writer, failed), place: Destination::Beside { new, path: real } })
    }

    /// What to write into.
    pub(crate) fn sink(&mut self) -> &mut Sink {
        &mut self.sink
    }

    /// Whether facts about what was written must not be printed between it.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.place, Destination::Stdout)
    }

    /// Whether an early end leaves the place as it was.
    pub(crate) fn is_whole_or_nothing(&self) -> bool {
        matches!(self.place, Destination::Beside { .. })
    }

    /// Writes the rest. A file is in its place, and on the disk, afterwards.
    pub(crate) async fn finish(self) -> Outcome {
        self.sink.finish().await?;
        let Destination::Beside { new, path } = self.place else { return Ok(()) };
        let failed = |error| cannot_write(&path, error);
        new.as_file().sync_all().map_err(failed)?;
        new.persist(&path).map_err(|error| failed(error.error))?;
        // The new name is on the disk when the folder is; not every system can sync one.
        #[cfg(unix)]
        File::open(folder(&path)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Error::io(format!("{} cannot be written", path.display()), error).into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Links that are followed one after the other, as by the kernel.
const MOST_LINKS: usize = 40;

/// What the links lead to, which need not be there.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        // An error: it is no link.
        let Ok(to) = fs::read_link(&path) else { return Ok(path) };
        path = folder(&path).join(to);
    }
    Err(io::Error::other("too many symbolic links"))
}

#[cfg(unix)]
fn is_pipe_or_device(there: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    there.file_type().is_fifo() || there.file_type().is_char_device()
}

#[cfg(not(unix))]
fn is_pipe_or_device(_there: &Metadata) -> bool {
    false
}

/// Whether both are one file, whatever it is called.
#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_one: &Metadata, _other: &Metadata) -> bool {
    false
}

/// `/dev/stdout`, and the file to which the shell sends standard output.
#[cfg(unix)]
fn is_stdout(there: &Metadata) -> bool {
    use std::os::fd::AsFd;
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    stdout.and_then(|stdout| stdout.metadata()).is_ok_and(|stdout| is_same(&stdout, there))
}

#[cfg(not(unix))]
fn is_stdout(_there: &Metadata) -> bool {
    false
}

/// Gives the new file the owner and the mode of the one that it replaces, before anything is in it.
#[cfg(unix)]
fn keep(there: &Metadata, path: &Path, new: &File) -> Outcome {
    use std::os::unix::fs::{MetadataExt, fchown};
    let failed = |error| cannot_write(path, error);
    if there.nlink() > 1 {
        let what = "has several names (hard links), of which the others would keep the old data";
        return Err(Failure::failed(format!("{} {what}", path.display())));
    }
    let made = new.metadata().map_err(failed)?;
    if (made.uid(), made.gid()) != (there.uid(), there.gid()) {
        fchown(new, Some(there.uid()), Some(there.gid())).map_err(|error| {
            let what = format!(
                "{} belongs to another user or group, to which a new file cannot be given",
                path.display()
            );
            Failure::from(Error::io(what, error))
        })?;
    }
    new.set_permissions(there.permissions()).map_err(failed)
}

#[cfg(not(unix))]
fn keep(_there: &Metadata, _path: &Path, _new: &File) -> Outcome {
    Ok(())
}

/// Settings whose text is a path, or a URL of one.
const PATHS: [&str; 8] = ["path", "to", "url", "root", "file", "ca", "cert", "key"];
/// What SQLite keeps next to a database.
const BESIDE_DATABASE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Refuses a target that is the config, or a file of one of its stores.
pub(crate) fn refuse_own(target: &Path, config: &Path) -> Outcome {
    let file = Config::load(config)?;
    let mut own = vec![("the config".to_owned(), config.to_owned())];
    own.extend(
        file.control.iter().map(|socket| ("the config".to_owned(), file.folder().join(socket))),
    );
    for (name, store) in &file.stores {
        let parts = store.layers.iter().chain([&store.backend]);
        for part in parts {
            let at = format!("the store '{name}' ({})", part.name);
            collect_paths(&part.settings, &mut |path| {
                own.push((at.clone(), file.folder().join(path)));
            });
        }
    }
    for (name, part) in &file.backends {
        let at = format!("the shared backend '{name}' ({})", part.name);
        collect_paths(&part.settings, &mut |path| {
            own.push((at.clone(), file.folder().join(path)));
        });
    }
    for (whose, path) in own {
        if is_or_lies_in(target, &path) {
            let what = format!("{} belongs to {whose}, and would be destroyed", target.display());
            return Err(Failure::usage(format!("{what}; name another file")));
        }
    }
    Ok(())
}

fn collect_paths(settings: &Value, found: &mut impl FnMut(&Path)) {
    match settings {
        Value::Object(settings) => {
            for (name, value) in settings {
                match value {
                    Value::String(text) if PATHS.contains(&name.as_str()) => {
                        found(Path::new(text.strip_prefix("file://").unwrap_or(text)));
                    }
                    value => collect_paths(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect_paths(value, found)),
        _ => {}
    }
}

/// Also where nothing is there yet: what a store is to make would be in the way.
fn is_or_lies_in(target: &Path, own: &Path) -> bool {
    let there = fs::metadata(own).ok();
    let both = fs::metadata(target).ok().zip(there.as_ref());
    if both.is_some_and(|(target, there)| is_same(&target, there)) {
        return true;
    }
    let real = |path: &Path| {
        let path = behind_links(path)?;
        let name = path.file_name().unwrap_or_default();
        Ok::<_, io::Error>(folder(&path).canonicalize()?.join(name))
    };
    let own = own.canonicalize().or_else(|_| real(own));
    // A folder that is not there holds no file of a store.
    let (Ok(target), Ok(own)) = (real(target), own) else { return false };
    let beside = |end: &&str| {
        let mut name = own.clone().into_os_string();
        name.push(end);
        target.as_os_str() == name
    };
    target == own
        || there.is_some_and(|there| there.is_dir()) && target.starts_with(&own)
        || BESIDE_DATABASE.iter().any(beside)
}
