//! What the server says of itself is so.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::backends::Memory;
use crate::error::{Error, ErrorKind};
use crate::serve::http::info::OPENAPI;
use crate::serve::http::table;

/// Each path of a document, and its methods.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    const METHODS: [&str; 8] =
        ["get", "head", "put", "post", "delete", "patch", "options", "trace"];
    let document: Json = serde_json::from_str(OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let methods = |item: &Json| {
        let names =
            item.as_object().unwrap().keys().filter(|name| METHODS.contains(&name.as_str()));
        names.map(|name| name.to_uppercase()).collect()
    };
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let client = Client::of(Memory::new()).await;
    let mut routes = BTreeMap::new();
    for (path, _) in table() {
        let asked = path.replace("{store}", "main").replace("{*key}", "k");
        let answer = client.send(&format!("PATCH {asked}"), &[], "").await;
        assert_eq!(answer.status.as_u16(), 405, "{path}");
        let mut allowed: BTreeSet<String> =
            answer.header("allow").split(',').map(str::to_owned).collect();
        assert!(allowed.len() > 1 || allowed.contains("POST"), "{path}: {allowed:?}");
        // The document says it once: HEAD is answered wherever GET is.
        if !path.contains("{*key}") {
            assert_eq!(allowed.remove("HEAD"), allowed.contains("GET"), "{path}");
        }
        // A path of a document has no empty part.
        if !path.ends_with('/') {
            routes.insert(path.replace("{*key}", "{key}"), allowed);
        }
    }
    assert_eq!(routes, documented());
}

#[tokio::test]
async fn the_document_is_served_and_is_of_this_version() {
    let client = Client::of(Memory::new()).await;
    let answer = client.get("/v1/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    // Whatever it refers to is there.
    let references = OPENAPI.split("\"#/").skip(1).filter_map(|rest| rest.split('"').next());
    let mut seen = 0;
    for reference in references {
        assert!(document.pointer(&format!("/{reference}")).is_some(), "{reference}");
        seen += 1;
    }
    assert!(seen > 20);
}

#[tokio::test]
async fn the_stores_of_a_caller_are_told_with_what_they_guarantee() {
    let client = Client::with(Memory::new(), ManualClock::new(), Right::Read).await;
    let info = client.get("/v1/info").await.json();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["max_body"], 64 << 10);
    let main = &info["stores"]["main"];
    assert_eq!(
        (&main["right"], &main["state"], &main["stack"]),
        (&"read".into(), &"open".into(), &"memory".into())
    );
    assert_eq!(main["guarantees"]["conditions"], "value");
    assert_eq!(main["guarantees"]["atomic_batches"], true);
    assert_eq!(main["levels"][0]["name"], "memory");
    client.get("/v1/info?x=1").await.refused(400, "this route takes none");
}

#[test]
fn no_kind_of_problem_is_without_its_line_in_the_page() {
    let page = std::fs::read_to_string("docs/http.md").unwrap();
    for kind in [
        ErrorKind::Access,
        ErrorKind::Corruption,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Conflict,
        ErrorKind::Aborted,
        ErrorKind::Capacity,
        ErrorKind::Closed,
        ErrorKind::Unsupported,
        ErrorKind::InvalidInput,
        ErrorKind::Config,
        ErrorKind::Internal,
    ] {
        let status = crate::serve::problem::Problem::of(&Error::new(kind, "x")).status();
        let row = page.lines().find(|line| {
            line.starts_with(&format!("| {}", status.as_u16()))
                && line.contains(&format!("`{}`", kind.as_str()))
        });
        assert!(row.is_some(), "{status} {}", kind.as_str());
    }
}
