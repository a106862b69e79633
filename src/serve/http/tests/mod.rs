//! The routes, asked without a socket.

mod altered;
mod batches;
mod changing;
mod conditions;
mod crowded;
mod described;
mod scans;
mod values;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value as Json;
use tower::ServiceExt;

use super::routes;
use crate::clock::{Clock, ManualClock};
use crate::config::{Grants, Right, ServeConfig};
use crate::serve::access::{Caller, Proof};
use crate::serve::policy::Policy;
use crate::serve::shared::{Shared, Stores};
use crate::store::Store;

/// A caller, and what it is served: one store named `main`.
#[derive(Clone)]
struct Client {
    router: Router,
    caller: Caller,
    shared: Arc<Shared>,
    clock: ManualClock,
}

/// An answer that was read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    async fn of(store: impl Store) -> Self {
        Self::with(store, ManualClock::new(), Right::Write).await
    }

    async fn with(store: impl Store, clock: ManualClock, right: Right) -> Self {
        let mut config = ServeConfig::at("127.0.0.1:0".parse().unwrap());
        config.listeners[0].stores = Grants::Every(right);
        config.listeners[0].limits.body = "64KiB".parse().unwrap();
        config.listeners[0].limits.bodies = "4MiB".parse().unwrap();
        let policy = Policy::load(&config.listeners[0], Path::new("")).await.unwrap();
        let shared = Shared::new(Arc::new(clock.clone()) as Arc<dyn Clock>);
        let store: Arc<dyn Store> = Arc::new(store);
        shared.open(Stores::new([("main", store)]));
        let caller = Caller::new(Arc::new(policy), Proof::NotAsked, &Arc::default());
        let router = routes().with_state(Arc::clone(&shared));
        Self { router, caller, shared, clock }
    }

    /// The head of an answer, whose body is not read yet.
    async fn begin(
        &self,
        line: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> axum::response::Response {
        let (method, path) = line.split_once(' ').unwrap();
        let path = path
            .strip_prefix('~')
            .map_or(path.to_owned(), |rest| format!("/v1/stores/main/{rest}"));
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(self.caller.clone());
        let Ok(response) = self.router.clone().oneshot(request).await;
        response
    }

    /// `~` stands for the path of the store.
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let (head, body) = self.begin(line, headers, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], "").await
    }

    async fn put(&self, path: &str, body: &'static str) -> Answer {
        self.send(&format!("PUT {path}"), &[], body).await
    }

    /// A body of lines.
    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        let lines = [("content-type", "application/x-ndjson")];
        self.send(&format!("POST {path}"), &lines, body).await
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn lines(&self) -> Vec<Json> {
        self.body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Checks that it is a problem, and gives its status and what it says.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        let kind = json["kind"].as_str().unwrap();
        assert_eq!(json["type"], format!("urn:tierstack:problem:{kind}"));
        assert!(!json["title"].as_str().unwrap().is_empty());
        (self.status.as_u16(), json["detail"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn refused(&self, status: u16, why: &str) {
        let (found, detail) = self.problem();
        assert_eq!(found, status, "{detail}");
        assert!(detail.contains(why), "{detail}");
    }
}

/// Percent-encodes every byte.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}
