//! What ends the life of the triggers, or goes past them, is noticed within the time that is guaranteed; and
//! they never get in the way of other programs.

use std::time::Duration;

use tierstack::backends::{Postgres, PostgresConfig};
use tierstack::{Change, Changes, Store, StoreExt};
use tokio_postgres::Client;

use super::announcing::{everything, keys, keys_of, next};
use super::{connect, open};
use crate::support::Postgres as Server;

struct Scene {
    server: Server,
    sql: Client,
    store: Postgres,
    changes: Changes,
}

impl Scene {
    async fn new() -> Option<Self> {
        let server = Server::start().await?;
        let sql = connect(&server.url()).await;
        let config = PostgresConfig { change_feed: true, ..PostgresConfig::new(server.url()) };
        let store = open(&config).await;
        store.put("k", "old").await.unwrap();
        let mut changes = store.changes().await.unwrap();
        assert_eq!(next(&mut changes).await, Change::All);
        Some(Self { server, sql, store, changes })
    }

    async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    /// The next that is no key.
    async fn next(&mut self) -> Change {
        loop {
            match next(&mut self.changes).await {
                Change::Keys(_) => {}
                change => return change,
            }
        }
    }

    /// Changes go unheard until what is run has repaired it.
    async fn deaf_until(&mut self, repair: &str) {
        assert_eq!(self.next().await, Change::Lost);
        assert!(self.store.profile().guarantees.change_feed <= Some(Duration::from_secs(5)));
        self.run(repair).await;
        assert_eq!(self.next().await, Change::All);
        self.run("INSERT INTO tierstack VALUES ('heard', '') ON CONFLICT DO NOTHING; DELETE FROM tierstack WHERE key = 'heard'").await;
        assert_eq!(next(&mut self.changes).await, keys(&["heard"]));
    }
}

