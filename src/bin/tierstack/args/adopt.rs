//! `tierstack adopt`.

use clap::Args as Group;
use tierstack::units::Secret;

#[derive(Group)]
pub(crate) struct Adopt {
    /// What is there: a file of SQLite, the folder of a RocksDB database, a folder of files, postgres://…, redis://…,
    /// s3://…
    pub(crate) target: String,
    /// Where the password is: env:NAME or file:PATH
    #[arg(long, value_name = "WHERE", value_parser = super::shared::secret)]
    pub(crate) password: Option<Secret>,
}
