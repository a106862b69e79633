//! The backend as its settings say it: what it guarantees, what it claims, and opening it.

use std::sync::Arc;

use async_trait::async_trait;

use super::Sqlite;
use super::config::{Journal, Keys, SqliteConfig, Storage};
use crate::error::Result;
use crate::layer::{BackendConfig, Claim, Context};
use crate::store::Store;
use crate::types::Profile;

#[async_trait]
impl BackendConfig for SqliteConfig {
    const NAME: &'static str = "sqlite";
    const OWN: &'static [&'static str] =
        &["table", "columns", "keys", "values", "scans", "create", "sweep"];

    /// SQLite does not tell upper and lower case of ASCII apart.
    fn part(&self) -> String {
        self.table.to_ascii_lowercase()
    }

    fn profile(&self) -> Result<Profile> {
        self.check().map_err(|error| error.with_layer(Self::NAME))?;
        let notes = [
            (
                !self.sync,
                "`sync` is false: a write is acknowledged before it is on the disk, and a power cut can cost what was written since the last `flush`. `flush` makes all of them survive one.",
            ),
            (
                self.journal == Some(Journal::Rollback),
                "`journal` is rollback: a writer and the readers of all programs wait for each other, and there are no snapshots, as one would hold up every write.",
            ),
            (
                self.journal == Some(Journal::Wal),
                "`journal` is wal: a database in another mode is changed to it when it is opened, for every program that uses it.",
            ),
            (self.read_only, "`read_only` is true: writes are refused."),
            (
                self.sweep == Some(true),
                "`sweep` is true: rows of expired entries are removed, also those that other programs have written.",
            ),
            (
                self.keys == Keys::Text,
                "`keys` is text: only UTF-8 is a key, and others are refused.",
            ),
            (
                self.keys == Keys::Tuple,
                "`keys` is tuple: a key that is no tuple of the key's columns is refused.",
            ),
            (
                !self.scans,
                "`scans` is false: entries are found by their keys alone, so nothing above can list or back them up.",
            ),
            (
                self.values == Storage::Text,
                "`values` is text: only UTF-8 is a value, and others are refused.",
            ),
            (
                self.has_rows(),
                "`columns.value` names columns of a row: a value is a JSON object with a field for each, spelt as SQLite has it and not as it was put, and only such a one is taken.",
            ),
        ];
        let profile = Profile::backend(Self::NAME, self.guarantees());
        let notes = notes.into_iter().filter(|(holds, _)| *holds);
        Ok(notes.fold(profile, |profile, (_, note)| profile.note(note)))
    }

    fn claims(&self, context: &Context) -> Vec<Claim> {
        vec![Claim::new("a table of the database", &context.resolve(&self.path)).part(self.part())]
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        let create = self.create && context.may_create;
        let config = Self { path: context.resolve(&self.path), create, ..self.clone() };
        let clock = Arc::clone(&context.clock);
        Ok(Arc::new(Sqlite::open_for(config, clock, context.background).await?))
    }
}
