//! The HTTP server does what its OpenAPI document says: schemathesis (`TIERSTACK_TEST_SCHEMATHESIS`) makes requests of it,
//! good ones and bad ones, and checks every answer.

#![cfg(feature = "serve")]

use std::process::Command;
use std::sync::Arc;

use tierstack::backends::Memory;
use tierstack::config::ServeConfig;
use tierstack::serve::{Server, Stores};
use tierstack::{ReadExt as _, Scan, Store};

use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let Some(schemathesis) = support::var("TIERSTACK_TEST_SCHEMATHESIS") else { return };
    let config = ServeConfig::at("127.0.0.1:0".parse().unwrap());
    let server = Server::listen(&config, "").await.unwrap();
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    server.open(Stores::new([("main", Arc::clone(&store))]));
    let address = server.addresses().next().unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/schemathesis");
    let mut run = Command::new(schemathesis);
    run.current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", ours)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--config-file", &format!("{ours}/schemathesis.toml")])
        .args(["run", &format!("http://{address}/v1/openapi.json")]);
    let output = tokio::task::spawn_blocking(move || run.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // It has asked much, and the store was reached.
    let cases = said.lines().find_map(|line| line.trim().split_once(" generated, "));
    let (generated, passed) = cases.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(passed, format!("{generated} passed"), "{said}");
    assert!(generated.parse::<u32>().unwrap() > 100, "{said}");
    assert!(!store.collect(Scan::all()).await.unwrap().is_empty(), "{said}");
    let _ = server.drain(std::future::ready(())).await;
    store.close().await.unwrap();
}
