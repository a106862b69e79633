//! The command line as types: help, completions and parsing come from here.

mod adopt;
mod demo;
mod journal;
mod shared;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args as Group, Parser, Subcommand, ValueHint};

pub(crate) use self::adopt::Adopt;
pub(crate) use self::demo::{Demo, Engine};
pub(crate) use self::journal::{Journal, JournalDrain, JournalInspect, JournalSkip};
pub(crate) use self::shared::{JsonArgs, StoreArgs};
use self::shared::{path, secret};
use tierstack::Timestamp;
use tierstack::units::{ByteSize, Secret, Span};

/// Cache, compression, encryption and backups in front of any key-value store.
#[derive(Parser)]
#[command(name = "tierstack", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit code: 0 done, 1 failed or stopped, 2 wrong usage or config.")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Draw the stacks of a config and say what each guarantees; opens nothing
    Check(Check),
    /// Look at a store that is there already, and print a config that opens it as it is; changes nothing
    Adopt(Adopt),
    /// Print the JSON Schema of config files, for editors, or the SQL that makes the table of a backend
    Schema(Schema),
    /// Show the main job on real files: import, read, back up, damage, restore, prove
    Demo(Demo),
    /// Print the value of a key
    Get(Get),
    /// Set the value of a key
    Put(Put),
    /// Remove keys
    Delete(Delete),
    /// Print entries in key order, as JSON lines
    Scan(ScanArgs),
    /// Read entries from JSON lines
    Import(Import),
    /// Write entries as JSON lines
    Export(Export),
    /// Copy entries to another store
    Copy(Copy),
    /// Encode again what is not as the present settings would write it
    Rewrite(Rewrite),
    /// Take, list, verify and restore backups
    #[command(subcommand)]
    Backup(Backup),
    /// Look after what `write_back` has acknowledged, while the store is closed
    #[command(subcommand)]
    Journal(Journal),
    /// Make caches forget
    #[command(subcommand)]
    Cache(Cache),
    /// Show what each place that keeps entries has of a key, cache by cache
    Inspect(Inspect),
    /// Serve the stores of a config over HTTP, with their schedules, until it is stopped
    #[cfg(feature = "serve")]
    Serve(Serve),
    /// Measure how long reads of a store take, or of two configs side by side; changes nothing
    Bench(Bench),
    /// Tell what the stores of a running process do now
    Status(Status),
    /// Watch the layers of a running process, in the terminal
    Top(ProcessArgs),
    /// Make keys for `encrypt`
    #[command(subcommand)]
    Keys(Keys),
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// How many signals end it at once; those before ask for an orderly end.
    pub(crate) fn signals(&self) -> u32 {
        match self {
            // The second one gives up what is under way, and still closes the stores.
            #[cfg(feature = "serve")]
            Self::Serve(_) => 3,
            _ => 2,
        }
    }
}

/// Which running process, and which of its stores.
#[derive(Group, Clone)]
pub(crate) struct ProcessArgs {
    /// The config file, whose `control` names the socket of the process
    #[arg(long, value_name = "FILE", default_value = "tierstack.yaml", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) config: PathBuf,
    /// Ask the server at this address instead, such as http://127.0.0.1:9187
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub(crate) url: Option<String>,
    /// Where the token for the server is: env:NAME or file:PATH
    #[arg(long, value_name = "WHERE", requires = "url", value_parser = secret)]
    pub(crate) token: Option<Secret>,
    /// Only this store
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
}

#[derive(Group)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// What is done about entries that cannot be read.
#[derive(Group, Clone, Copy)]
pub(crate) struct SkipArgs {
    /// Leave out entries that cannot be read, such as damaged ones, and name each on standard error
    #[arg(long)]
    pub(crate) skip: bool,
}

#[derive(Group)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Group)]
pub(crate) struct Schema {
    /// The backend whose table is to be made: postgres or sqlite
    pub(crate) backend: Option<String>,
    /// The config file of the store whose table it is [default: a store with default settings]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path(), requires = "backend")]
    pub(crate) config: Option<PathBuf>,
    /// The store of the config [default: the config's `default`]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(crate) store: Option<String>,
}

