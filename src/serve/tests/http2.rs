//! HTTP/2: over TLS as agreed there, and in plain text where the client knows.

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::reload::{TLS, connect_with, install};
use super::*;

type Sender = SendRequest<Full<Bytes>>;

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Sender {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn asked(sender: &Sender, method: &str, uri: String, body: &[u8]) -> (u16, String) {
    let body = Full::new(Bytes::copy_from_slice(body));
    let request = Request::builder().method(method).uri(uri).body(body).unwrap();
    let answer = sender.clone().send_request(request).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_share_a_connection_with_the_same_rules() {
    let place = Place::new();
    install(&place, "first.pem", "first.key");
    for listener in [TLS, "{ listen: '127.0.0.1:0', stores: write }"] {
        let small = listener.replace("stores: write", "stores: write, limits: { body: 10 }");
        let (server, address) = place.serve(&small).await;
        let (scheme, sender) = if listener == TLS {
            let stream = connect_with(address, "first.pem", &[b"h2"]).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            ("https", speak(stream).await)
        } else {
            ("http", speak(TcpStream::connect(address).await.unwrap()).await)
        };
        let at = |path: &str| format!("{scheme}://{address}{path}");
        // One that waits holds up no other.
        let waits = tokio::spawn({
            let (sender, uri) = (sender.clone(), at("/test/wait"));
            async move { asked(&sender, "GET", uri, b"").await }
        });
        place.waiting.notified().await;
        let ok = (200, "ok\n".to_owned());
        assert_eq!(asked(&sender, "GET", at("/healthz"), b"").await, ok);
        assert_eq!(asked(&sender, "POST", at("/test/length"), b"0123456789").await.1, "10");
        let (status, body) = asked(&sender, "POST", at("/test/length"), b"01234567890").await;
        assert!(status == 413 && body.contains("larger than 10 bytes"), "{status} {body}");
        let foreign = format!("{scheme}://evil.example:{}/healthz", address.port());
        let (status, body) = asked(&sender, "GET", foreign, b"").await;
        assert!(status == 421 && body.contains("answers to 127.0.0.1:"), "{status} {body}");
        let long = format!("/{}", "x".repeat(20 << 10));
        assert_eq!(asked(&sender, "GET", at(&long), b"").await.0, 431);
        // The end lets go on what is under way, and takes nothing more.
        assert_eq!(server.shared.requests(), 1);
        let draining = tokio::spawn(server.drain(std::future::pending()));
        settle().await;
        assert!(!draining.is_finished());
        place.go.notify_one();
        assert_eq!(waits.await.unwrap(), (200, "waited".to_owned()));
        assert_eq!(draining.await.unwrap(), crate::serve::Left::default());
        assert!(sender.is_closed());
    }
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let place = Place::new();
    let (server, address) = place.serve("{ listen: '127.0.0.1:0', stores: write }").await;
    let sender = speak(TcpStream::connect(address).await.unwrap()).await;
    assert_eq!(asked(&sender, "GET", format!("http://{address}/healthz"), b"").await.0, 200);
    place.pass(Duration::from_secs(59)).await;
    assert_eq!(server.shared.connections(), 1);
    place.pass(Duration::from_secs(2)).await;
    assert_eq!(server.shared.connections(), 0);
}

/// The server asks itself whether the other side is there, more often than `idle`.
#[tokio::test]
async fn pings_do_not_keep_a_connection_open() {
    let place = Place::new();
    let (server, address) = place.serve("{ listen: '127.0.0.1:0', stores: write }").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&settings).await.unwrap();
    for _ in 0..2 {
        stream.write_all(&ping).await.unwrap();
        place.pass(Duration::from_secs(29)).await;
        assert_eq!(server.shared.connections(), 1);
    }
    stream.write_all(&ping).await.unwrap();
    place.pass(Duration::from_secs(4)).await;
    assert_eq!(server.shared.connections(), 0);
}
