//! `tierstack journal`.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand, ValueHint};

use super::shared::{JsonArgs, StoreArgs, path};

#[derive(Subcommand)]
pub(crate) enum Journal {
    /// Show which batches the store below does not have: numbers, no keys and no values
    Inspect(JournalInspect),
    /// Write them to the store below, in order, up to the first that it does not take
    Drain(JournalDrain),
    /// Take out the first of them, which is kept in another journal: for a batch that the store below refuses for good
    Skip(JournalSkip),
}

#[derive(Group)]
pub(crate) struct JournalInspect {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// So many batches are shown one by one, the first ones
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Group)]
pub(crate) struct JournalDrain {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// Also where the store is not the one that they were acknowledged for: a copy of it, or Redis after a restart
    #[arg(long)]
    pub(crate) to_other: bool,
}

#[derive(Group)]
pub(crate) struct JournalSkip {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// The number of the batch, as `inspect` and `drain` name it
    #[arg(value_name = "SEQUENCE")]
    pub(crate) sequence: u64,
    /// The folder in which it is kept, in a journal of its own; made if it is missing
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, value_parser = path())]
    pub(crate) copy: PathBuf,
}