/// One key, as text or as base64.
#[derive(Group)]
#[command(group = ArgGroup::new("one key").required(true).args(["key", "key64"]))]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The key, as text
    pub(crate) key: Option<String>,
    /// The key, as base64
    #[arg(long, value_name = "BASE64")]
    pub(crate) key64: Option<String>,
    /// Print a JSON line with key, value and expiry in place of the value's bytes
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Group)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The key, as text; with --key64 this place is the value's
    #[arg(value_name = "KEY", required_unless_present = "key64")]
    pub(crate) first: Option<String>,
    /// The value, as text; `-` or nothing reads standard input
    #[arg(value_name = "VALUE|-", allow_hyphen_values = true)]
    pub(crate) second: Option<String>,
    /// The key, as base64
    #[arg(long, value_name = "BASE64", conflicts_with = "second")]
    pub(crate) key64: Option<String>,
    /// Let the entry expire after this time, such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_in: Option<Span>,
}

#[derive(Group)]
#[command(group = ArgGroup::new("some keys").required(true).multiple(true).args(["keys", "key64"]))]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The keys, as text
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// A key, as base64; may be repeated
    #[arg(long, value_name = "BASE64")]
    pub(crate) key64: Vec<String>,
}

#[derive(Group)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Only keys that begin with this
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) prefix: Option<String>,
    /// The smallest key
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<String>,
    /// The key before which to stop
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<String>,
    /// From the largest key to the smallest
    #[arg(long)]
    pub(crate) reverse: bool,
    /// At most this many entries
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Print keys, one a line, as they are; with --json as JSON lines. Values are not read where the store can avoid it
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Print JSON lines, also for --keys-only
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) skip: SkipArgs,
}

#[derive(Group)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// A file of JSON lines; `-` reads standard input
    #[arg(value_name = "FILE|-", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) file: PathBuf,
    /// Begin at this line, where an earlier import stopped
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from_line: u64,
    /// The longest line that is read
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) max_line: ByteSize,
}

#[derive(Group)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Only keys that begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Write to this file, which appears once it is whole; `-` is standard output, the default
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) skip: SkipArgs,
}

#[derive(Group)]
pub(crate) struct Copy {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// The config file of the store to copy to; may be the same file
    #[arg(long, value_name = "CONFIG", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) to: PathBuf,
    /// The store to copy to [default: that config's `default`]
    #[arg(long, value_name = "NAME")]
    pub(crate) to_store: Option<String>,
    /// Only keys that begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Read both stores again afterwards and compare every entry
    #[arg(long)]
    pub(crate) verify: bool,
    /// Copy also where both stores hold the same data, as from one prefix to another
    #[arg(long)]
    pub(crate) same_data: bool,
    #[command(flatten)]
    pub(crate) skip: SkipArgs,
}

#[derive(Group)]
pub(crate) struct Rewrite {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Subcommand)]
pub(crate) enum Backup {
    /// Take a backup now
    Run(BackupRun),
    /// List what can be restored
    List(BackupArgs),
    /// Read every byte of the backups and check it
    Verify(BackupArgs),
    /// Restore into an empty store
    Restore(Restore),
}

#[derive(Group)]
pub(crate) struct BackupRun {
    #[command(flatten)]
    pub(crate) args: BackupArgs,
    /// Upload everything, sharing nothing with earlier backups: after `verify` found damage
    #[arg(long)]
    pub(crate) whole: bool,
}

#[derive(Group)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Group)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// The config file of the store to restore into, which must be empty
    #[arg(long, value_name = "CONFIG", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) into: PathBuf,
    /// The store to restore into [default: that config's `default`]
    #[arg(long, value_name = "NAME")]
    pub(crate) into_store: Option<String>,
    /// The moment to restore, as RFC 3339 [default: the latest]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["seq", "base"])]
    pub(crate) at: Option<Timestamp>,
    /// The sequence number to restore
    #[arg(long, value_name = "N", conflicts_with = "base")]
    pub(crate) seq: Option<u64>,
    /// The backup to restore, by its name in `backup list`
    #[arg(long, value_name = "ID")]
    pub(crate) base: Option<String>,
    /// Only keys that begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Go on with a restore that was cut off
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) resume: bool,
    /// Restore although the journal of `write_back` holds writes, which then replace what was restored
    #[arg(long)]
    pub(crate) over_journal: bool,
    /// Print the plan and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Subcommand)]
