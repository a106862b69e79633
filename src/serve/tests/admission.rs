//! Whose requests are answered.

use super::*;

const TOKENS: &str = "{ listen: '127.0.0.1:0', stores: { orders: write }, tokens: [ { name: app, file: app.token }, { name: next, file: next.token }, { name: reports, file: reports.token, stores: { orders: read } }, { name: metrics, file: metrics.token, stores: {} } ] }";
const APP: &str = "app-0123456789abcdef";
const REPORTS: &str = "reports-0123456789abcdef";
const METRICS: &str = "metrics-0123456789abcdef";
const OPEN: &str = "{ listen: '127.0.0.1:0', stores: write }";

fn with_tokens() -> Place {
    let place = Place::new();
    place.write("app.token", format!("{APP}\n"));
    place.write("next.token", "next-0123456789abcdef");
    place.write("reports.token", REPORTS);
    place.write("metrics.token", METRICS);
    place
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

#[tokio::test]
async fn a_token_is_asked_for_and_a_wrong_one_is_refused() {
    let place = with_tokens();
    let (_server, address) = place.serve(TOKENS).await;
    let asked = async |more: &[&str]| ask(address, "GET /test/rights", more).await;
    let missing = asked(&[]).await.refused(401, "asks for a token");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"tierstack\""));
    let too_long = format!("{APP}x");
    for wrong in ["wrong", &APP[..APP.len() - 1], &too_long, &APP.to_uppercase()] {
        let answer = asked(&[&bearer(wrong)]).await.refused(401, "does not know the token");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("invalid_token"), "{challenge}");
        assert!(!answer.body.contains(wrong));
    }
    for other in
        [format!("authorization: Basic {APP}"), format!("authorization: {APP}"), bearer("")]
    {
        asked(&[&other]).await.refused(401, "asks for a token");
    }
    asked(&[&format!("cookie: token={APP}")]).await.refused(401, "asks for a token");
    ask(address, &format!("GET /test/rights?token={APP}"), &[]).await.refused(401, "asks");
    ask(address, "GET /no/such/path", &[]).await.refused(401, "asks");
    assert_eq!(asked(&[&bearer(APP)]).await.ok(), "app write none");
    assert_eq!(asked(&[&format!("Authorization: bearer  {APP} ")]).await.ok(), "app write none");
    assert_eq!(asked(&[&bearer("next-0123456789abcdef")]).await.ok(), "next write none");
    assert_eq!(asked(&[&bearer(REPORTS)]).await.ok(), "reports read none");
    assert_eq!(asked(&[&bearer(METRICS)]).await.ok(), "metrics none none");
}

#[tokio::test]
async fn health_needs_no_token_and_gives_no_rights() {
    let place = with_tokens();
    let (_server, address) = place.serve(TOKENS).await;
    assert_eq!(ask(address, "GET /healthz", &[]).await.ok(), "ok\n");
    assert_eq!(ask(address, "GET /readyz", &[]).await.ok(), "ready\n");
    ask(address, "POST /healthz", &[]).await.refused(401, "asks for a token");
    ask(address, "GET /healthz", &[&bearer("wrong")]).await.refused(401, "does not know");
    ask(address, "GET //healthz", &[]).await.refused(401, "asks for a token");
    ask(address, "GET /healthz/../test/rights", &[]).await.refused(401, "asks for a token");
}

#[tokio::test]
async fn metrics_are_for_every_token_and_without_tokens_for_this_machine() {
    let place = with_tokens();
    let (_closed, closed) = place.serve(TOKENS).await;
    ask(closed, "GET /metrics", &[]).await.refused(401, "asks for a token");
    let (_open, open) = place.serve(OPEN).await;
    for (address, token) in
        [(closed, bearer(METRICS)), (closed, bearer(APP)), (open, bearer("any"))]
    {
        let answer = ask(address, "GET /metrics", &[&token]).await;
        assert_eq!(answer.header("content-type"), Some(crate::telemetry::CONTENT_TYPE));
        let text = answer.ok();
        assert!(text.contains("# TYPE tierstack_info gauge\n"), "{text}");
    }
}

#[tokio::test]
async fn it_is_ready_once_every_store_is_open() {
    let place = Place::new();
    let server = place.listen(OPEN).await.unwrap();
    let address = server.addresses().next().unwrap().unwrap();
    ask(address, "GET /readyz", &[]).await.refused(503, "being opened");
    assert_eq!(ask(address, "GET /healthz", &[]).await.ok(), "ok\n");
    server.open(stores());
    assert_eq!(ask(address, "GET /readyz", &[]).await.ok(), "ready\n");
}

/// A page whose host name was made to lead here asks with its own name in `Host`.
#[tokio::test]
async fn without_a_token_only_names_of_this_machine_are_answered() {
    let place = Place::new();
    let (_server, address) = place.serve(OPEN).await;
    let port = address.port();
    let asked = async |host: &str| {
        let stream = TcpStream::connect(address).await.unwrap();
        say(stream, format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n")).await
    };
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.0.0.2"] {
        assert_eq!(asked(&format!("{host}:{port}")).await.ok(), "ok\n");
    }
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        "localhost".to_owned(),
        format!("localhost:{}", port.wrapping_add(1)),
        format!("169.254.169.254:{port}"),
        String::new(),
    ] {
        asked(&host).await.refused(421, "answers to 127.0.0.1:");
    }
    let stream = TcpStream::connect(address).await.unwrap();
    say(stream, "GET /healthz HTTP/1.0\r\n\r\n").await.refused(421, "answers to");
    let line = format!("GET http://evil.example:{port}/healthz");
    ask(address, &line, &[]).await.refused(421, "answers to");
}

#[tokio::test]
async fn what_a_page_of_another_site_asks_for_is_refused() {
    let place = with_tokens();
    let (_open, open) = place.serve(OPEN).await;
    let (_closed, closed) = place.serve(TOKENS).await;
    for (address, token) in [(open, bearer("any")), (closed, bearer(APP))] {
        let asked = async |line: &str, more: &[&str]| {
            ask(address, line, &[&[&*token], more].concat()).await
        };
        let own = format!("origin: http://{address}");
        asked("GET /test/rights", &[&own, "sec-fetch-site: same-origin"]).await.ok();
        asked("GET /test/rights", &["sec-fetch-site: none"]).await.ok();
        for origin in ["http://evil.example", "null", "", "http://127.0.0.1", "https://localhost"] {
            let origin = format!("origin: {origin}");
            for line in ["GET /test/rights", "POST /test/length", "GET /healthz"] {
                let answer = asked(line, &[&origin]).await.refused(403, "the page of another site");
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
        for site in ["cross-site", "same-site"] {
            let site = format!("sec-fetch-site: {site}");
            asked("GET /test/rights", &[&site, "sec-fetch-mode: cors"]).await.refused(403, "page");
            asked("GET /test/rights", &[&site, "sec-fetch-mode: navigate"]).await.refused(403, "");
            // A link that leads to the page.
            let link = asked("GET /", &[&site, "sec-fetch-mode: navigate"]).await;
            assert_ne!(link.status, 403, "{}", link.body);
        }
        let preflight = ["origin: http://evil.example", "access-control-request-method: PUT"];
        asked("OPTIONS /test/rights", &preflight).await.refused(403, "page of another site");
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems() {
    let place = Place::new();
    let (_server, address) = place.serve(OPEN).await;
    ask(address, "GET /no/such/path", &[]).await.refused(404, "nothing at this path");
    let answer = ask(address, "DELETE /healthz", &[]).await.refused(405, "this method");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}
