//! `check`: what a config means. It opens nothing.

use tierstack::Stack;
use tierstack::config::{Config, Registry};

use crate::args::Check;
use crate::failure::Outcome;
use crate::output;

/// `tierstack check`: one store, or all of them.
pub(crate) fn check(args: &Check) -> Outcome {
    let config = Config::load(&args.store.config)?;
    let registry = Registry::standard();
    let checked = match &args.store.store {
        Some(name) => vec![Stack::check(&config, Some(name), &registry)?],
        None => Stack::check_all(&config, &registry)?,
    };
    if args.json.json {
        return output::line(output::to_json(&checked)?);
    }
    let drawn: Vec<_> = checked.iter().map(|checked| checked.to_string()).collect();
    output::line(drawn.join("\n").trim_end())
}
