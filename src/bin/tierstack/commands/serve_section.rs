//! The section `serve` of a config, or what the command line says in its place.

use std::net::SocketAddr;

use tierstack::config::{Config, Listen, ServeConfig};

use crate::failure::{Failure, Outcome};

/// What is served where.
pub(super) fn section(config: &Config, listen: Option<SocketAddr>) -> Outcome<ServeConfig> {
    let serve = match (&config.serve, listen) {
        (Some(serve), None) => serve.clone(),
        (None, Some(address)) => ServeConfig::at(address),
        (Some(serve), Some(address)) => {
            let mut serve = serve.clone();
            match &mut *serve.listeners {
                [listener] => listener.place = Listen::Tcp(address),
                several => {
                    return Err(Failure::usage(format!(
                        "{}: `serve` has {} listeners, and --listen names the address of a single one",
                        config.origin().display(),
                        several.len()
                    )));
                }
            }
            serve
        }
        (None, None) => {
            return Err(Failure::usage(format!(
                "{}: there is no section `serve`; write one, or name an address, such as `tierstack serve --listen 127.0.0.1:9187`",
                config.origin().display()
            )));
        }
    };
    serve.check()?;
    Ok(serve)
}
