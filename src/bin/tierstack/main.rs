//! `tierstack`: checks, reads, writes, moves and backs up the stores of a config file.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod args;
mod commands;
mod failure;
mod file;
mod jsonl;
mod output;
mod progress;
mod replay;
mod session;
mod sink;
mod stop;
mod trace;
mod walk;

use std::process::ExitCode;

use clap::Parser;

use tierstack::Error;

use crate::args::Args;
use crate::failure::Failure;
use crate::stop::Stop;

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::from(Error::io("the threads could not be started", error)).report();
        }
    };
    let done = runtime.block_on(async { commands::run(args.command, &Stop::listen()).await });
    // Nothing of ours still runs: every store is closed. A read of standard input may hang forever.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Events that `RUST_LOG` asks for; when it is not set, warnings of the library. What libraries below it
/// warn of, such as a connection that is replaced, is in its errors where it matters.
fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV);
    let filter = EnvFilter::builder().parse_lossy(wanted.as_deref().unwrap_or("tierstack=warn"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_ansi(colours).with_writer(std::io::stderr);
    log.with_env_filter(filter).init();
}
