//! Azurite: its well-known account, and containers that are gone after the test.
//!
//! For each request it looks through all blobs of the account, whatever their container: those that stay make every
//! later request slow.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tierstack::units::Span;
use tokio::sync::Mutex;

/// Held by a suite: two of them at a time would only make each other's requests late.
pub(crate) static TURN: Mutex<()> = Mutex::const_new(());

/// A deadline of requests that a busy machine keeps. A request that hangs is noticed by the suite.
pub(crate) const PATIENCE: Span = Span(Duration::from_secs(110));

/// The key of the account, which is public.
pub(crate) const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Made with that key: any container of the account may be made and deleted.
const SIGNATURE: &str = "sv=2019-12-12&ss=b&srt=c&sp=cd&se=2099-01-01T00%3A00%3A00Z&sig=l6ONSpFAadVX0elJVAfhhWFeNDproQu0nIh2uKIcw%2FQ%3D";

/// A container of its own name, deleted with all of its blobs when this is dropped.
pub(crate) struct Container {
    server: String,
    pub(crate) name: String,
}

impl Container {
    pub(crate) fn new(server: &str) -> Self {
        let name = format!("tierstack-{}", uuid::Uuid::new_v4().simple());
        let container = Self { server: server.to_owned(), name };
        let answer = container.send("PUT").unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        container
    }

    fn send(&self, method: &str) -> std::io::Result<String> {
        let Self { server, name } = self;
        let (host, account) = server.trim_start_matches("http://").split_once('/').unwrap();
        let mut stream = TcpStream::connect(host)?;
        write!(
            stream,
            "{method} /{account}/{name}?restype=container&{SIGNATURE} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.send("DELETE");
        // A test that fails already is not to abort.
        if !std::thread::panicking() {
            let answer = deleted.unwrap();
            assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        }
    }
}
