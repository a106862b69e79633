//! Secrets in files: read by a thread of their own, understood as text, and wiped.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tokio::sync::oneshot;

use super::secret_text::SecretText;
use crate::error::{Error, Result};

/// No secret is larger. What never ends, such as `/dev/zero`, is not read to its end.
const MOST: usize = 1 << 20;
const FIRST: usize = 4096;

/// What is read, wiped when it is dropped.
#[cfg_attr(feature = "encrypt", derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop))]
struct Plain(Vec<u8>);

/// Reads by a thread of its own. A pipe that nobody writes into, or a file server that is gone, may never answer:
/// a caller that gives up is free, and the end of a runtime does not wait for the thread.
pub(super) async fn apart(
    read: impl FnOnce() -> Result<SecretText> + Send + 'static,
) -> Result<SecretText> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("tierstack-secret".to_owned());
    let reading = move || {
        // Fails when the caller has given up.
        let _ = tell.send(read());
    };
    thread.spawn(reading).map_err(|error| Error::io("a thread cannot be started", error))?;
    told.await.map_err(|_| Error::internal("the thread that reads a secret has ended"))?
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<SecretText> {
    let unreadable = |error| {
        let message =
            format!("the secret is expected in the file {}, which cannot be read", path.display());
        Error::config(message).with_source(error)
    };
    let mut file = File::open(path).map_err(unreadable)?;
    warn_if_public(&file, path);
    let plain = all_of(&mut file).map_err(unreadable)?;
    if plain.0.len() > MOST {
        return Err(wrong(path, "is larger than 1 MiB; it must hold a secret, and nothing else"));
    }
    if matches!(plain.0.as_slice(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        tracing::warn!(
            file = %path.display(),
            "a secret is read as UTF-16, as its byte-order mark says; better save it as UTF-8"
        );
    }
    text_of(&plain).map_err(|what| wrong(path, what))
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::config(format!("the file {} {what}", path.display()))
}

/// Not `read_to_end`, which leaves copies behind where it needs more room.
fn all_of(file: &mut impl Read) -> std::io::Result<Plain> {
    let mut plain = Plain(vec![0; FIRST]);
    let mut length = 0;
    loop {
        if length == plain.0.len() {
            let mut larger = Plain(vec![0; length * 2]);
            larger.0.split_at_mut(length).0.copy_from_slice(&plain.0);
            plain = larger;
        }
        let (_, free) = plain.0.split_at_mut(length);
        match file.read(free) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length > MOST {
            break;
        }
    }
    plain.0.truncate(length);
    Ok(plain)
}

/// The text, without white space at its ends. Editors of Windows write UTF-8 with a byte-order mark, and its shell
/// UTF-16.
fn text_of(plain: &Plain) -> Result<SecretText, &'static str> {
    const NO_TEXT: &str =
        "is no text: neither UTF-8 nor UTF-16 with a byte-order mark; save it as UTF-8";
    let bytes = plain.0.as_slice();
    let wide = |pair: fn([u8; 2]) -> u16, rest: &[u8]| {
        let (pairs, odd) = rest.as_chunks();
        if !odd.is_empty() {
            return Err(NO_TEXT);
        }
        // Room for all of it: a text that grows leaves copies behind.
        let mut text = String::with_capacity(rest.len() / 2 * 3);
        for read in char::decode_utf16(pairs.iter().copied().map(pair)) {
            match read {
                Ok(read) => text.push(read),
                Err(_) => {
                    drop(SecretText::from(text));
                    return Err(NO_TEXT);
                }
            }
        }
        Ok(SecretText::from(text))
    };
    let wide = match bytes {
        [0xff, 0xfe, rest @ ..] => Some(wide(u16::from_le_bytes, rest)?),
        [0xfe, 0xff, rest @ ..] => Some(wide(u16::from_be_bytes, rest)?),
        _ => None,
    };
    let text = match &wide {
        Some(text) => text.expose(),
        None => std::str::from_utf8(bytes).map_err(|_| NO_TEXT)?,
    };
    if text.contains('\0') {
        return Err(
            "holds zero bytes, as UTF-16 without a byte-order mark does, and UTF-32; save it as UTF-8",
        );
    }
    let text = trimmed(text);
    if text.is_empty() {
        Err("is empty; it must hold the secret")
    } else {
        Ok(text.to_owned().into())
    }
}

/// Without white space and byte-order marks at the ends.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches(|char: char| char.is_whitespace() || char == '\u{feff}')
}

#[cfg(unix)]
fn warn_if_public(file: &File, path: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let public = |metadata: std::fs::Metadata| {
        metadata.is_file() && metadata.permissions().mode() & 0o004 != 0
    };
    if file.metadata().is_ok_and(public) {
        tracing::warn!(
            file = %path.display(),
            "every user of this machine can read a secret; make its file readable for its owner alone (chmod 600)"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_public(_: &File, _: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, &'static str> {
        text_of(&Plain(bytes.to_vec())).map(|text| text.expose().to_owned())
    }

    #[test]
    fn text_is_read_as_editors_write_it() {
        let wide = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(bytes).collect()
        };
        for text in ["pässwörd", "a", "one\r\ntwo", "𝄞"] {
            for written in [text.to_owned(), format!(" {text}\r\n"), format!("\u{feff}{text}\n")] {
                assert_eq!(read(written.as_bytes()).as_deref(), Ok(text));
            }
            let marked = format!("\u{feff}{text}\r\n");
            assert_eq!(read(&wide(&marked, u16::to_le_bytes)).as_deref(), Ok(text));
            assert_eq!(read(&wide(&marked, u16::to_be_bytes)).as_deref(), Ok(text));
            assert!(read(&wide("ab", u16::to_le_bytes)).unwrap_err().contains("UTF-16 without"));
        }
        let mut cut = wide("\u{feff}ab", u16::to_le_bytes);
        cut.pop();
        let half = wide("\u{feff}𝄞", u16::to_le_bytes);
        for bad in [&cut[..], &half[..4], b"\xffabc", b"a\xe4"] {
            assert!(read(bad).unwrap_err().contains("no text"));
        }
        for empty in [&b""[..], b" \r\n", b"\xef\xbb\xbf", b"\xff\xfe"] {
            assert!(read(empty).unwrap_err().contains("is empty"));
        }
    }

    #[test]
    fn what_never_ends_is_not_read_to_its_end() {
        let read = all_of(&mut std::io::repeat(b'x')).unwrap();
        assert!((MOST + 1..=2 * MOST).contains(&read.0.len()), "{}", read.0.len());
        let text = [7; 3 * FIRST];
        assert_eq!(all_of(&mut &text[..]).unwrap().0, text);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_is_waited_for_by_nobody_but_its_thread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let secret = super::super::secret::Secret::File(path.clone());
        let mut reading = Box::pin(secret.load());
        tokio::select! {
            biased;
            read = &mut reading => panic!("{read:?}"),
            () = tokio::task::yield_now() => {}
        }
        // The other end as a program that takes its time.
        tokio::task::spawn_blocking(move || std::fs::write(path, "s3cret\n").unwrap())
            .await
            .unwrap();
        assert_eq!(reading.await.unwrap().expose(), "s3cret");
    }
}
