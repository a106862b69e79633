//! Traces of the requests of real caches: one key a line, or big-endian 32-bit ids; plain, gzip or xz.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use tierstack::Error;

use crate::failure::Outcome;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    /// An id, which stands for some key.
    Id(u32),
    /// A key as it is.
    Key(Vec<u8>),
}

/// The requests of a trace, in order.
pub(crate) struct Trace {
    reader: Box<dyn BufRead>,
    binary: bool,
    line: Vec<u8>,
}

impl Trace {
    /// Opens a trace, and finds out its format by its content.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let describe = |error: io::Error| {
            let what = format!("the trace {} cannot be read", path.display());
            Error::invalid(what).with_source(error)
        };
        let file = File::open(path).map_err(describe)?;
        Ok(Self::new(BufReader::with_capacity(1 << 16, file)).map_err(describe)?)
    }

    fn new(mut packed: impl BufRead + 'static) -> io::Result<Self> {
        let start = packed.fill_buf()?;
        let mut reader: Box<dyn BufRead> = if start.starts_with(b"\x1f\x8b") {
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(packed)))
        } else if start.starts_with(b"\xfd7zXZ\0") {
            let memory_kib = 256 << 10;
            Box::new(BufReader::new(lzma_rust2::XzReader::new_mem_limit(packed, true, memory_kib)))
        } else {
            Box::new(packed)
        };
        let binary = is_binary(reader.fill_buf()?);
        Ok(Self { reader, binary, line: Vec::new() })
    }

    fn id(&mut self) -> io::Result<Option<Request>> {
        let mut id = [0; 4];
        let mut have = 0;
        while let Some(rest) = id.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest)? {
                0 if have == 0 => return Ok(None),
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the trace ends within an id of 4 bytes",
                    ));
                }
                read => have += read,
            }
        }
        Ok(Some(Request::Id(u32::from_be_bytes(id))))
    }

    fn key(&mut self) -> io::Result<Option<Request>> {
        loop {
            self.line.clear();
            let max = tierstack::Limits::MAX_KEY_BYTES as u64 + 2;
            if self.reader.by_ref().take(max).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > tierstack::Limits::MAX_KEY_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line of the trace is longer than a key may be, 64 KiB",
                ));
            }
            if !line.is_empty() {
                return Ok(Some(Request::Key(line.to_vec())));
            }
        }
    }
}

impl Iterator for Trace {
    type Item = io::Result<Request>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.binary { self.id().transpose() } else { self.key().transpose() }
    }
}

/// Ids below 16 million begin with a zero byte, which text never holds; larger ones hold other bytes
/// that no text does.
fn is_binary(start: &[u8]) -> bool {
    start.iter().any(|byte| *byte < b' ' && !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(content: &[u8]) -> Vec<Request> {
        let trace = Trace::new(io::Cursor::new(content.to_vec())).unwrap();
        trace.collect::<io::Result<_>>().unwrap()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(content).unwrap();
        out.finish().unwrap()
    }

    /// `printf '\0\0\0\7\0\0\1\0' | xz --check=crc32`
    const XZ: &[u8] = b"\xfd\x37\x7a\x58\x5a\x00\x00\x01\x69\x22\xde\x36\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x07\x00\x00\x00\
        \x07\x00\x00\x01\x00\x00\x38\x32\x19\xce\x00\x01\x1c\x08\x44\x60\x2a\xc8\x90\x42\x99\x0d\x01\x00\x00\x00\x00\x01\x59\x5a";

    #[test]
    fn ids_and_keys_are_told_apart_plain_and_packed() {
        let ids = [Request::Id(7), Request::Id(256)];
        assert_eq!(read(b"\0\0\0\x07\0\0\x01\0"), ids);
        assert_eq!(read(&gzip(b"\0\0\0\x07\0\0\x01\0")), ids);
        assert_eq!(read(XZ), ids);
        let keys = [Request::Key(b"user:1".to_vec()), Request::Key("schlüssel".into())];
        let text = "user:1\r\n\nschlüssel".as_bytes();
        assert_eq!(read(text), keys);
        assert_eq!(read(&gzip(text)), keys);
        assert!(read(b"").is_empty());
    }

    #[test]
    fn a_trace_that_ends_within_an_id_is_refused() {
        let trace = Trace::new(io::Cursor::new(b"\0\0\0\x07\0\0".to_vec())).unwrap();
        let read: Vec<_> = trace.take(3).collect();
        assert!(read[0].is_ok());
        assert!(read[1].as_ref().unwrap_err().to_string().contains("within an id"));
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let mut packed = gzip(&[0; 4000]);
        packed.truncate(packed.len() - 6);
        let trace = Trace::new(io::Cursor::new(packed)).unwrap();
        assert!(trace.collect::<io::Result<Vec<_>>>().is_err());
    }
}
