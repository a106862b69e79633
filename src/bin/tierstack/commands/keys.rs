//! `tierstack keys`: entries of the key ring that `encrypt` reads.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use tierstack::Error;
use tierstack::codec::KeyRing;

use crate::args::Keys;
use crate::failure::{Failure, Outcome};
use crate::output;

#[derive(Serialize)]
struct Generated<'a> {
    entry: &'a str,
}

#[derive(Serialize)]
struct Written<'a> {
    file: &'a Path,
    id: &'a str,
}

const HEAD: &str = "\
# A key for `encrypt: { keys: { env: NAME } }` or `{ file: PATH }`. To rotate, put it
# before the entries that are there, and run `tierstack rewrite`.
# Keep a copy away from the store: what is sealed with it, older backups too, is lost
# without it.
";

/// `tierstack keys generate`: the whole output is a valid key ring, its last line the entry.
pub(crate) fn run(args: &Keys) -> Outcome {
    let Keys::Generate(args) = args;
    let entry = KeyRing::generate()?;
    let Some(path) = args.file() else {
        let words = || format!("{HEAD}{}", entry.expose());
        return output::fact(args.json.json, &Generated { entry: entry.expose() }, words);
    };
    write_new(path, entry.expose())?;
    let id: String = KeyRing::parse(entry.expose())?.ids().map(|id| id.to_string()).collect();
    let words = || {
        format!(
            "wrote a key ring with the key {id} to {}, which only its owner can read\n\
             Keep a copy of it away from the store: what is sealed with it is lost without it.",
            path.display()
        )
    };
    output::fact(args.json.json, &Written { file: path, id: &id }, words)
}

/// Replaces nothing: with the ring that was there, all that was sealed with it would be lost.
fn write_new(path: &Path, entry: &str) -> Outcome {
    let mut file = create_new(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!(
            "{} is there already, and a key ring is never replaced",
            path.display()
        ))
        .next("name a new file, and put its entry before the others"),
        _ => Error::io(format!("{} cannot be made", path.display()), error).into(),
    })?;
    let written = [HEAD, entry, "\n"]
        .into_iter()
        .try_for_each(|part| file.write_all(part.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(path));
    written.map_err(|error| {
        // A part of a ring is none.
        let _ = std::fs::remove_file(path);
        Error::io(format!("{} cannot be written", path.display()), error).into()
    })
}

fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
