//! `check`: what a config means. It opens nothing.

use serde::Serialize;
use tierstack::config::{Config, Registry};
use tierstack::{Checked, Stack, telemetry};

use crate::args::Check;
use crate::failure::Outcome;
use crate::output;

/// What `--json` prints.
#[derive(Serialize)]
struct Facts<'a> {
    stores: &'a [Checked],
    /// How many series Prometheus keeps of a service with these stores and the listeners of the config.
    series: usize,
}

/// `tierstack check`: one store, or all of them.
pub(crate) fn check(args: &Check) -> Outcome {
    let config = Config::load(&args.store.config)?;
    let registry = Registry::standard();
    let checked = match &args.store.store {
        Some(name) => vec![Stack::check(&config, Some(name), &registry)?],
        None => Stack::check_all(&config, &registry)?,
    };
    if args.json.json {
        let stores = checked.iter().map(Checked::series).sum::<usize>();
        let series = stores + of_server(&config, checked.len()) + telemetry::PROCESS_SERIES;
        return output::line(output::to_json(&Facts { stores: &checked, series })?);
    }
    let drawn: Vec<_> = checked.iter().map(|checked| checked.to_string()).collect();
    output::line(drawn.join("\n").trim_end())
}

#[cfg(feature = "serve")]
fn of_server(config: &Config, stores: usize) -> usize {
    let serve = config.serve.as_ref();
    serve.map_or(0, |serve| tierstack::serve::Server::series(serve, stores))
}

#[cfg(not(feature = "serve"))]
fn of_server(_: &Config, _: usize) -> usize {
    0
}
