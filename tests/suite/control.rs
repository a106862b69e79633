//! `cache invalidate` and `inspect`, as a user runs them next to a process that runs the store.

#![cfg(all(feature = "cli", unix))]

use tierstack::config::{Config, Registry};
use tierstack::control::Control;
use tierstack::{OpenOptions, Reply, Stack, StoreExt};

use crate::folder::Folder;

const CONFIG: &str = "
stores:
  orders: { layers: [ cache: { ttl: 10m } ], backend: memory }
  users: { layers: [ prefix: { prefix: 'u/' }, cache ], backend: memory }
default: orders
control: ./c.sock
";

/// A service: this process, with the stores of the config.
struct Service {
    folder: Folder,
    orders: Stack,
    users: Stack,
    control: Option<Control>,
}

impl Service {
    async fn start() -> Self {
        let folder = Folder::new(CONFIG);
        let config = Config::load(folder.path("tierstack.yaml")).unwrap();
        let registry = Registry::standard();
        let open = async |name| {
            let stack = Stack::open(&config, Some(name), &registry, &OpenOptions::default()).await;
            let stack = stack.unwrap();
            for key in ["a", "user:1", "user:2"] {
                let _ = stack.put(key, "value").await.unwrap();
                stack.get(key.as_bytes()).await.unwrap();
            }
            stack
        };
        let (orders, users) = (open("orders").await, open("users").await);
        let control = Control::of(&config, [&orders, &users]).unwrap();
        assert!(control.is_some());
        Self { folder, orders, users, control }
    }

    /// Which keys the cache of a store keeps.
    fn kept(stack: &Stack) -> Vec<&'static str> {
        let keys = ["a", "user:1", "user:2"].into_iter();
        keys.filter(|key| {
            let rows = tokio_test::block_on(stack.inspect(key.as_bytes())).unwrap();
            rows[0].presence == tierstack::Presence::Entry
        })
        .collect()
    }
}

/// The service goes on while the command runs.
macro_rules! service {
    ($service:ident) => {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let $service = runtime.block_on(Service::start());
        let _entered = runtime.enter();
    };
}

#[test]
fn a_cache_of_a_running_process_forgets_what_it_is_told_to() {
    service!(service);
    let run = |args: &[&str]| service.folder.run(&[&["cache", "invalidate"], args].concat()).ok();
    assert_eq!(Service::kept(&service.orders), ["a", "user:1", "user:2"]);
    let ran = run(&["a", "nobody"]);
    assert_eq!(ran.out, "invalidated 2 keys; asked the process that runs 'orders', on ./c.sock\n");
    assert_eq!(Service::kept(&service.orders), ["user:1", "user:2"]);
    run(&["--key64", "dXNlcjox"]);
    assert_eq!(Service::kept(&service.orders), ["user:2"]);
    assert_eq!(Service::kept(&service.users), ["a", "user:1", "user:2"], "another store");
    run(&["--store", "users", "--prefix", "user:"]).prints("the keys of the prefix");
    assert_eq!(Service::kept(&service.users), ["a"]);
    let fact = run(&["--store", "users", "--all", "--json"]).json();
    assert_eq!(fact["store"], "users");
    assert_eq!(fact["invalidated"], "all");
    assert!(fact["asked"]["process"]["control"].as_str().unwrap().ends_with("c.sock"), "{fact}");
    assert!(Service::kept(&service.users).is_empty());
    // The data are there.
    let read = tokio_test::block_on(service.orders.get(b"a")).unwrap();
    assert_eq!(read, Some("value".into()));
}

#[test]
fn an_inspection_shows_each_place() {
    service!(service);
    let ran = service.folder.run(&["inspect", "user:1"]).ok();
    assert!(ran.out.starts_with("asked the process that runs 'orders', on "), "{}", ran.out);
    let rows: Vec<Vec<&str>> =
        ran.out.lines().skip(4).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{}", ran.out);
    assert_eq!(rows[0][..5], ["cache", "memory", "yes", "5", "B"]);
    assert!(ran.out.contains(" more"), "until when it is fresh: {}", ran.out);
    assert_eq!(rows[1][..5], ["memory", "memory", "yes", "5", "B"]);
    let fact = service.folder.run(&["inspect", "--key64", "bm9uZQ", "--json"]).ok().json();
    assert_eq!(fact["inspections"][0]["layer"], "cache");
    assert_eq!(fact["inspections"][0]["presence"], "none");
    // Twice, and nothing was filled.
    let again = service.folder.run(&["inspect", "--key64", "bm9uZQ", "--json"]).ok().json();
    assert_eq!(again["inspections"], fact["inspections"]);
    assert!(matches!(service.orders.get(b"user:1"), Reply::Now(_)));
}

