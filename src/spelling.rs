//! Names that were probably meant.

#[cfg(any(
    feature = "backup",
    feature = "file",
    feature = "object",
    feature = "opendal",
    feature = "sqlite"
))]
use std::path::Path;

#[cfg(any(feature = "backup", feature = "object", feature = "opendal"))]
use crate::error::{Error, Result};

/// The allowed name that was probably meant: at most a third of it differs.
pub(crate) fn nearest<'a>(name: &str, allowed: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Distance is quadratic in length; no name of ours is that long.
    if name.len() > 64 {
        return None;
    }
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let name = plain(name);
    allowed
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .filter(|(distance, candidate)| *distance < candidate.len().max(name.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names of a folder that are looked at.
#[cfg(any(
    feature = "backup",
    feature = "file",
    feature = "object",
    feature = "opendal",
    feature = "sqlite"
))]
const NAMES: usize = 1000;

/// The name next to a missing file or folder that was probably meant.
#[cfg(any(
    feature = "backup",
    feature = "file",
    feature = "object",
    feature = "opendal",
    feature = "sqlite"
))]
pub(crate) fn nearest_beside(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let beside = std::fs::read_dir(above.unwrap_or(Path::new("."))).ok()?;
    let names = beside.take(NAMES).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: Vec<String> = names.collect();
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// Refuses a folder that cannot be read, for one that makes none.
#[cfg(any(feature = "backup", feature = "object", feature = "opendal"))]
pub(crate) fn check_folder(what: &str, path: &Path) -> Result<()> {
    let Err(error) = std::fs::read_dir(path) else { return Ok(()) };
    if error.kind() != std::io::ErrorKind::NotFound {
        return Err(Error::io(format!("{what} cannot be read"), error));
    }
    let near = match nearest_beside(path) {
        Some(name) => format!("; did you mean '{name}'?"),
        None => String::new(),
    };
    let message = format!("{what} is not there, and what only reads makes none{near}");
    Err(Error::io(message, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slip_of_the_pen_is_near() {
        let names = ["cache", "compress", "write_back"];
        assert_eq!(nearest("compres", names.into_iter()), Some("compress"));
        assert_eq!(nearest("Write-Back", names.into_iter()), Some("write_back"));
        assert_eq!(nearest("turbo", names.into_iter()), None);
        assert_eq!(nearest("a", ["b", "ab"].into_iter()), Some("ab"), "no letter of the other");
    }

    #[cfg(any(
        feature = "backup",
        feature = "file",
        feature = "object",
        feature = "opendal",
        feature = "sqlite"
    ))]
    #[test]
    fn what_lies_beside_a_missing_file_is_near() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sessions.db"), "").unwrap();
        let beside = |name: &str| nearest_beside(&folder.path().join(name));
        assert_eq!(beside("session.db").as_deref(), Some("sessions.db"));
        assert_eq!(beside("other"), None);
        assert_eq!(beside("missing/session.db"), None);
        #[cfg(any(feature = "backup", feature = "object", feature = "opendal"))]
        {
            let error = check_folder("the folder", &folder.path().join("session.db")).unwrap_err();
            assert!(error.message().contains("did you mean 'sessions.db'?"), "{error}");
            assert!(check_folder("the folder", folder.path()).is_ok());
        }
    }
}
