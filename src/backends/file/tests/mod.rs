//! Tests of the backend's parts: names, crashes, scans.

mod crash;
mod faults;
mod names;
mod only_reading;
mod scan;

use std::path::Path;

use bytes::Bytes;

use super::config::FileConfig;
use super::core::Core;
use super::open;
use crate::error::Result;
use crate::types::{Entry, Scan};

fn open_core(path: &Path, sync: bool) -> Result<Core> {
    open::open(&FileConfig { sync, ..FileConfig::new(path) }, true)
}

/// All entries, by the scan of pages of that size.
fn entries(core: &Core, scan: &Scan) -> Vec<(Bytes, Bytes)> {
    let (mut walk, mut scan, mut found) = (super::scan::Walk::default(), scan.clone(), Vec::new());
    while !scan.is_empty() {
        let page = core.reading(|tree| walk.page(tree, &scan)).unwrap();
        let Some(Entry { key, .. }) = page.entries.last() else { break };
        scan.resume_after(key.clone());
        scan.consume(page.len());
        found.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value.bytes)));
    }
    found
}
