//! What `check` notes about settings: each note where its setting is, and nowhere else.

use super::probe::config;
use super::*;

/// A store, and the whole of each note that its settings add.
const NOTED: &[(&str, &[&str])] = &[
    #[cfg(feature = "cache")]
    ("layers: [ cache: { ttl: 1m } ], backend: memory", &[]),
    #[cfg(feature = "cache")]
    (
        "layers: [ cache: { ttl: 1m, stale_if_error: 1h } ], backend: memory",
        &["An answer is up to 1m old, and up to 1h 1m while loads fail."],
    ),
    #[cfg(feature = "cache")]
    (
        "layers: [ cache: { idle: 1m } ], backend: memory",
        &[
            "`idle` does not bound how late a foreign write is seen: a key that is read all the time stays. Only `ttl` does.",
        ],
    ),
    #[cfg(feature = "cache")]
    (
        "layers: [ cache: {}, expire: { default_ttl: 1h } ], backend: memory",
        &[
            "What is written is loaded when it is read, also with `on_write: keep`: the store below may give back something else than what was put.",
        ],
    ),
    #[cfg(feature = "cache")]
    ("layers: [ cache: { on_write: drop }, expire: { default_ttl: 1h } ], backend: memory", &[]),
    #[cfg(all(feature = "cache", feature = "file", unix))]
    (
        "layers: [ cache: { ttl: 1m, disk: { path: d, capacity: 16MiB, warm: true } } ], backend: { file: { path: f } }",
        &[
            "What was cached at the last clean close is served again after a restart. What changes the store while this stack is closed is not seen before the ttl: a restore, another stack over the same backend, another program. Empty the folder of the cache after any of these.",
        ],
    ),
    #[cfg(feature = "compress")]
    (
        "layers: [ compress: { accept_plain: true } ], backend: memory",
        &[
            "Values from before the layer was added are read as they are (accept_plain), and damage to the first bytes of a frame goes unnoticed. Run `tierstack rewrite`, then take accept_plain out.",
        ],
    ),
    #[cfg(feature = "encrypt")]
    (
        "layers: [ encrypt: { keys: { env: KEYS } } ], backend: memory",
        &["Values are sealed from here down. Keys, expiries and lengths stay visible."],
    ),
    #[cfg(feature = "encrypt")]
    (
        "layers: [ encrypt: { keys: { env: KEYS }, accept_plain: true } ], backend: memory",
        &[
            "Values from before the layer was added are read as they are (accept_plain): what is below may hold plain values, so it does not count as sealed, and a program that can write to it can plant plain values. Run `tierstack rewrite`, then take accept_plain out.",
        ],
    ),
    #[cfg(feature = "backup")]
    (
        "layers: [ backup: { to: b } ], backend: memory",
        &["Bases are taken by hand, with 'tierstack backup run'."],
    ),
    (
        "layers: [ prefix: { prefix: p/ } ], backend: memory",
        &[
            "The bytes of `usage`, `flush`, `compact` and `close` are of the whole store below the prefix.",
        ],
    ),
    #[cfg(all(feature = "file", unix))]
    (
        "backend: { file: { path: f, sync: false } }",
        &[
            "`sync` is false: a write is acknowledged before it is on the disk, and a power cut can cost what was written since the last `flush` or leave a batch half done. `flush` makes all of them survive one.",
        ],
    ),
    #[cfg(feature = "rocksdb")]
    (
        "backend: { rocksdb: { path: r, sync: false } }",
        &[
            "`sync` is false: a write is acknowledged before it is on the disk, and a power cut can cost what was written since the last `flush`. `flush` makes all of them survive one.",
        ],
    ),
    #[cfg(feature = "rocksdb")]
    (
        "backend: { rocksdb: { path: r, compaction: off } }",
        &[
            "`compaction` is off: space is reclaimed only by `compact`, and writes stall once too many files have piled up.",
        ],
    ),
    #[cfg(feature = "sqlite")]
    (
        "backend: { sqlite: { path: s, sync: false } }",
        &[
            "`sync` is false: a write is acknowledged before it is on the disk, and a power cut can cost what was written since the last `flush`. `flush` makes all of them survive one.",
        ],
    ),
    #[cfg(feature = "sqlite")]
    (
        "backend: { sqlite: { path: s, journal: rollback, keys: text, values: text } }",
        &[
            "`journal` is rollback: a writer and the readers of all programs wait for each other, and there are no snapshots, as one would hold up every write.",
            "`keys` is text: only UTF-8 is a key, and others are refused.",
            "`values` is text: only UTF-8 is a value, and others are refused.",
        ],
    ),
    #[cfg(feature = "sqlite")]
    (
        "backend: { sqlite: { path: s, journal: wal, read_only: true } }",
        &[
            "`journal` is wal: a database in another mode is changed to it when it is opened, for every program that uses it.",
            "`read_only` is true: writes are refused.",
        ],
    ),
    #[cfg(feature = "sqlite")]
    (
        "backend: { sqlite: { path: s, sweep: true } }",
        &[
            "`sweep` is true: rows of expired entries are removed, also those that other programs have written.",
        ],
    ),
    #[cfg(feature = "postgres")]
    (
        "backend: { postgres: { url: 'postgres://a@localhost/d', durability: process_crash, sweep: true, tls: disable } }",
        &[
            "`durability` is `process_crash`: PostgreSQL acknowledges a write before it is on its disk, and a crash of its machine can cost the writes of three times its `wal_writer_delay`. `flush` makes all of them survive one.",
            "`sweep` is true: rows of expired entries are removed, also those that other programs have written.",
            "`tls` is `disable`: anyone who can listen on the way to the server reads keys, values and, unless it uses SCRAM, the password.",
        ],
    ),
    #[cfg(feature = "postgres")]
    (
        "backend: { postgres: { url: 'postgres://a@localhost/d', pooler: transaction, columns: { expires: e, expires_unit: seconds } } }",
        &[
            "`pooler` is set: statements are not prepared, and a batch that deletes, or depends on what is there, locks the table against other writers while it is written.",
            "`columns.expires_unit` is `seconds`: a deadline is rounded up to a whole second.",
        ],
    ),
    #[cfg(all(feature = "postgres", feature = "cache"))]
    (
        "layers: [ cache: {} ], backend: { postgres: { url: 'postgres://a@localhost/d', change_feed: true } }",
        &[
            "What others change is dropped from the cache when the change feed of the store below reports it, within 5s. While the feed is interrupted nothing is kept, and every read goes below.",
        ],
    ),
    #[cfg(feature = "redis")]
    (
        "backend: { redis: { url: 'redis://localhost', evicts: true, index: true, wait_replicas: 1 } }",
        &[
            "The server may evict entries, acknowledged ones too, when its memory is full.",
            "A scan of everything sees what other programs wrote; one of a part may miss entries that others added, while as many expired or were deleted by others.",
            "A write waits until 1 replica has it in memory, which makes its loss in a failover unlikely, not impossible.",
        ],
    ),
    #[cfg(feature = "redis")]
    (
        "backend: { redis: { cluster: [ 'redis://localhost' ], wait_replicas: 2 } }",
        &[
            "A failover of the cluster may lose writes that were acknowledged shortly before it, as replicas lag behind.",
            "A batch is refused unless all its keys are in one slot.",
            "A write waits until 2 replicas have it in memory, which makes its loss in a failover unlikely, not impossible.",
        ],
    ),
    #[cfg(feature = "redis")]
    (
        "backend: { redis: { url: 'redis://localhost', index: true, foreign: skip } }",
        &[
            "A scan of everything sees what other programs wrote; one of a part may miss entries that others added, while as many expired or were deleted by others.",
            "Scans leave out keys that no entry can have: of other types than strings, longer than 64 KiB, empty.",
        ],
    ),
    #[cfg(feature = "opendal")]
    (
        "backend: { opendal: { scheme: webdav, options: { endpoint: 'http://localhost' } } }",
        &[
            "The service may show a file while it is written: other processes may read a part of a value.",
            "Whether a WebDAV server keeps half a file of a broken connection is up to the server.",
        ],
    ),
    #[cfg(feature = "opendal")]
    (
        "backend: { opendal: { scheme: memcached, options: { endpoint: 'tcp://localhost:11211' } } }",
        &["memcached drops entries when its memory is full."],
    ),
    #[cfg(feature = "opendal")]
    (
        "backend: { opendal: { scheme: dropbox, options: { access_token: { env: TOKEN } } } }",
        &["This service takes no empty values: they are refused."],
    ),
    #[cfg(feature = "opendal")]
    (
        "backend: { opendal: { scheme: azdls, options: { filesystem: f, endpoint: 'http://localhost' } } }",
        &[
            "The service may show a file while it is written: other processes may read a part of a value.",
            "This service takes no empty values: they are refused.",
        ],
    ),
    #[cfg(feature = "object")]
    (
        "backend: { object: { url: 'file:///data', names: plain } }",
        &[
            "`names` is plain: a key that cannot be the name of an object, such as one that is not UTF-8, is refused.",
        ],
    ),
    #[cfg(feature = "opendal")]
    (
        "backend: { opendal: { scheme: fs, options: { root: d }, names: plain } }",
        &[
            "`names` is plain: a key that cannot be a name, such as one that is not UTF-8, is refused.",
        ],
    ),
];

#[test]
fn each_note_stands_where_its_setting_is() {
    let notes = |store: &str| -> Vec<String> {
        let config = config(&format!("stores: {{ main: {{ {store} }} }}"));
        let checked = Stack::check(&config, None, &Registry::standard());
        let checked = checked.unwrap_or_else(|error| panic!("{store}: {error}"));
        let text = checked.to_string();
        let notes = checked.profile().levels().flat_map(|level| level.notes.clone());
        // Wherever the lines are broken.
        let words: Vec<_> = text.split_whitespace().filter(|word| *word != "│").collect();
        let said = words.join(" ");
        notes.inspect(|note| assert!(said.contains(note.as_str()), "{note}\n{text}")).collect()
    };
    let every = NOTED.iter().flat_map(|(_, notes)| *notes);
    let every: std::collections::BTreeSet<_> = every.collect();
    for (store, expected) in NOTED {
        let noted = notes(store);
        for note in &every {
            let is_noted = noted.iter().any(|noted| noted == *note);
            assert_eq!(is_noted, expected.contains(note), "{store}: {note}\n{noted:#?}");
        }
    }
}
