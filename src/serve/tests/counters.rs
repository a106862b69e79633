//! What a server counts of itself.

use super::*;
use crate::telemetry::{Snapshot, names, snapshot};

const OPEN: &str = "{ listen: '127.0.0.1:0', stores: { orders: read } }";

/// The series of the listener at that address.
struct Seen(Snapshot, String);

fn seen(address: SocketAddr) -> Seen {
    Seen(snapshot(), address.to_string())
}

impl Seen {
    fn counter(&self, family: &str, labels: &[(&str, &str)]) -> u64 {
        self.0.counter(family, &[&[("listener", &*self.1)], labels].concat())
    }

    fn gauge(&self, family: &str) -> Option<f64> {
        self.0.gauge(family, &[("listener", &self.1)])
    }

    fn refused(&self, cause: &str) -> u64 {
        self.counter(names::SERVE_REFUSED, &[("cause", cause)])
    }

    fn series(&self) -> usize {
        let labels = [("listener", &*self.1)];
        let of = |family: &'static str| self.0.select(family, &labels).count();
        self.0.families().map(|(family, _)| of(family)).sum()
    }
}

/// A rise from nothing would be no rise to Prometheus.
#[tokio::test]
async fn every_series_is_there_from_the_start_and_ends_with_the_server() {
    let place = Place::new();
    let (server, address) = place.serve(OPEN).await;
    let before = seen(address);
    let statuses = before.0.select(names::SERVE_REQUESTS, &[("listener", &before.1)]).count();
    assert_eq!(statuses, 13 * 4);
    assert_eq!(before.counter(names::SERVE_REQUESTS, &[]), 0);
    let causes = ["token", "right", "host", "connections", "header", "body"];
    assert_eq!(causes.map(|cause| before.refused(cause)), [0; 6]);
    assert_eq!(before.gauge(names::SERVE_CERTIFICATE), None, "there is none");
    ask(address, "GET /healthz", &[]).await.ok();
    ask(address, "GET /no/such/path", &[]).await.refused(404, "nothing");
    settle().await;
    assert_eq!(seen(address).series(), before.series(), "no series comes later");
    server.drain(std::future::pending()).await;
    assert_eq!(seen(address).series(), 0);
}

#[tokio::test]
async fn answers_connections_and_bytes_are_counted() {
    let place = Place::new();
    let (_server, address) = place.serve("{ listen: '127.0.0.1:0', stores: write }").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    say(&mut stream, request(address, "GET /healthz", &[])).await.ok();
    say(&mut stream, request(address, "GET /v1/stores/orders/kv/k", &[])).await;
    let head = request(address, "POST /test/length", &["content-length: 10"]);
    say(&mut stream, head + "0123456789").await.ok();
    settle().await;
    let now = seen(address);
    for (route, status) in [("health", "2xx"), ("get", "4xx"), ("other", "2xx")] {
        let labels = [("route", route), ("status", status)];
        assert_eq!(now.counter(names::SERVE_REQUESTS, &labels), 1, "{route} {status}");
        let labels = [("listener", &*now.1), ("route", route)];
        assert_eq!(now.0.durations(names::SERVE_DURATION, &labels).count(), 1, "{route}");
    }
    assert_eq!(now.counter(names::SERVE_REQUESTS, &[]), 3);
    assert_eq!(now.counter(names::SERVE_BYTES, &[("direction", "in")]), 10);
    assert!(now.counter(names::SERVE_BYTES, &[("direction", "out")]) > 5);
    assert_eq!(now.counter(names::SERVE_ACCEPTED, &[]), 1);
    assert_eq!(now.gauge(names::SERVE_CONNECTIONS), Some(1.0));
    drop(stream);
    settle().await;
    let now = seen(address);
    assert_eq!(now.gauge(names::SERVE_CONNECTIONS), Some(0.0));
    assert_eq!(now.counter(names::SERVE_ACCEPTED, &[]), 1);
}

#[tokio::test]
async fn what_is_turned_away_is_counted_by_its_cause() {
    let place = Place::new();
    place.write("app.token", "app-0123456789abcdef");
    let listener = "{ listen: '127.0.0.1:0', stores: { orders: write }, limits: { connections: 2, body: 10 }, tokens: [ { name: app, file: app.token, stores: { orders: read } } ] }";
    let (_server, address) = place.serve(listener).await;
    let token = "authorization: Bearer app-0123456789abcdef";
    let counted = async |cause: &str| {
        settle().await;
        let now = seen(address);
        let all = now.counter(names::SERVE_REFUSED, &[]);
        assert_eq!(now.refused(cause), 1, "{cause}");
        all
    };
    ask(address, "GET /metrics", &[]).await.refused(401, "");
    assert_eq!(counted("token").await, 1);
    ask(address, "GET /test/write", &[token]).await.refused(403, "needs the right `write`");
    assert_eq!(counted("right").await, 2);
    ask(address, "GET /healthz", &["origin: http://evil.example"]).await.refused(403, "");
    assert_eq!(counted("host").await, 3);
    ask(address, "POST /test/length", &[token, "content-length: 11"]).await.refused(413, "");
    assert_eq!(counted("body").await, 4);
    let long = format!("x-long: {}", "x".repeat(20 << 10));
    assert_eq!(ask(address, "GET /healthz", &[&long]).await.status, 431);
    assert_eq!(counted("header").await, 5);
    let held =
        [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    settle().await;
    ask(address, "GET /healthz", &[]).await.refused(503, "too many connections");
    assert_eq!(counted("connections").await, 6);
    drop(held);
    assert_eq!(seen(address).counter(names::SERVE_SLOW, &[]), 0);
}

#[tokio::test]
async fn what_is_too_slow_is_counted_and_what_is_idle_is_not() {
    let place = Place::new();
    let (_server, address) = place.serve("{ listen: '127.0.0.1:0', stores: write }").await;
    let slow = async || {
        settle().await;
        seen(address).counter(names::SERVE_SLOW, &[])
    };
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: x").await.unwrap();
    place.pass(Duration::from_secs(11)).await;
    assert_eq!(slow().await, 1, "half a head");
    let mut body = TcpStream::connect(address).await.unwrap();
    let head = request(address, "POST /test/length", &["content-length: 10"]);
    body.write_all(head.as_bytes()).await.unwrap();
    let mut reader = TcpStream::connect(address).await.unwrap();
    reader.write_all(request(address, "GET /test/endless", &[]).as_bytes()).await.unwrap();
    place.pass(Duration::from_secs(31)).await;
    assert_eq!(slow().await, 3, "half a body, and a reader that does not read");
}

#[tokio::test]
async fn it_shows_when_a_certificate_expires() {
    let place = Place::new();
    let tls =
        "{ listen: '127.0.0.1:0', stores: write, tls: { cert: server.pem, key: server.key } }";
    for (file, name) in [("server.pem", "first.pem"), ("server.key", "first.key")] {
        place.write(file, std::fs::read(format!("tests/fixtures/tls/{name}")).unwrap());
    }
    let (server, address) = place.serve(tls).await;
    // As `openssl x509 -noout -enddate` has it.
    let expires_at: crate::Timestamp = "2126-11-04T02:25:59Z".parse().unwrap();
    let shown = expires_at.as_millis() as f64 / 1000.0;
    assert_eq!(seen(address).gauge(names::SERVE_CERTIFICATE), Some(shown));
    server.reload(&place.config("{ listen: '127.0.0.1:0', stores: write }")).await.unwrap();
    assert_eq!(seen(address).gauge(names::SERVE_CERTIFICATE), None);
}