pub(crate) enum Cache {
    /// Drop what the caches keep of keys; the data stay as they are
    Invalidate(Invalidate),
}

#[derive(Group)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["keys", "key64", "prefix", "prefix64", "all"]))]
pub(crate) struct Invalidate {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// The keys, as text
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// A key, as base64; may be repeated
    #[arg(long, value_name = "BASE64")]
    pub(crate) key64: Vec<String>,
    /// Every key that begins with this
    #[arg(long, conflicts_with_all = ["keys", "key64", "prefix64", "all"])]
    pub(crate) prefix: Option<String>,
    /// Every key that begins with these bytes, as base64
    #[arg(long, value_name = "BASE64", conflicts_with_all = ["keys", "key64", "all"])]
    pub(crate) prefix64: Option<String>,
    /// Every key
    #[arg(long, conflicts_with_all = ["keys", "key64"])]
    pub(crate) all: bool,
}

/// One key, as text, as base64, or as the number that stands for it in a log.
#[derive(Group)]
#[command(group = ArgGroup::new("one key").required(true).args(["key", "key64", "fingerprint"]))]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// The key, as text
    pub(crate) key: Option<String>,
    /// The key, as base64
    #[arg(long, value_name = "BASE64")]
    pub(crate) key64: Option<String>,
    /// Read the whole store for the key that a message calls `key #FINGERPRINT`
    #[arg(long, value_parser = fingerprint)]
    pub(crate) fingerprint: Option<u64>,
}

/// The number as messages print it, in hexadecimal, with or without its `#`.
fn fingerprint(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16);
    number.ok_or_else(|| "write the 16 hexadecimal digits of `key #...`".to_owned())
}

#[cfg(feature = "serve")]
#[derive(Group)]
pub(crate) struct Serve {
    /// The config file: YAML, TOML or JSON
    #[arg(long, value_name = "FILE", default_value = "tierstack.yaml", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) config: PathBuf,
    /// Listen at this address, in place of that of the config's single listener; without a section `serve`, every
    /// store is served there for reading and writing
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,
}

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Print a new entry of a key ring on the last line, or write it to a file
    Generate(Generate),
}

#[derive(Group)]
pub(crate) struct Generate {
    /// Write a new file there that only its owner can read, and do not print the entry; `-` prints it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

impl Generate {
    /// The file that is to be written.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.out.as_deref().filter(|path| *path != Path::new("-"))
    }
}

#[derive(Group)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// The config file to compare with, of the same data
    #[arg(long, value_name = "CONFIG", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) against: Option<PathBuf>,
    /// The store to compare with [default: that config's `default`]
    #[arg(long, value_name = "NAME")]
    pub(crate) against_store: Option<String>,
    /// Replay this trace: one key a line, or big-endian 32-bit ids; plain, gzip or xz
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) trace: Option<PathBuf>,
    /// Reads; of a trace at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) reads: Option<u64>,
    /// Keys that are read, from the beginning of the store
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) keys: u64,
    /// Draw the latencies into this file
    #[arg(long, value_name = "FILE.svg", value_hint = ValueHint::FilePath, value_parser = path())]
    pub(crate) plot: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Args;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_documentation_names_every_command_and_option() {
        let page = include_str!("../../../docs/command.md");
        let mut commands = vec![Args::command()];
        while let Some(command) = commands.pop() {
            for inner in command.get_subcommands() {
                assert!(page.contains(inner.get_name()), "{}", inner.get_name());
                commands.push(inner.clone());
            }
            for option in command.get_opts().filter_map(clap::Arg::get_long) {
                assert!(
                    page.contains(&format!("--{option}")),
                    "--{option} of {}",
                    command.get_name()
                );
            }
        }
    }
}
