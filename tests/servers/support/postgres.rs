//! PostgreSQL servers of a test's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{NotStarted, Process, Signals, output, signal};
use super::{Certificates, blocking, port, required};

/// In order is "fast": it ends the sessions. At once is "immediate", which cleans up, unlike SIGKILL.
const SIGNALS: Signals = Signals { shutdown: "INT", quit: "QUIT" };

/// One server with an empty cluster of databases, in the settings that PostgreSQL comes with.
pub(crate) struct Postgres {
    /// `None` after a kill or a shutdown.
    process: Option<Process>,
    settings: Arc<Settings>,
    port: u16,
    next_database: AtomicU32,
}

/// How a server differs from [`Postgres::start`].
#[derive(Default)]
pub(crate) struct PostgresOptions {
    password: Option<String>,
    certificates: Option<Arc<Certificates>>,
    settings: Vec<String>,
    standby_of: Option<u16>,
}

struct Settings {
    folder: TempDir,
    programs: PathBuf,
    /// User and group that it runs as: it refuses to be root.
    user: Option<(u32, u32)>,
    options: PostgresOptions,
}

impl Postgres {
    /// Starts a server that trusts everyone on loopback.
    pub(crate) async fn start() -> Option<Self> {
        PostgresOptions::default().start().await
    }

    pub(crate) fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    async fn run(&mut self) -> Result<(), NotStarted> {
        let (settings, port) = (Arc::clone(&self.settings), self.port);
        self.process = Some(blocking(move || settings.run(port)).await?);
        Ok(())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Of the superuser and the database `postgres`.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Of the superuser and that database.
    pub(crate) fn url_of(&self, database: &str) -> String {
        let options = &self.settings.options;
        let password = options.password.as_ref().map(|p| format!(":{p}")).unwrap_or_default();
        let tls = if options.certificates.is_some() { "?sslmode=require" } else { "" };
        format!("postgres://postgres{password}@{}/{database}{tls}", self.addr())
    }

    /// Of a new, empty database.
    pub(crate) async fn fresh_url(&self) -> String {
        let name = format!("test{}", self.next_database.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}")).await;
        self.url_of(&name)
    }

    /// What `psql` answers in the database `postgres`, as bare rows with columns parted by `|`.
    pub(crate) async fn sql(&self, sql: &str) -> String {
        let mut command = Command::new(self.settings.programs.join("psql"));
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &self.url(),
            "-c",
            sql,
        ]);
        blocking(move || output(&mut command)).await.trim_end().to_owned()
    }

    /// The process of a session, by its `pg_backend_pid()`, dies of SIGKILL. The server then ends all
    /// other sessions too and recovers by itself.
    pub(crate) fn kill_session(&self, pid: u32) {
        signal("KILL", &[pid]);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// SIGKILL to all of its processes at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP to all of its processes: they keep their connections, the system accepts new ones for
    /// them, and nothing answers.
    pub(crate) fn stop(&self) {
        self.process.as_ref().expect("it runs").stop();
    }

    /// SIGCONT.
    pub(crate) fn cont(&self) {
        self.process.as_ref().expect("it runs").cont();
    }

    /// Ends it in order; open sessions are cut off.
    pub(crate) async fn shutdown(&mut self) {
        if let Some(mut process) = self.process.take() {
            blocking(move || process.shutdown()).await;
        }
    }

    /// Ends it in order where it still runs, and starts it at the same port with the same data.
    pub(crate) async fn restart(&mut self) {
        self.shutdown().await;
        let begun = Instant::now();
        loop {
            match self.run().await {
                Ok(()) => return,
                Err(NotStarted::AddressInUse) if begun.elapsed() < Duration::from_secs(60) => {
                    blocking(|| sleep(Duration::from_millis(100))).await;
                }
                Err(NotStarted::AddressInUse) => panic!("port {} was taken", self.port),
                Err(NotStarted::Other(why)) => panic!("{why}"),
            }
        }
    }
}

impl PostgresOptions {
    /// Asks for this password of the user `postgres`, with SCRAM.
    pub(crate) fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Refuses connections without TLS.
    pub(crate) fn tls(mut self, certificates: &Arc<Certificates>) -> Self {
        self.certificates = Some(Arc::clone(certificates));
        self
    }

    /// A setting of postgresql.conf, such as `set("max_connections", "10")`.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push(format!("{name}={value}"));
        self
    }

    /// A copy of that server, which follows it.
    pub(crate) fn standby_of(mut self, primary: &Postgres) -> Self {
        self.standby_of = Some(primary.port);
        self
    }

    pub(crate) async fn start(self) -> Option<Postgres> {
        let programs =
            required(programs(), "PostgreSQL is not installed (initdb, postgres, psql)")?;
        let settings = Arc::new(blocking(move || Settings::prepare(programs, self)).await);
        let mut server =
            Postgres { process: None, settings, port: 0, next_database: AtomicU32::new(0) };
        for _ in 0..20 {
            server.port = port::free();
            match server.run().await {
                Ok(()) => return Some(server),
                Err(NotStarted::AddressInUse) => {}
                Err(NotStarted::Other(why)) => panic!("{why}"),
            }
        }
        panic!("every port that was free was taken by another a moment later");
    }
}

