//! The stores that are told of: what is known of them before anything is counted.

use std::sync::Arc;

use super::facts::Said;
use crate::error::Error;
use crate::stack::{Stack, guarantees};
use crate::store::Store;
use crate::types::{Profile, ProfileKind};

/// A store that is told of. See the [module docs](super).
#[derive(Debug)]
pub struct Subject {
    pub(super) name: String,
    pub(super) error: Option<String>,
    pub(super) shape: String,
    pub(super) guarantees: Vec<Said>,
    /// Outermost first.
    pub(super) levels: Vec<Level>,
    #[cfg(feature = "backup")]
    pub(super) backups: Option<super::backup_status::BackupPlace>,
}

/// A boundary: a layer, or the backend.
#[derive(Debug)]
pub(super) struct Level {
    /// The label of its metrics.
    pub(super) label: String,
    pub(super) kind: ProfileKind,
    pub(super) changes: Vec<Said>,
    pub(super) notes: Vec<String>,
    /// Whether what is below it has a change feed.
    pub(super) is_told: bool,
}

impl Subject {
    /// A stack that is open.
    #[must_use]
    pub fn of(stack: &Stack) -> Self {
        let checked = stack.checked();
        Self {
            #[cfg(feature = "backup")]
            backups: super::backup_status::BackupPlace::of(checked),
            ..Self::new(stack.name(), &stack.profile(), checked.labels().map(str::to_owned))
        }
    }

    /// A store that is open and was not made from a config. Its layers are counted where it has layers `metrics`, under
    /// the names of what is below them.
    pub fn of_store(name: impl Into<String>, store: &Arc<dyn Store>) -> Self {
        let profile = store.profile();
        let labels: Vec<_> = profile.levels().map(|level| level.name.to_string()).collect();
        Self::new(name, &profile, labels)
    }

    /// A store that failed to open.
    pub fn failed(name: impl Into<String>, error: &Error) -> Self {
        Self {
            name: name.into(),
            error: Some(error.to_string()),
            shape: String::new(),
            guarantees: Vec::new(),
            levels: Vec::new(),
            #[cfg(feature = "backup")]
            backups: None,
        }
    }

    fn new(
        name: impl Into<String>,
        profile: &Profile,
        labels: impl IntoIterator<Item = String>,
    ) -> Self {
        let levels = profile.levels().zip(labels).map(|(level, label)| Level {
            label,
            kind: level.kind,
            changes: said(guarantees::changes(level)),
            notes: level.notes.clone(),
            is_told: level
                .below
                .as_ref()
                .is_some_and(|below| below.guarantees.change_feed.is_some()),
        });
        Self {
            name: name.into(),
            error: None,
            shape: profile.to_string(),
            guarantees: said(guarantees::sentences(profile)),
            levels: levels.collect(),
            #[cfg(feature = "backup")]
            backups: None,
        }
    }
}

fn said(words: Vec<(&'static str, String)>) -> Vec<Said> {
    words.into_iter().map(|(about, text)| Said { about: about.to_owned(), text }).collect()
}
