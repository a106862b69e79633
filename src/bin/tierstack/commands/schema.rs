//! `schema`: the form of config files, and of the tables that backends make. It opens nothing.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use tierstack::config::Config;
use tierstack::config::{Registry, schema as config_schema};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use tierstack::{BackendConfig, Stack};
use tierstack::{Error, Result};

use crate::args::Schema;
use crate::failure::Outcome;
use crate::output;

/// `tierstack schema`, of config files or of a backend.
pub(crate) fn run(args: &Schema) -> Outcome {
    let text = match &args.backend {
        Some(backend) => sql(backend, args)?,
        None => serde_json::to_string_pretty(&config_schema(&Registry::standard()))
            .map_err(|error| Error::internal("the schema cannot be printed").with_source(error))?,
    };
    output::line(text.trim_end())
}

/// The SQL that makes the table of a backend.
#[cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    expect(unused_variables, reason = "no backend that makes tables is compiled in")
)]
fn sql(backend: &str, args: &Schema) -> Result<String> {
    match backend {
        #[cfg(feature = "postgres")]
        "postgres" => {
            use tierstack::backends::PostgresConfig;
            let settings = settings::<PostgresConfig>(args)?;
            settings.unwrap_or_else(|| PostgresConfig::new("postgres://localhost")).schema()
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            use tierstack::backends::SqliteConfig;
            let settings = settings::<SqliteConfig>(args)?;
            Ok(settings.unwrap_or_else(|| SqliteConfig::new("data.db")).schema())
        }
        other => Err(Error::config(format!(
            "'{other}' is no backend of this build that makes tables; there are postgres and sqlite, each a feature"
        ))),
    }
}

/// The settings of the store that the arguments name. `None`: they name none.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn settings<C: BackendConfig + Clone>(args: &Schema) -> Result<Option<C>> {
    let Some(path) = &args.config else { return Ok(None) };
    let config = Config::load(path)?;
    // Says what is wrong with the settings, and where.
    let checked = Stack::check(&config, args.store.as_deref(), &Registry::standard())?;
    let Some(settings) = checked.backend_config::<C>() else {
        let backend = checked.profile().levels().last().map_or("", |level| &level.name);
        return Err(Error::config(format!(
            "the store '{}' has the backend '{backend}', not '{}'; name another with --store",
            checked.store(),
            C::NAME
        )));
    };
    Ok(Some(settings.clone()))
}
