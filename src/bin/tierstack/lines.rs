//! Lines of a file or a pipe, with a bound on their length.

use std::io::{self, BufRead, Read};

use tierstack::jsonl::Wrong;

/// Reads lines. Blank ones are skipped, `\r\n` ends a line as `\n` does, and a byte-order mark of UTF-8
/// at the start is skipped.
pub(crate) struct Lines<R> {
    reader: R,
    /// Bytes that a line may have.
    max: usize,
    number: u64,
    /// Bytes read so far.
    offset: u64,
    line: Vec<u8>,
}

/// A line, or what is wrong with it.
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: u64,
    /// Bytes up to its end, from the start of the input.
    pub(crate) end: u64,
    pub(crate) content: Result<&'a [u8], Wrong>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, max: usize) -> Self {
        Self { reader, max, number: 0, offset: 0, line: Vec::new() }
    }

    /// The next line that is not blank.
    ///
    /// After a line with something wrong the rest of the input is not in step with the lines.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            // One more than allowed, to tell a line of just that length from a longer one; the end of
            // the line is not counted.
            let bound = (self.max as u64).saturating_add(2);
            let read = self.reader.by_ref().take(bound).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.offset += read as u64;
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
            }
            if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let (number, end) = (self.number, self.offset);
        Ok(Some(Line { number, end, content: self.content() }))
    }

    fn content(&self) -> Result<&[u8], Wrong> {
        if self.line.len() > self.max {
            let max = self.max;
            return Err(Wrong {
                column: Some(max + 1),
                what: format!("the line is longer than {max} bytes; --max-line raises the limit"),
            });
        }
        if self.number == 1
            && let Some(what) = another_format(&self.line)
        {
            return Err(Wrong { column: Some(1), what: what.to_owned() });
        }
        Ok(&self.line)
    }
}

/// Names a format that people mistake for JSON lines, by how it begins.
fn another_format(start: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 5] = [
        (b"\xff\xfe", "this is UTF-16; `iconv -f UTF-16 -t UTF-8` makes UTF-8 of it"),
        (b"\xfe\xff", "this is UTF-16; `iconv -f UTF-16 -t UTF-8` makes UTF-8 of it"),
        (b"\x1f\x8b", "this is gzip; unpack it: `gunzip -c FILE | tierstack import -`"),
        (b"\xfd7zXZ\0", "this is xz; unpack it: `xz -dc FILE | tierstack import -`"),
        (b"\x28\xb5\x2f\xfd", "this is zstd; unpack it: `zstd -dc FILE | tierstack import -`"),
    ];
    known.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], max: usize) -> Vec<(u64, Result<Vec<u8>, String>)> {
        let mut lines = Lines::new(input, max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            let content = line.content.map(<[u8]>::to_vec).map_err(|wrong| wrong.what);
            let bad = content.is_err();
            all.push((line.number, content));
            if bad {
                break;
            }
        }
        all
    }

    #[test]
    fn blank_lines_are_counted_and_skipped() {
        let lines = read(b"a\n\n \t\r\nb\r\nc", 10);
        assert_eq!(
            lines,
            [(1, Ok(b"a".to_vec())), (4, Ok(b"b\r".to_vec())), (5, Ok(b"c".to_vec()))]
        );
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(read(b"\xef\xbb\xbfa\n", 10), [(1, Ok(b"a".to_vec()))]);
        assert!(read(b"\xef\xbb\xbf\n", 10).is_empty());
    }

    #[test]
    fn the_bound_is_exact_and_no_more_is_read() {
        assert_eq!(read(b"abc\n", 3), [(1, Ok(b"abc".to_vec()))]);
        assert_eq!(read(b"abc", 3), [(1, Ok(b"abc".to_vec()))]);
        let said = read(b"abcd\n", 3).remove(0).1.unwrap_err();
        assert_eq!(said, "the line is longer than 3 bytes; --max-line raises the limit");
        let mut lines = Lines::new(io::BufReader::new(io::repeat(b'x')), 1000);
        assert!(lines.next().unwrap().unwrap().content.is_err());
        assert!(lines.line.capacity() < 10_000);
    }

    #[test]
    fn other_formats_are_named() {
        for (start, name) in [
            (&b"\xff\xfe{\0"[..], "UTF-16"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"\x28\xb5\x2f\xfd.", "zstd"),
        ] {
            let said = read(start, 100).remove(0).1.unwrap_err();
            assert!(said.contains(name), "{said}");
        }
    }
}
