//! What a database is that is there already.

use std::path::Path;

use ::rocksdb::{DB, Options};

use super::config::RocksDbConfig;
use super::error::failed;
use super::options_file::Recorded;
use crate::error::{Operation, Result};
use crate::filesystem::users;
use crate::layer::BackendConfig;
use crate::types::survey::{Chosen, Part, Survey};
use crate::types::units::{ByteSize, counted};

impl RocksDbConfig {
    /// Looks at the database of `path`, and changes nothing: neither opens nor locks it.
    ///
    /// # Errors
    /// `Config` and `Corruption` where there is none that can be read.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data");
    /// # tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(async {
    /// use tierstack::backends::{RocksDb, RocksDbConfig};
    /// use tierstack::Store;
    ///
    /// let config = RocksDbConfig::new(path);
    /// RocksDb::open(config.clone()).await?.close().await?;
    /// let found = config.survey().await?;
    /// assert!(found.what.starts_with("RocksDB "));
    /// assert_eq!(found.parts[0].name, "default");
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub async fn survey(&self) -> Result<Survey> {
        let path = self.path.clone();
        let looked = super::blocking::offload(move || look(&path)).await;
        looked.map_err(|error| error.with_operation(Operation::Open).with_layer(Self::NAME))
    }
}

fn look(path: &Path) -> Result<Survey> {
    let families = DB::list_cf(&Options::default(), path)
        .map_err(|error| failed(Operation::Open, error).with_context(path.display()))?;
    let recorded = Recorded::latest(path)?;
    let mut facts = vec![size(path)];
    facts.extend(match users::of(&path.join("LOCK")) {
        none if none.is_empty() => None,
        users => Some(format!(
            "{} has it open: while it does, only `read_only: true` opens it next to it.",
            users.join(", ")
        )),
    });
    if recorded.is_none() {
        facts.push("It has no OPTIONS file, which says how its values are to be read.".into());
    }
    let log = recorded.as_ref().and_then(|recorded| recorded.log_elsewhere(path, path));
    let log = log.map(|log| {
        let why =
            "where its log is, by its latest OPTIONS file; see that it is not another database's";
        Chosen::new("wal_dir", format!("{:?}", log.display().to_string()), why)
    });
    let part = |name: String| {
        let ttl = recorded.as_ref().filter(|recorded| recorded.has_ttl(&name));
        let ttl = ttl.and_then(|recorded| recorded.ttl(&name)).map(|seconds| {
            Chosen::new("ttl", format!("{seconds}s"), "its owner opens it with this time to live")
        });
        let family = (name != ::rocksdb::DEFAULT_COLUMN_FAMILY_NAME)
            .then(|| Chosen::new("column_family", format!("{name:?}"), ""));
        Part {
            kind: "column family".into(),
            settings: family.into_iter().chain(ttl).chain(log.clone()).collect(),
            name,
            ..Part::default()
        }
    };
    let version = recorded.as_ref().map_or("of an unknown version", |found| found.version());
    Ok(Survey {
        what: format!("RocksDB {version}"),
        facts,
        parts: families.into_iter().map(part).collect(),
    })
}

fn size(path: &Path) -> String {
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let (mut tables, mut bytes) = (0_u64, 0);
    for file in files {
        bytes += file.metadata().map_or(0, |file| file.len());
        tables += u64::from(file.file_name().to_string_lossy().ends_with(".sst"));
    }
    format!("It has {} of {} in all.", counted(tables, "table", "tables"), ByteSize(bytes))
}
