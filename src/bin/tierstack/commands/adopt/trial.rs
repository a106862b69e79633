//! Whether a store opens by the settings that were chosen. Nothing is made, written or locked.

use tierstack::config::{Config, Format, Registry};
use tierstack::{Checked, Error, OpenOptions, Result, Stack};

use super::target::Target;
use super::text::Store;

/// Opens it as a command does that only reads, and closes it.
pub(super) async fn opens(target: &Target, store: &Store) -> Result<()> {
    let checked = checked(store)?;
    #[cfg(feature = "sqlite")]
    if target.backend == "sqlite" {
        // Opening makes files next to one that has a write-ahead log.
        let settings = checked.backend_config::<tierstack::backends::SqliteConfig>();
        let settings =
            settings.ok_or_else(|| Error::internal("the settings are of another backend"))?;
        return settings.clone().check_table().await;
    }
    // Others may have it open; and scripts would be loaded.
    let checked = match target.backend {
        "rocksdb" | "redis" => self::checked(&store.to_read())?,
        _ => checked,
    };
    let stack = checked.open(&OpenOptions::reading()).await?;
    stack.close().await
}

fn checked(store: &Store) -> Result<Checked> {
    let folder = std::env::current_dir().map_err(|error| Error::io("there is no folder", error))?;
    let text = format!("stores:\n{}", store.yaml());
    let config = Config::parse(&text, Format::Yaml, folder.join("adopted.yaml"))?;
    Stack::check(&config, Some(&store.name), &Registry::standard())
}
