//! What a caller may use up.

use super::*;

const OPEN: &str = "{ listen: '127.0.0.1:0', stores: write }";
const SMALL: &str =
    "{ listen: '127.0.0.1:0', stores: write, limits: { connections: 2, body: 10, idle: 60s } }";

#[tokio::test]
async fn more_connections_than_allowed_are_turned_away() {
    let place = Place::new();
    let (_server, address) = place.serve(SMALL).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    assert_eq!(say(&mut first, request(address, "GET /healthz", &[])).await.ok(), "ok\n");
    let second = TcpStream::connect(address).await.unwrap();
    settle().await;
    ask(address, "GET /healthz", &[]).await.refused(503, "too many connections");
    // Those that are there go on, and one that ends makes room.
    assert_eq!(say(&mut first, request(address, "GET /healthz", &[])).await.ok(), "ok\n");
    drop(second);
    settle().await;
    assert_eq!(ask(address, "GET /healthz", &[]).await.ok(), "ok\n");
}

#[tokio::test]
async fn a_body_has_a_largest_size() {
    let place = Place::new();
    let (_server, address) = place.serve(SMALL).await;
    let length = async |length: usize, sent: &str| {
        let head = request(address, "POST /test/length", &[&format!("content-length: {length}")]);
        say(TcpStream::connect(address).await.unwrap(), head + sent).await
    };
    assert_eq!(length(10, "0123456789").await.ok(), "10");
    // It is refused by what it says, before it is sent.
    length(11, "").await.refused(413, "larger than 10 bytes");
    length(1 << 60, "").await.refused(413, "larger than 10 bytes");
    let chunked = request(address, "POST /test/length", &["transfer-encoding: chunked"]);
    let stream = TcpStream::connect(address).await.unwrap();
    let answer = say(stream, chunked.clone() + "5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n").await;
    answer.refused(413, "larger than 10 bytes");
    let stream = TcpStream::connect(address).await.unwrap();
    say(stream, chunked + "zz\r\n").await.refused(400, "malformed");
}

#[tokio::test]
async fn heads_that_are_too_large_or_malformed_are_refused() {
    let place = Place::new();
    let (_server, address) = place.serve(OPEN).await;
    let long = format!("x-long: {}", "x".repeat(20 << 10));
    assert_eq!(ask(address, "GET /healthz", &[&long]).await.status, 431);
    let line = format!("GET /{}", "x".repeat(20 << 10));
    assert_eq!(ask(address, &line, &[]).await.status, 431);
    let many: Vec<String> = (0..200).map(|n| format!("x-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(ask(address, "GET /healthz", &many).await.status, 431);
    let long = format!("authorization: Bearer {}", "x".repeat(8000));
    assert_eq!(ask(address, "GET /healthz", &[&long]).await.ok(), "ok\n");
    for malformed in
        ["nonsense\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        let stream = TcpStream::connect(address).await.unwrap();
        assert!([0, 400, 505].contains(&say(stream, malformed).await.status), "{malformed:?}");
    }
    assert_eq!(ask(address, "GET /healthz", &[]).await.ok(), "ok\n");
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn half_open_connections_end() {
    let place = Place::new();
    let (server, address) = place.serve(OPEN).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: x").await.unwrap();
    place.pass(9 * SECOND).await;
    // A byte now and then does not help.
    half.write_all(b"y").await.unwrap();
    assert!(!is_closed(&mut silent).await && !is_closed(&mut half).await);
    place.pass(2 * SECOND).await;
    until_closed(&mut silent).await;
    read(&mut half).await.refused(408, "not complete within 10s");
    until_closed(&mut half).await;
    settle().await;
    assert_eq!(server.shared.connections(), 0);
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_busy_one_does_not() {
    let place = Place::new();
    let (server, address) = place.serve(OPEN).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        say(&mut idle, request(address, "GET /healthz", &[])).await.ok();
        place.pass(59 * SECOND).await;
    }
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(request(address, "GET /test/wait", &[]).as_bytes()).await.unwrap();
    place.waiting.notified().await;
    assert!(!is_closed(&mut idle).await);
    place.pass(2 * SECOND).await;
    assert!(is_closed(&mut idle).await);
    place.pass(3600 * SECOND).await;
    assert_eq!(server.shared.connections(), 1);
    place.go.notify_one();
    assert_eq!(read(&mut busy).await.ok(), "waited");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let place = Place::new();
    let (_server, address) = place.serve(OPEN).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = request(address, "POST /test/length", &["content-length: 10"]);
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"x").await.unwrap();
        place.pass(29 * SECOND).await;
    }
    place.pass(2 * SECOND).await;
    read(&mut stream).await.refused(408, "nothing came of the body");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_given_up() {
    let place = Place::new();
    let (server, address) = place.serve(OPEN).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = request(address, "GET /test/endless", &[]);
    stream.write_all(head.as_bytes()).await.unwrap();
    place.pass(29 * SECOND).await;
    assert_eq!((server.shared.connections(), server.shared.requests()), (1, 1));
    place.pass(2 * SECOND).await;
    assert_eq!((server.shared.connections(), server.shared.requests()), (0, 0));
    // One that reads, however long it takes, is served on.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4 << 20];
    for _ in 0..5 {
        stream.read_exact(&mut bytes).await.unwrap();
        place.pass(20 * SECOND).await;
    }
    assert_eq!(server.shared.requests(), 1);
}

/// Many bodies of an allowed size would fill the memory otherwise.
#[tokio::test]
async fn all_bodies_together_have_a_largest_size() {
    const CROWDED: &str =
        "{ listen: '127.0.0.1:0', stores: write, limits: { body: 100KiB, bodies: 250KiB } }";
    let place = Place::new();
    let (server, address) = place.serve(CROWDED).await;
    let head = request(address, "POST /test/length", &["content-length: 102400"]);
    let part = head.into_bytes().into_iter().chain(vec![b'x'; 100_000]).collect::<Vec<_>>();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&part).await.unwrap();
        held.push(stream);
    }
    settle().await;
    let answer = say(TcpStream::connect(address).await.unwrap(), &part).await;
    let answer = answer.refused(503, "fill the memory for bodies");
    assert_eq!(answer.header("retry-after"), Some("1"));
    // What needs no body is answered, those that are there go on, and one that ends makes room.
    assert_eq!(ask(address, "GET /healthz", &[]).await.ok(), "ok\n");
    for mut stream in held {
        assert_eq!(say(&mut stream, vec![b'x'; 2400]).await.ok(), "102400");
    }
    settle().await;
    for _ in 0..3 {
        let whole = [&part[..], &[b'x'; 2400]].concat();
        assert_eq!(say(TcpStream::connect(address).await.unwrap(), whole).await.ok(), "102400");
    }
    // A limit for all that is smaller than that of one has room for one.
    let small = "{ listen: '127.0.0.1:0', stores: write, limits: { body: 300KiB, bodies: 1KiB } }";
    server.reload(&place.config(small)).await.unwrap();
    let whole = [&part[..], &[b'x'; 2400]].concat();
    assert_eq!(say(TcpStream::connect(address).await.unwrap(), whole).await.ok(), "102400");
}
