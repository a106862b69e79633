//! The options of `tierstack demo`.

use std::path::PathBuf;

use clap::{Args as Group, ValueEnum, ValueHint};

use super::shared::{JsonArgs, path};

/// A database whose files the demo can damage.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    #[value(name = "rocksdb")]
    RocksDb,
    Sqlite,
}

impl Engine {
    /// The one that is taken where none is named.
    pub(crate) const BUILT_IN: Self =
        if cfg!(feature = "rocksdb") { Self::RocksDb } else { Self::Sqlite };

    /// The one that a config calls so.
    pub(crate) fn named(backend: &str) -> Option<Self> {
        [Self::RocksDb, Self::Sqlite].into_iter().find(|engine| engine.name() == backend)
    }

    /// As in a config.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RocksDb => "rocksdb",
            Self::Sqlite => "sqlite",
        }
    }

    /// As it calls itself.
    pub(crate) fn product(self) -> &'static str {
        match self {
            Self::RocksDb => "RocksDB",
            Self::Sqlite => "SQLite",
        }
    }

    /// The extension of the files with its data.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::RocksDb => "sst",
            Self::Sqlite => "db",
        }
    }

    /// The path of a database in this folder.
    pub(crate) fn path(self, folder: &str) -> PathBuf {
        match self {
            Self::RocksDb => folder.into(),
            Self::Sqlite => [folder, "entries.db"].iter().collect(),
        }
    }
}

#[derive(Group)]
pub(crate) struct Demo {
    /// The config of the stack [default: that of examples/quickstart.yaml]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) config: Option<PathBuf>,
    /// The store of the config [default: the config's `default`]
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
    /// The database below the layers [default: rocksdb, or sqlite where the command was built without it]
    #[arg(long, value_name = "ENGINE", conflicts_with = "config")]
    pub(crate) over: Option<Engine>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// Work in this folder and keep it [default: a temporary one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub(crate) dir: Option<PathBuf>,
    /// Import the files of this folder [default: the sources in cargo's registry]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub(crate) files: Option<PathBuf>,
    /// Replay this trace: one key a line, or big-endian 32-bit ids; plain, gzip or xz
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) trace: Option<PathBuf>,
    /// Take the backup to this place, such as s3://bucket/prefix [default: a folder]
    #[arg(long, value_name = "URL")]
    pub(crate) to: Option<String>,
    /// Few files and few reads
    #[arg(long)]
    pub(crate) quick: bool,
}