impl Settings {
    /// Makes the cluster of databases.
    fn prepare(programs: PathBuf, options: PostgresOptions) -> Self {
        let mut folder = tempfile::tempdir().unwrap();
        let user = (fs::metadata(folder.path()).unwrap().uid() == 0).then(server_user);
        let is_open = |folder: &Path| fs::metadata(folder).unwrap().mode() & 1 == 1;
        if user.is_some() && !folder.path().ancestors().skip(1).all(is_open) {
            // TMPDIR is in root's own place.
            folder = tempfile::tempdir_in("/tmp").unwrap();
        }
        // Others may pass through, not list.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let settings = Self { folder, programs, user, options };
        fs::create_dir(settings.data()).unwrap();
        settings.give(&settings.data(), 0o700);

        if let Some(port) = &settings.options.standby_of {
            let mut command = settings.command("pg_basebackup");
            command.args(["-R", "-c", "fast", "-X", "stream", "--no-sync", "-U", "postgres"]);
            command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-D"]);
            output(command.arg(settings.data()));
            return settings;
        }
        let mut command = settings.command("initdb");
        // Nothing in it is worth a sync yet. The server itself syncs as it does by default.
        command.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        command.arg(settings.data());
        let method = match &settings.options.password {
            None => "trust",
            Some(password) => {
                let file = settings.folder.path().join("password");
                fs::write(&file, password).unwrap();
                settings.give(&file, 0o600);
                command.arg("--pwfile").arg(file);
                "scram-sha-256"
            }
        };
        output(command.args(["-A", method]));
        if let Some(files) = &settings.options.certificates {
            for (from, name) in [(files.certificate(), "server.crt"), (files.key(), "server.key")] {
                fs::copy(from, settings.data().join(name)).unwrap();
                settings.give(&settings.data().join(name), 0o600);
            }
            let rule = format!("hostssl all all 127.0.0.1/32 {method}\n");
            fs::write(settings.data().join("pg_hba.conf"), rule).unwrap();
        }
        settings
    }

    fn run(&self, port: u16) -> Result<Process, NotStarted> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &port.to_string()]);
        let mut set = |setting: &str| {
            command.args(["-c", setting]);
        };
        set("listen_addresses=127.0.0.1");
        set("unix_socket_directories=");
        // In the data folder, so that a kill leaves nothing behind in /dev/shm.
        set("dynamic_shared_memory_type=mmap");
        if self.options.certificates.is_some() {
            set("ssl=on");
        }
        for setting in &self.options.settings {
            set(setting);
        }
        let log = self.folder.path().join("log");
        Process::start(command, &log, "database system is ready to accept ", SIGNALS)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Makes a file or folder the server's.
    fn give(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }
}

impl Drop for Postgres {
    /// A killed server leaves a few bytes of System V shared memory, until it is started again.
    fn drop(&mut self) {
        if self.process.is_none() {
            let file = self.settings.data().join("postmaster.pid");
            let text = fs::read_to_string(file).unwrap_or_default();
            let words: Vec<&str> =
                text.lines().nth(6).unwrap_or_default().split_whitespace().collect();
            if let [_key, id] = words[..] {
                let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
            }
        }
    }
}

/// The folder with the server's programs: not in `PATH` on Debian.
fn programs() -> Option<PathBuf> {
    let version = |folder: &Path| {
        let name = folder.file_name()?.to_str()?;
        name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok()
    };
    let mut installed = Vec::new();
    for root in ["/usr/lib/postgresql", "/usr", "/opt/homebrew/opt", "/usr/local/opt"] {
        let folders = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        installed
            .extend(folders.filter_map(|folder| Some((version(&folder)?, folder.join("bin")))));
    }
    installed.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newest_first = installed.into_iter().rev().map(|(_, folder)| folder);
    // A link in `PATH` may lead to one of them, and its neighbours not be linked.
    let homes = std::env::split_paths(&path).chain(newest_first).filter_map(|folder| {
        Some(fs::canonicalize(folder.join("initdb")).ok()?.parent()?.to_owned())
    });
    let is_whole = |home: &PathBuf| ["postgres", "psql"].iter().all(|p| home.join(p).is_file());
    homes.into_iter().find(is_whole)
}

/// The user `postgres`, as which the server runs where the tests are run by root.
pub(super) fn server_user() -> (u32, u32) {
    let id = |which: &str| {
        let number = output(Command::new("id").args([which, "postgres"]));
        number.trim().parse().expect("a number")
    };
    (id("-u"), id("-g"))
}
