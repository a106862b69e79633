//! `tierstack`: checks, reads, writes, moves and backs up the stores of a config file.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod args;
mod commands;
mod entry_in_words;
mod failure;
mod lines;
mod log;
mod numbers;
mod output;
mod output_file;
mod process;
mod progress;
mod replay;
mod session;
mod shutdown;
mod sink;
#[cfg(feature = "serve")]
mod supervisor;
mod terminal;
mod walk;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use tierstack::Error;

use crate::args::Args;
use crate::failure::Failure;
use crate::shutdown::Shutdown;

fn main() -> ExitCode {
    let args = Args::parse();
    log::to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::from(Error::io("the threads could not be started", error)).report();
        }
    };
    let signals = args.command.signals();
    let done =
        runtime.block_on(async { commands::run(args.command, &Shutdown::listen(signals)).await });
    // Nothing of ours still runs: every store is closed. A read of standard input may hang forever.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
