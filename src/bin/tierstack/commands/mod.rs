//! The commands, one module each.

mod adopt;
mod backup;
mod bench;
mod cache;
mod check;
mod copy;
mod demo;
mod entries;
mod export;
mod import;
mod journal;
mod keys;
#[cfg(feature = "serve")]
mod reload;
mod rewrite;
mod schema;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod serve_section;
mod status;
mod top;

use clap::CommandFactory;

use crate::args::{Args, Backup, Command, Journal, Keys};
use crate::failure::Outcome;
use crate::output;
use crate::shutdown::Shutdown;

/// Runs a command to its end.
pub(crate) async fn run(command: Command, stop: &Shutdown) -> Outcome {
    if is_for_its_output(&command) {
        output::refuse_closed()?;
    }
    match command {
        Command::Check(args) => check::check(&args),
        Command::Adopt(args) => adopt::run(&args, stop).await,
        Command::Schema(args) => schema::run(&args),
        Command::Demo(args) => demo::run(args, stop).await,
        Command::Get(args) => entries::get(args, stop).await,
        Command::Put(args) => entries::put(args, stop).await,
        Command::Delete(args) => entries::delete(args, stop).await,
        Command::Scan(args) => entries::scan(args, stop).await,
        Command::Import(args) => import::run(args, stop).await,
        Command::Export(args) => export::run(args, stop).await,
        Command::Copy(args) => copy::run(args, stop).await,
        Command::Rewrite(args) => rewrite::run(args, stop).await,
        Command::Backup(args) => backup::run(args, stop).await,
        Command::Journal(args) => journal::run(args, stop).await,
        Command::Cache(args) => cache::run(args, stop).await,
        Command::Inspect(args) => cache::inspect(args, stop).await,
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args, stop).await,
        Command::Bench(args) => bench::run(&args, stop).await,
        Command::Status(args) => status::run(&args, stop).await,
        Command::Top(args) => top::run(&args, stop).await,
        Command::Keys(args) => keys::run(&args),
        Command::Completions { shell } => completions(shell),
    }
}

/// Whether nothing is left of the command but what it prints. `export` decides by its target.
fn is_for_its_output(command: &Command) -> bool {
    match command {
        Command::Adopt(_)
        | Command::Schema(_)
        | Command::Get(_)
        | Command::Scan(_)
        | Command::Inspect(_)
        | Command::Backup(Backup::List(_))
        | Command::Journal(Journal::Inspect(_))
        | Command::Completions { .. } => true,
        Command::Keys(Keys::Generate(args)) => args.file().is_none(),
        _ => false,
    }
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "tierstack", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