/// The SQL of the triggers for a table.
fn triggers(table: &str) -> String {
    let config =
        PostgresConfig { change_feed: true, table: table.into(), ..PostgresConfig::new("host=x") };
    config.schema().unwrap().split_once("\n\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_takes_the_name() {
    let Some(mut scene) = Scene::new().await else { return };
    // Without triggers.
    scene.run("CREATE TABLE fresh (LIKE tierstack INCLUDING ALL); INSERT INTO fresh VALUES ('k', 'new'); ALTER TABLE tierstack RENAME TO old; ALTER TABLE fresh RENAME TO tierstack").await;
    scene.deaf_until(&triggers("tierstack")).await;
    // With triggers, which were made for it by another name.
    scene.run("CREATE TABLE fresh (LIKE tierstack INCLUDING ALL)").await;
    scene.run(&triggers("fresh")).await;
    scene.run("BEGIN; ALTER TABLE tierstack RENAME TO older; ALTER TABLE fresh RENAME TO tierstack; COMMIT").await;
    scene.deaf_until("").await;
    scene.run("DROP TABLE tierstack").await;
    scene
        .deaf_until(&format!(
            "CREATE TABLE tierstack (LIKE old INCLUDING ALL); {}",
            triggers("tierstack")
        ))
        .await;
    scene
        .run("BEGIN; DROP TABLE tierstack; CREATE TABLE tierstack (LIKE old INCLUDING ALL); COMMIT")
        .await;
    scene.deaf_until(&triggers("tierstack")).await;
    // What is told by this store is received by others.
    let other =
        open(&PostgresConfig { change_feed: true, ..PostgresConfig::new(scene.server.url()) })
            .await;
    let mut changes = other.changes().await.unwrap();
    assert_eq!(next(&mut changes).await, Change::All);
    scene.store.invalidate(tierstack::Scope::Keys(vec!["told".into()])).await.unwrap();
    assert_eq!(next(&mut changes).await, keys(&["told"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_triggers_are_altered() {
    let Some(mut scene) = Scene::new().await else { return };
    let function = "tierstack_announce_tierstack()";
    let again = triggers("tierstack");
    for (broken, repair) in [
        ("ALTER TABLE tierstack DISABLE TRIGGER ALL", again.as_str()),
        ("ALTER TABLE tierstack ENABLE REPLICA TRIGGER \"~tierstack_announce\"", &again),
        (&*format!("DROP FUNCTION {function} CASCADE"), &again),
        (
            &*format!(
                "CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
            ),
            &again,
        ),
        (
            "CREATE TRIGGER \"~~\" BEFORE INSERT ON tierstack FOR EACH ROW EXECUTE FUNCTION tierstack_announce_tierstack()",
            "DROP TRIGGER \"~~\" ON tierstack",
        ),
        ("CREATE TABLE child () INHERITS (tierstack)", "DROP TABLE child"),
    ] {
        scene.run(broken).await;
        scene.deaf_until(repair).await;
    }
    // Between two looks: all may have been changed meanwhile.
    for past in [
        "ALTER TABLE tierstack DISABLE TRIGGER ALL; UPDATE tierstack SET value = 'unheard'; ALTER TABLE tierstack ENABLE ALWAYS TRIGGER \"~tierstack_announce\"; ALTER TABLE tierstack ENABLE ALWAYS TRIGGER tierstack_announce_truncate",
        "ALTER TABLE tierstack ALTER value TYPE bytea USING value || value",
    ] {
        scene.run(past).await;
        assert_eq!(scene.next().await, Change::All, "{past}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_changed_past_the_table_are_heard() {
    let Some(mut scene) = Scene::new().await else { return };
    // As a partition of another table, the statements name that one.
    scene
        .run(
            "CREATE TABLE whole (LIKE tierstack INCLUDING DEFAULTS) PARTITION BY RANGE (key);
             ALTER TABLE whole ATTACH PARTITION tierstack FOR VALUES FROM (MINVALUE) TO ('z');
             INSERT INTO whole VALUES ('a', '1')",
        )
        .await;
    assert_eq!(keys_of_after_all(&mut scene.changes).await, ["a"]);
    scene.run("UPDATE whole SET value = '2' WHERE key = 'a'").await;
    assert_eq!(keys_of_after_all(&mut scene.changes).await, ["a"]);
    scene.run("TRUNCATE whole").await;
    everything(&mut scene.changes).await;
    scene.run("ALTER TABLE whole DETACH PARTITION tierstack").await;
    let copy = "COPY tierstack (key, value) FROM PROGRAM 'printf ''%s\\t%s\\n'' c v'";
    scene.run(copy).await;
    assert_eq!(keys_of_after_all(&mut scene.changes).await, ["c"]);
    if scene.server.sql("SHOW server_version_num").await.as_str() >= "150000" {
        scene
            .run("MERGE INTO tierstack t USING (VALUES ('c'::bytea), ('d'::bytea)) AS s (k) ON t.key = s.k WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (key, value) VALUES (s.k, 'v')")
            .await;
        let mut heard = keys_of_after_all(&mut scene.changes).await;
        if heard.len() < 2 {
            heard.extend(keys_of(&mut scene.changes, 1).await);
        }
        heard.sort();
        assert_eq!(heard, ["c", "d"]);
    }
}

/// The next keys. What was altered before may still be reported as a change of everything.
async fn keys_of_after_all(changes: &mut Changes) -> Vec<bytes::Bytes> {
    loop {
        match next(changes).await {
            Change::Keys(keys) => return keys,
            Change::All => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_other_programs_never_fail() {
    let Some(mut scene) = Scene::new().await else { return };
    // So that what spills to the disk fails.
    scene.run("SET temp_file_limit = '1MB'; SET work_mem = '64kB'").await;
    scene.run("INSERT INTO tierstack (key, value) SELECT convert_to(lpad(n::text, 2500, 'x'), 'UTF8'), 'v' FROM generate_series(1, 3000) n").await;
    everything(&mut scene.changes).await;
    scene.run("UPDATE tierstack SET value = 'w'; DELETE FROM tierstack").await;
    everything(&mut scene.changes).await;
    scene.run("ALTER TABLE tierstack RENAME key TO id; INSERT INTO tierstack (id, value) VALUES ('k', 'v'); UPDATE tierstack SET value = 'w'; DELETE FROM tierstack; TRUNCATE tierstack").await;
    everything(&mut scene.changes).await;
    scene.run("ALTER TABLE tierstack RENAME id TO key").await;
    scene.run("SET search_path = nowhere; INSERT INTO public.tierstack VALUES ('k', decode(repeat('00', 9000), 'hex'))").await;
}

/// The subscriber applies the rows itself, and runs no statement.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_logical_replication_are_heard() {
    let Some(publisher) = Server::options().set("wal_level", "logical").start().await else {
        return;
    };
    let Some(mut scene) = Scene::new().await else { return };
    let schema = PostgresConfig::new("host=x").schema().unwrap();
    publisher.sql(&format!("{schema} CREATE PUBLICATION p FOR TABLE tierstack")).await;
    scene.run(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=postgres' PUBLICATION p WITH (copy_data = false)",
        publisher.port()
    )).await;
    publisher.sql("INSERT INTO tierstack VALUES ('from afar', '1')").await;
    assert_eq!(keys_of(&mut scene.changes, 1).await, ["from afar"]);
    publisher.sql("UPDATE tierstack SET value = '2'").await;
    assert_eq!(keys_of(&mut scene.changes, 1).await, ["from afar"]);
    publisher.sql("DELETE FROM tierstack").await;
    assert_eq!(keys_of(&mut scene.changes, 1).await, ["from afar"]);
    scene.run("DROP SUBSCRIPTION s").await;
}
