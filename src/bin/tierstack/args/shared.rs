//! What several commands take.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args as Group, ValueHint};
use tierstack::units::{Secret, check_path};

/// A path as it is: nobody but the shell replaces a `~`.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new()
        .try_map(|path| check_path(&path).map(|()| path).map_err(|why| format!("it {why}")))
}

/// Which store.
#[derive(Group, Clone)]
pub(crate) struct StoreArgs {
    /// The config file: YAML, TOML or JSON
    #[arg(long, value_name = "FILE", default_value = "tierstack.yaml", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) config: PathBuf,
    /// The store of the config [default: the config's `default`]
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
}

/// How facts are printed.
#[derive(Group, Clone, Copy)]
pub(crate) struct JsonArgs {
    /// Print facts as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a secret is. A command line is no place for one: others can read it.
pub(crate) fn secret(text: &str) -> Result<Secret, String> {
    match text.split_once(':') {
        Some(("env", name)) => Ok(Secret::Env(name.to_owned())),
        Some(("file", path)) => Ok(Secret::File(path.into())),
        _ => Err("write env:NAME, the name of an environment variable, or file:PATH".to_owned()),
    }
}
