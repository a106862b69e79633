//! Paths as they are in settings and arguments.

use std::path::Path;

use crate::error::{Error, Result};

/// Checks that a path means itself. Nobody replaces a `~` or a variable here, as a shell does, so that such
/// a path would name a folder that is called `~` or `${HOME}`; and no path leads to another machine.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
///
/// ```
/// use tierstack::units::check_path;
///
/// assert!(check_path("/var/lib/orders.db".as_ref()).is_ok());
/// assert!(check_path("./~orders".as_ref()).is_ok());
/// assert!(check_path("~/orders.db".as_ref()).unwrap_err().contains("begins with `~`"));
/// assert!(check_path("s3://orders".as_ref()).unwrap_err().contains("another machine"));
/// assert!(check_path("${HOME}/orders.db".as_ref()).unwrap_err().contains("variable"));
/// ```
pub fn check_path(path: &Path) -> Result<(), &'static str> {
    let bytes = path.as_os_str().as_encoded_bytes();
    match bytes {
        [] => Err("is empty; write a path"),
        [b'~', ..] => Err(
            "begins with `~`, which is not replaced here by a home folder; write the whole path, or ./~ for a name that begins so",
        ),
        _ if has_variable(bytes) => {
            Err("holds a variable, and variables are not replaced here; write the whole path")
        }
        _ if is_address(bytes) => Err(
            "looks like an address of another machine, and must be a path of this one; write ./ before a name that looks so",
        ),
        _ => Ok(()),
    }
}

/// `scheme://...`, `user@machine:...`: a folder would be made that is called so.
fn is_address(path: &[u8]) -> bool {
    let mut segments = path.split(|byte| *byte == b'/');
    let first = segments.next().unwrap_or_default();
    match first.iter().position(|byte| *byte == b':') {
        Some(at) => {
            at + 1 == first.len() && segments.next().is_some_and(<[u8]>::is_empty)
                || first.get(..at).is_some_and(|before| before.contains(&b'@'))
        }
        None => false,
    }
}

/// `${NAME}`, `$(command)`, or `$NAME` as a whole segment.
fn has_variable(path: &[u8]) -> bool {
    let named = |segment: &[u8]| match segment {
        [b'$', name @ ..] => {
            !name.is_empty()
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        }
        _ => false,
    };
    path.windows(2).any(|two| matches!(two, b"${" | b"$("))
        || path.split(|byte| *byte == b'/').any(named)
}

/// The same of a setting, by its name.
#[allow(dead_code, reason = "used by some features only")]
pub(crate) fn check_path_of(setting: &'static str, path: &Path) -> Result<()> {
    let refused = |why| Error::config(format!("`{setting}` {why}")).with_setting(setting);
    check_path(path).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_replace_is_refused() {
        for path in
            ["", "~", "~/a", "~ada/a", "$HOME/a", "/a/${B}/c", "/a/x-${B}", "$(pwd)/a", "/$A"]
        {
            assert!(check_path(path.as_ref()).is_err(), "{path}");
        }
        for path in ["s3://b/x", "file:///a", "sqlite://a.db", "ada@host:/a", "ada@host:"] {
            assert!(check_path(path.as_ref()).unwrap_err().contains("another machine"), "{path}");
        }
        for path in ["a:b", "a:/b", "./s3://b", "/s3://b", "./ada@host:/a", "ada@host", "a/b@c:d"] {
            assert_eq!(check_path(path.as_ref()), Ok(()), "{path}");
        }
        for path in ["/a", "a/~", "./~a", "a~", "/a/$", "/a/b$c", "/cost$5.00/a", "a b", "é"] {
            assert_eq!(check_path(path.as_ref()), Ok(()), "{path}");
        }
        let error = check_path_of("path", "~/a".as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("config: `path` begins with `~`"), "{error}");
    }
}
