//! The address at which Prometheus reads.

use std::net::SocketAddr;

use crate::error::{Error, Result};

/// Serves [`render`](super::render()) by HTTP at that address, under `/metrics`, from now until the process ends. To be
/// called in a tokio runtime, before stacks are opened.
///
/// Unless another recorder is installed, it installs one, so that what the program itself records through the facade
/// `metrics` is served too. Any program that reaches the address can read; a config refuses one beyond loopback unless it says
/// so by name.
///
/// # Errors
/// `Unavailable` if the address is taken; `Unsupported` outside a tokio runtime, or without the feature `telemetry`.
#[cfg(feature = "telemetry")]
pub fn listen(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
        Error::unsupported(
            "metrics are served by a task of a tokio runtime, and there is none here",
        )
        .with_source(error)
    })?;
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let listener = bind().map_err(|error| {
        let message =
            format!("telemetry.listen {address} is taken, or not an address of this machine");
        Error::new(crate::error::ErrorKind::Unavailable, message).with_source(error)
    })?;
    super::others::install(&runtime);
    runtime.spawn(super::endpoint::serve(listener));
    Ok(())
}

/// See the function of the same name with the feature `telemetry`.
///
/// # Errors
/// `Unsupported`, always.
#[cfg(not(feature = "telemetry"))]
pub fn listen(_address: SocketAddr) -> Result<()> {
    Err(Error::unsupported(
        "this build serves no metrics; build tierstack with the cargo feature 'telemetry'",
    ))
}
