//! The input: lots of lines, each a batch.

use std::fs::File;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use tierstack::jsonl::{self, Rules};
use tierstack::{Batch, Error, Op, Store};

use crate::args::Import;
use crate::failure::{Failure, Outcome};
use crate::lines::Lines;

/// Bytes after which a batch is written: large enough to spread the cost of a synced write.
const BATCH_BYTES: usize = 4 << 20;
/// Operations after which a batch is written.
const BATCH_OPS: usize = 8192;

/// Entries of consecutive lines.
pub(super) struct Lot {
    pub(super) batch: Batch,
    /// The last line of the lot.
    pub(super) line: u64,
    /// Bytes of the input up to the end of the lot.
    pub(super) end: u64,
}

/// Where lines come from, and which of them are wanted.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) from_line: u64,
    pub(super) max_line: usize,
    pub(super) rules: Rules,
    /// Operations that the store takes in one batch.
    pub(super) batch_ops: usize,
}

pub(super) fn open(path: &Path) -> Outcome<File> {
    let file = File::open(path)
        .map_err(|error| Error::io(format!("{} cannot be read", path.display()), error))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        let what = format!("{} is a folder; import reads a file of JSON lines", path.display());
        return Err(Failure::failed(what));
    }
    Ok(file)
}

/// A named pipe can be read once only.
pub(super) fn is_seekable(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file())
}

impl Source {
    pub(super) fn new(args: &Import, store: &Arc<dyn Store>) -> Self {
        let guarantees = store.profile().guarantees;
        Self {
            name: args.file.display().to_string(),
            from_line: args.from_line,
            max_line: args.max_line.as_usize(),
            batch_ops: guarantees.batch_ops().unwrap_or(BATCH_OPS).min(BATCH_OPS),
            rules: Rules { limits: guarantees.limits, expiry: guarantees.expiry },
        }
    }

    /// Hands lot after lot to `take`, which may say that it wants no more.
    pub(super) fn read(
        &self,
        reader: impl BufRead,
        mut take: impl FnMut(Lot) -> bool,
    ) -> Result<(), Error> {
        let mut lines = Lines::new(reader, self.max_line);
        let mut lot = Lot { batch: Batch::new(), line: self.from_line - 1, end: 0 };
        let mut bytes = 0;
        while let Some(line) = lines
            .next()
            .map_err(|error| Error::io(format!("{} cannot be read", self.name), error))?
        {
            if line.number < self.from_line {
                continue;
            }
            let entry = match line.content.and_then(|content| jsonl::parse(content, &self.rules)) {
                Ok(entry) => entry,
                Err(wrong) => {
                    let at = wrong.column.map(|column| format!(":{column}")).unwrap_or_default();
                    let place = format!("{}:{}{at}", self.name, line.number);
                    take(lot);
                    return Err(Error::invalid(format!("{place}: {}", wrong.what)));
                }
            };
            bytes += entry.key.len() + entry.value.bytes.len();
            lot.batch.push(Op::Put(entry.key, entry.value));
            (lot.line, lot.end) = (line.number, line.end);
            if bytes >= BATCH_BYTES || lot.batch.len() >= self.batch_ops {
                let (line, end) = (lot.line, lot.end);
                if !take(std::mem::replace(&mut lot, Lot { batch: Batch::new(), line, end })) {
                    return Ok(());
                }
                bytes = 0;
            }
        }
        take(lot);
        Ok(())
    }

    /// How to go on behind that line.
    pub(super) fn resume(&self, last_line: u64) -> String {
        let line = last_line + 1;
        if self.name == "-" {
            format!("give the same lines again to `tierstack import - --from-line {line}`")
        } else {
            format!("`tierstack import {} --from-line {line}` goes on from there", self.name)
        }
    }
}
