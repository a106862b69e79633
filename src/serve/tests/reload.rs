//! Tokens and certificates that change.

use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::*;

pub(super) const TLS: &str =
    "{ listen: '127.0.0.1:0', stores: write, tls: { cert: server.pem, key: server.key } }";
const TOKEN: &str =
    "{ listen: '127.0.0.1:0', stores: write, tokens: [ { name: app, file: app.token } ] }";
const EVERY: Duration = Duration::from_secs(30);

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("tests/fixtures/tls/{name}")).unwrap()
}

pub(super) fn install(place: &Place, cert: &str, key: &str) {
    place.write("server.pem", fixture(cert));
    place.write("server.key", fixture(key));
}

/// A connection that trusts that certificate alone.
async fn connect(address: SocketAddr, trusted: &str) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(address, trusted, &[]).await
}

/// Like [`connect`], with these protocols to choose from.
pub(super) async fn connect_with(
    address: SocketAddr,
    trusted: &str,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fixture(trusted)).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

async fn asked(stream: &mut TlsStream<TcpStream>, address: SocketAddr) -> String {
    say(stream, request(address, "GET /healthz", &[])).await.ok()
}

#[tokio::test]
async fn a_certificate_is_replaced_and_connections_stay() {
    let place = Place::new();
    install(&place, "first.pem", "first.key");
    let (server, address) = place.serve(TLS).await;
    let mut before = connect(address, "first.pem").await.unwrap();
    assert_eq!(asked(&mut before, address).await, "ok\n");
    assert!(connect(address, "second.pem").await.is_err(), "it is the first one");

    // By being told.
    install(&place, "second.pem", "second.key");
    server.reload(&place.config(TLS)).await.unwrap();
    let mut after = connect(address, "second.pem").await.unwrap();
    assert_eq!(asked(&mut after, address).await, "ok\n");
    assert!(connect(address, "first.pem").await.is_err(), "it is the second one");
    assert_eq!(asked(&mut before, address).await, "ok\n");

    // By itself, as the files have changed.
    install(&place, "first.pem", "first.key");
    place.pass(EVERY).await;
    connect(address, "first.pem").await.unwrap();
    assert_eq!(asked(&mut before, address).await, "ok\n");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_and_the_old_one_stays() {
    let place = Place::new();
    install(&place, "first.pem", "first.key");
    let (server, address) = place.serve(TLS).await;
    let break_it: [(&dyn Fn(), &str); 6] = [
        (&|| place.write("server.pem", "nonsense"), "holds no certificate in PEM"),
        (
            &|| {
                place.write(
                    "server.pem",
                    b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
                )
            },
            "damaged",
        ),
        (&|| place.write("server.key", "s3cr3t"), "holds no private key in PEM"),
        (&|| place.write("server.key", fixture("second.key")), "belongs to another certificate"),
        (&|| std::fs::remove_file(place.path("server.key")).unwrap(), "cannot be read"),
        (&|| place.write("server.pem", &fixture("first.pem")[..300]), "server.pem"),
    ];
    for (break_it, words) in break_it {
        break_it();
        let error = server.reload(&place.config(TLS)).await.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("serve.listeners[0]"), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
        place.pass(EVERY).await;
        connect(address, "first.pem").await.unwrap();
        install(&place, "first.pem", "first.key");
        server.reload(&place.config(TLS)).await.unwrap();
    }
    place.write("server.pem", "nonsense");
    let error = place.listen(TLS).await.err().unwrap().to_string();
    assert!(error.contains("holds no certificate"), "{error}");
}

#[tokio::test]
async fn half_a_handshake_ends() {
    let place = Place::new();
    install(&place, "first.pem", "first.key");
    let (server, address) = place.serve(TLS).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(request(address, "GET /healthz", &[]).as_bytes()).await.unwrap();
    until_closed(&mut plain).await;
    place.pass(Duration::from_secs(11)).await;
    until_closed(&mut silent).await;
    settle().await;
    assert_eq!(server.shared.connections(), 0);
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_a_new_one_taken() {
    let place = Place::new();
    place.write("app.token", "first-0123456789abcdef");
    let (server, address) = place.serve(TOKEN).await;
    let knows = async |token: &str| {
        let bearer = format!("authorization: Bearer {token}");
        let answer = ask(address, "GET /test/rights", &[&bearer]).await;
        assert!([200, 401].contains(&answer.status));
        answer.status == 200
    };
    assert!(knows("first-0123456789abcdef").await);
    place.write("app.token", "second-0123456789abcdef");
    server.reload(&place.config(TOKEN)).await.unwrap();
    assert!(!knows("first-0123456789abcdef").await, "revoked");
    assert!(knows("second-0123456789abcdef").await);
    place.write("app.token", "third-0123456789abcdefg");
    place.pass(EVERY).await;
    assert!(!knows("second-0123456789abcdef").await, "revoked");
    assert!(knows("third-0123456789abcdefg").await);
    // What is no token leaves everything as it was.
    for bad in ["short", "with spaces 0123456789", ""] {
        place.write("app.token", bad);
        let error = server.reload(&place.config(TOKEN)).await.unwrap_err().to_string();
        assert!(error.contains("'app'") && (bad.is_empty() || !error.contains(bad)), "{error}");
        place.pass(EVERY).await;
        assert!(knows("third-0123456789abcdefg").await);
    }
}

#[tokio::test]
async fn an_address_does_not_change_while_it_is_served() {
    let place = Place::new();
    let open = "{ listen: '127.0.0.1:0', stores: write }";
    let (server, address) = place.serve(open).await;
    for other in [
        "{ listen: '127.0.0.1:1', stores: write }",
        "{ unix: s.sock, stores: write }",
        "{ listen: '127.0.0.1:0', stores: write }, { listen: '127.0.0.1:0', stores: write }",
    ] {
        let error = server.reload(&place.config(other)).await.unwrap_err().to_string();
        assert!(error.contains("takes a restart"), "{error}");
    }
    let fewer = "{ listen: '127.0.0.1:0', stores: { archive: read } }";
    server.reload(&place.config(fewer)).await.unwrap();
    assert_eq!(ask(address, "GET /test/rights", &[]).await.ok(), "nobody none read");
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_domain_socket_has_its_mode_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    for (mode, expected) in [("", 0o600), (", mode: '0660'", 0o660)] {
        let (server, _) = place.serve(&format!("{{ unix: s.sock, stores: read{mode} }}")).await;
        let found = std::fs::metadata(place.path("s.sock")).unwrap().permissions().mode();
        assert_eq!(found & 0o777, expected);
        let stream = tokio::net::UnixStream::connect(place.path("s.sock")).await.unwrap();
        let answer = say(stream, "GET /test/rights HTTP/1.1\r\nhost: any\r\n\r\n").await;
        assert_eq!(answer.ok(), "nobody read read");
        server.drain(std::future::pending()).await;
        assert!(!place.path("s.sock").exists());
    }
}

#[tokio::test]
async fn an_address_in_use_says_so() {
    let place = Place::new();
    let (_server, address) = place.serve("{ listen: '127.0.0.1:0', stores: write }").await;
    let again = format!("{{ listen: '{address}', stores: write }}");
    let error = place.listen(&again).await.err().unwrap();
    assert_eq!(error.kind(), crate::ErrorKind::Conflict);
    assert!(error.to_string().contains("another process listens there already"), "{error}");
}
