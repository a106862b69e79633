//! Tables that other programs made: Django, Rails, `requests-cache`. The program writes, tierstack reads, writes, scans, backs up,
//! restores and copies, and the program reads again. Its schema, settings, modes and numbers of rows stay as they were.

#![cfg(all(feature = "cli", feature = "postgres", feature = "sqlite", feature = "backup"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tierstack::config::{Config, Format, Registry};
use tierstack::{OpenOptions, ReadExt, Scan, Stack, Stacks, StoreExt};

use crate::support::{self, Postgres};

/// What a program answers, as JSON.
#[track_caller]
fn answer(command: &mut Command) -> Json {
    let ran = command.env_remove("RUST_LOG").env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ran.status.success(), "{command:?}: {}{}", text(&ran.stdout), text(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap_or(Json::Null)
}

/// Of a script here, which is told where its database is.
struct Owner {
    python: String,
    script: &'static str,
    database: String,
}

impl Owner {
    /// `None`: its packages are not here.
    fn new(script: &'static str, database: impl Into<String>) -> Option<Self> {
        let python = support::var("TIERSTACK_TEST_PROGRAMS")?;
        Some(Self { python, script, database: database.into() })
    }

    #[track_caller]
    fn does(&self, words: &[&str]) -> Json {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/programs");
        let mut command = Command::new(&self.python);
        answer(command.arg(script.join(self.script)).arg(&self.database).args(words))
    }
}

/// The stores of a program: `app` is its table, with backups; `saved` a store of tierstack's own.
struct Stores {
    folder: TempDir,
    config: PathBuf,
}

impl Stores {
    fn new(folder: TempDir, backend: &str) -> Self {
        let config = folder.path().join("tierstack.yaml");
        let text = format!(
            "default: app
stores:
  app:
    layers: [ backup: {{ to: ./backups }} ]
    backend: {{ {backend} }}
  saved:
    backend: {{ sqlite: {{ path: saved.db }} }}
"
        );
        std::fs::write(&config, text).unwrap();
        Self { folder, config }
    }

    async fn open(&self) -> Stacks {
        let text = std::fs::read_to_string(&self.config).unwrap();
        let config = Config::parse(&text, Format::Yaml, &self.config).unwrap();
        Stacks::open_all(&config, &Registry::standard(), &OpenOptions::default()).await.unwrap()
    }

    #[track_caller]
    fn command(&self, words: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierstack"));
        let _ = answer(command.args(words).arg("--config").arg(&self.config));
    }

    /// Backs the program's table up, and restores it into the store of our own.
    fn back_up_and_restore(&self) {
        self.command(&["backup", "run", "--store", "app"]);
        self.command(&["backup", "verify", "--store", "app"]);
        let config = self.config.to_str().unwrap();
        self.command(&[
            "backup",
            "restore",
            "--store",
            "app",
            "--into",
            config,
            "--into-store",
            "saved",
        ]);
    }

    /// Copies what was restored to the program's table.
    fn copy_back(&self) {
        let config = self.config.to_str().unwrap();
        self.command(&[
            "copy",
            "--store",
            "saved",
            "--to",
            config,
            "--to-store",
            "app",
            "--verify",
        ]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// What the owner of a SQLite database would see change: its schema, settings, numbers of rows, and the file's rights.
fn sqlite_state(path: &Path) -> Vec<String> {
    let db = rusqlite::Connection::open(path).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
        rows.map(|row| row.unwrap().unwrap_or_default()).collect()
    };
    let mut state =
        texts("SELECT concat_ws(' ', type, name, tbl_name, sql) FROM sqlite_schema ORDER BY 1");
    for pragma in
        ["journal_mode", "user_version", "application_id", "encoding", "auto_vacuum", "page_size"]
    {
        let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
        state.push(format!("{pragma} {:?}", texts(&sql)));
    }
    for table in texts("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
        let count = texts(&format!("SELECT CAST(count(*) AS TEXT) FROM \"{table}\""));
        state.push(format!("{table} {count:?}"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(path).unwrap();
        state.push(format!("{:o} {} {}", file.mode(), file.uid(), file.gid()));
    }
    state
}

/// The same of a database of PostgreSQL.
const POSTGRES_STATE: &str = "
    SELECT concat_ws(' ', c.relname, c.relkind, c.reloptions, c.relacl, c.relowner, obj_description(c.oid),
        (SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, col_description(attrelid, attnum),
            (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum)), ',' ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0),
        (SELECT string_agg(pg_get_constraintdef(oid), ',' ORDER BY conname) FROM pg_constraint WHERE conrelid = c.oid),
        (SELECT string_agg(pg_get_triggerdef(oid), ',' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid),
        (SELECT string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid) FROM pg_index WHERE indrelid = c.oid),
        CASE WHEN c.relkind = 'r' THEN (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', c.relname), false, true, '')))[1]::text END)
    FROM pg_class c WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat(setdatabase, setrole, setconfig) FROM pg_db_role_setting
    UNION ALL SELECT concat(proname, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1";

fn object(value: &[u8]) -> Json {
    serde_json::from_slice(value).unwrap()
}

/// Django's users, as JSON objects under their numbers.
async fn users_of_django(django: &Owner, stores: &Stores, state: impl AsyncFn() -> String) {
    let keys = tierstack::keys::pack::<i64>;
    let before = state().await;
    let users = django.does(&["users"]);
    assert_eq!(users.as_array().unwrap().len(), 20);
    let stacks = stores.open().await;
    let app: &Stack = &stacks["app"];
    let all = app.collect(Scan::all()).await.unwrap();
    assert_eq!(all.len(), 20);
    for (entry, user) in all.iter().zip(users.as_array().unwrap()) {
        assert_eq!(entry.key, keys(&user[0].as_i64().unwrap()).unwrap());
        let fields = object(&entry.value.bytes);
        assert_eq!((&fields["username"], &fields["email"]), (&user[1], &user[2]));
    }
    // While the store is open, each sees what the other wrote.
    django.does(&["rename", "user3", "django@example.com"]);
    let key = all.iter().find(|entry| object(&entry.value.bytes)["username"] == "user3").unwrap();
    let mut fields = object(&app.get(&key.key).await.unwrap().unwrap().bytes);
    assert_eq!(fields["email"], "django@example.com");
    fields["email"] = json!("tierstack@example.com");
    app.put(key.key.clone(), fields.to_string()).await.unwrap();
    let users = django.does(&["users"]);
    assert_eq!((&users[3][1], &users[3][2]), (&json!("user3"), &json!("tierstack@example.com")));
    // A new user has a row as Django's own have.
    fields["username"] = json!("new");
    app.put(keys(&1000).unwrap(), fields.to_string()).await.unwrap();
    let new = &django.does(&["users"])[20];
    assert_eq!((&new[0], &new[1]), (&json!(1000), &json!("new")));
    app.delete(keys(&1000).unwrap()).await.unwrap();
    stacks.close_all().await.unwrap();
    assert_eq!(django.does(&["users"]), users);

    stores.back_up_and_restore();
    assert_eq!(state().await, before);
    assert_eq!(django.does(&["delete"]), 20);
    stores.copy_back();
    assert_eq!(django.does(&["users"]), users);
    assert_eq!(state().await, before);
}

const DJANGO_ROW: &str =
    "columns: { key: id, value: { columns: all, as: json } }, keys: tuple, create: false";

#[tokio::test(flavor = "multi_thread")]
async fn djangos_tables_in_sqlite_stay_djangos() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let Some(django) = Owner::new("django_app.py", path.to_str().unwrap()) else { return };
    let _ = django.does(&["setup"]);
    let stores =
        Stores::new(folder, &format!("sqlite: {{ path: app.db, table: auth_user, {DJANGO_ROW} }}"));
    let state = async || sqlite_state(&path).join("\n");
    users_of_django(&django, &stores, state).await;

    // Its sessions are texts; a new one needs more than that, so they are read.
    let folder = stores.path("sessions");
    std::fs::create_dir(&folder).unwrap();
    let config = "stores: { app: { backend: { sqlite: { path: ../app.db, table: django_session, columns: { key: session_key, value: session_data }, keys: text, values: text, read_only: true } } } }";
    let config = Config::parse(config, Format::Yaml, folder.join("c.yaml")).unwrap();
    let (registry, options) = (Registry::standard(), OpenOptions::default());
    let stacks = Stacks::open_all(&config, &registry, &options).await.unwrap();
    let sessions = stacks["app"].collect(Scan::all()).await.unwrap();
    let key = std::str::from_utf8(&sessions[0].key).unwrap();
    assert_eq!(django.does(&["cart", key]), json!([1, 2]));
    stacks.close_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn djangos_tables_in_postgres_stay_djangos() {
    let Some(server) = Postgres::start().await else { return };
    let Some(django) = Owner::new("django_app.py", server.url()) else { return };
    let _ = django.does(&["setup"]);
    let stores = Stores::new(
        tempfile::tempdir().unwrap(),
        &format!(
            "postgres: {{ url: \"{}\", table: public.auth_user, {DJANGO_ROW} }}",
            server.url()
        ),
    );
    users_of_django(&django, &stores, async || server.sql(POSTGRES_STATE).await).await;
}

/// Its rows keep the defaults and the times that Rails gives them.
#[tokio::test(flavor = "multi_thread")]
async fn rails_rows_with_uuids_stay_as_rails_made_them() {
    let Some(server) = Postgres::start().await else { return };
    server.sql(include_str!("rails.sql")).await;
    let row = "INSERT INTO articles (title, created_at, updated_at) SELECT 'article ' || n, '2026-01-31 12:00:00', '2026-01-31 12:00:00' FROM generate_series(1, 20) n";
    server.sql(row).await;
    let stores = Stores::new(
        tempfile::tempdir().unwrap(),
        &format!(
            "postgres: {{ url: \"{}\", table: public.articles, columns: {{ key: id, value: {{ columns: all, as: json }} }}, keys: text, create: false }}",
            server.url()
        ),
    );
    let state = async || server.sql(POSTGRES_STATE).await;
    let rows = async || server.sql("SELECT * FROM articles ORDER BY id").await;
    let (before, all) = (state().await, rows().await);
    let stacks = stores.open().await;
    let app = &stacks["app"];
    let found = app.collect(Scan::all()).await.unwrap();
    let ids = server.sql("SELECT id FROM articles ORDER BY id").await;
    let keys: Vec<_> = found.iter().map(|entry| entry.key.as_ref()).collect();
    assert_eq!(keys, ids.lines().map(str::as_bytes).collect::<Vec<_>>());
    let first = &found[0];
    // As `Article#update` does it, with its lock.
    server
        .sql(&format!(
            "UPDATE articles SET title = 'by Rails', lock_version = 1 WHERE id = '{}' AND lock_version = 0",
            ids.lines().next().unwrap()
        ))
        .await;
    let mut fields = object(&app.get(&first.key).await.unwrap().unwrap().bytes);
    assert_eq!((&fields["title"], &fields["lock_version"]), (&json!("by Rails"), &json!(1)));
    fields["title"] = json!("by tierstack");
    fields["meta"] = json!({ "tags": ["a"] });
    app.put(first.key.clone(), fields.to_string()).await.unwrap();
    let asked = "SELECT title, meta->'tags'->>0, lock_version, created_at FROM articles ORDER BY id LIMIT 1";
    assert_eq!(server.sql(asked).await, "by tierstack|a|1|2026-01-31 12:00:00");
    app.put(first.key.clone(), first.value.clone()).await.unwrap();
    assert_eq!(rows().await, all);
    stacks.close_all().await.unwrap();
    stores.back_up_and_restore();
    server.sql("DELETE FROM articles").await;
    stores.copy_back();
    assert_eq!(rows().await, all);
    assert_eq!(state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_requests_cache_stay_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sqlite");
    let Some(requests) = Owner::new("requests_app.py", path.to_str().unwrap()) else { return };
    let port = support::free_address().rsplit_once(':').unwrap().1.to_owned();
    let pages = requests.does(&["fetch", &port]);
    assert_eq!(pages[0], 10, "all are asked for");
    let cached = requests.does(&["fetch", &port]);
    assert_eq!((&cached[0], &cached[1]), (&json!(0), &pages[1]));
    let stores = Stores::new(
        folder,
        "sqlite: { path: http.sqlite, table: responses, columns: { key: key, value: value, expires: expires, expires_unit: seconds }, keys: text, create: false }",
    );
    let before = sqlite_state(&path);
    let stacks = stores.open().await;
    let app = &stacks["app"];
    let found = app.collect(Scan::all()).await.unwrap();
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|entry| entry.value.expires_at.is_some()));
    // While the store is open, an entry that it removes is asked for again, and what it puts is served.
    app.delete(found[0].key.clone()).await.unwrap();
    assert_eq!(requests.does(&["fetch", &port])[0], 1);
    assert!(app.get(&found[0].key).await.unwrap().is_some());
    app.put(found[0].key.clone(), found[0].value.clone()).await.unwrap();
    assert_eq!(requests.does(&["fetch", &port]), cached);
    stacks.close_all().await.unwrap();
    stores.back_up_and_restore();
    requests.does(&["clear"]);
    stores.copy_back();
    assert_eq!(requests.does(&["fetch", &port]), cached, "served from what was copied back");
    assert_eq!(sqlite_state(&path), before);
}
