//! A pooler in front of a PostgreSQL server.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::postgres::server_user;
use super::process::{NotStarted, Process, Signals};
use super::{Postgres, blocking, port, required};

const SIGNALS: Signals = Signals { shutdown: "TERM", quit: "TERM" };

/// PgBouncer with two connections to the server, which trusts everyone.
pub(crate) struct PgBouncer {
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl PgBouncer {
    /// In one of its modes: `session`, `transaction` or `statement`.
    pub(crate) async fn to(server: &Postgres, mode: &str, settings: &str) -> Option<Self> {
        let program = required(program(), "PgBouncer is not installed (pgbouncer)")?;
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        for _ in 0..20 {
            let port = port::free();
            let text = format!(
                "[databases]\npostgres = host=127.0.0.1 port={} dbname=postgres user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 2\n{settings}\n",
                server.port()
            );
            let file = folder.path().join("pgbouncer.ini");
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
            let (program, log) = (program.clone(), folder.path().join("log"));
            let started = blocking(move || start(&program, &file, &log)).await;
            match started {
                Ok(process) => return Some(Self { _process: process, _folder: folder, port }),
                Err(NotStarted::AddressInUse) => {}
                Err(NotStarted::Other(why)) => panic!("{why}"),
            }
        }
        panic!("every port that was free was taken by another a moment later");
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

fn start(program: &Path, file: &Path, log: &Path) -> Result<Process, NotStarted> {
    let mut command = Command::new(program);
    command.arg(file);
    // It refuses to be root, as the server does.
    if Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n") {
        let (user, group) = server_user();
        command.uid(user).gid(group);
    }
    Process::start(command, log, "process up", SIGNALS)
}

/// Not always in the `PATH` of a user who is not root.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
}