#[test]
fn where_nobody_listens_the_store_is_opened_and_that_is_said() {
    let folder = Folder::new(CONFIG);
    let ran = folder.run(&["cache", "invalidate", "--all"]).ok();
    assert!(ran.out.starts_with("invalidated every key; opened 'orders' here"), "{}", ran.out);
    assert!(ran.out.contains("is not reached without `control`"), "{}", ran.out);
    folder.run(&["inspect", "k"]).ok().prints("opened 'orders' here").prints("memory");
    let fact = folder.run(&["inspect", "k", "--json"]).ok().json();
    assert_eq!(fact["asked"], "store");
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}

#[test]
fn a_process_that_has_gone_is_not_asked() {
    service!(service);
    drop(service.control);
    service.folder.run(&["inspect", "a"]).ok().prints("opened 'orders' here");
    assert_eq!(service.folder.names(), ["tierstack.yaml"], "the socket is removed");
}

#[test]
fn wrong_usage_says_what_is_right() {
    let folder = Folder::new(CONFIG);
    let wrong = |args: &[&str], says: &str| {
        folder.run(&[&["cache", "invalidate"], args].concat()).refused().says(says);
    };
    wrong(&[], "--all");
    wrong(&["--prefix", ""], "the prefix is empty, which is every key; write --all");
    wrong(&["--prefix64", "!"], "--prefix64 is not base64");
    wrong(&["--prefix", "a", "--all"], "cannot be used with");
    wrong(&["a", "--all"], "cannot be used with");
    wrong(&[""], "the key is empty");
    wrong(&["a", "--store", "nobody"], "orders");
    folder.run(&["inspect"]).refused().says("KEY|--key64");
    folder.write("tierstack.yaml", "stores: { main: { backend: memory } }\ncontrol: ''\n");
    folder.run(&["inspect", "a"]).refused().says("control: this is empty; write a path");
}

#[test]
fn errors_of_the_process_come_back() {
    service!(service);
    tokio_test::block_on(service.orders.close()).unwrap();
    service.folder.run(&["inspect", "a"]).fails().says("closed");
    service.folder.run(&["cache", "invalidate", "--all"]).fails().says("closed");
}

#[test]
fn the_status_of_a_running_process_is_told_once_and_as_json() {
    service!(service);
    let facts = service.folder.run(&["status", "--json"]).ok().json();
    let names: Vec<_> =
        facts["stacks"].as_array().unwrap().iter().map(|stack| &stack["name"]).collect();
    assert_eq!(names, ["orders", "users"]);
    let orders = &facts["stacks"][0];
    let layers: Vec<_> =
        orders["layers"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
    assert_eq!(layers, ["cache", "memory"]);
    assert!(facts["period"].as_f64().unwrap() > 0.0, "{facts}");
    assert!(orders["layers"][0]["all"]["per_second"].is_number(), "{facts}");
    assert!(orders["guarantees"].as_array().unwrap().len() > 5);

    let ran = service.folder.run(&["status", "--store", "users"]).ok();
    assert!(ran.out.starts_with("tierstack ") && ran.out.contains(" 1 store "), "{}", ran.out);
    assert!(
        ran.out.contains("users  prefix(cache(memory))") && !ran.out.contains("orders"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("What 'users' guarantees"), "{}", ran.out);
    service.folder.run(&["status", "--store", "none"]).refused().says("it has orders, users");
}

/// In a pipe it prints once and ends.
#[test]
fn top_prints_once_where_there_is_no_terminal() {
    service!(service);
    let ran = service.folder.run(&["top"]).ok();
    assert!(ran.out.contains("orders  cache(memory)") && !ran.out.contains('\x1b'), "{}", ran.out);
    assert!(ran.out.contains("ops/s"), "{}", ran.out);
}

#[test]
fn a_process_that_cannot_be_asked_is_named() {
    let folder = Folder::new(CONFIG);
    folder.run(&["status"]).fails().says("no process listens on").says("start the process");
    folder.write("tierstack.yaml", "stores: { a: { backend: memory } }");
    folder.run(&["top"]).refused().says("there is no `control`").says("--url");
    folder
        .run(&["status", "--token", "secret", "--url", "http://127.0.0.1:1"])
        .refused()
        .says("env:NAME");
    folder.run(&["status", "--token", "env:A"]).refused();
}
