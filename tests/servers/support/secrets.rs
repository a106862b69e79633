//! Secrets as a config names them: in files.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::path::Path;

use tierstack::units::Secret;

/// A file with this secret, in the folder of the tests' own files. One of the same text is the same file: nothing is left that the
/// next run does not use.
pub(crate) fn secret(text: &str) -> Secret {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    let path = folder.join(format!("secret-{:016x}", hasher.finish()));
    // Renamed into its place: another process may read it at this moment.
    let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.persist(&path).unwrap();
    Secret::File(path)
}
