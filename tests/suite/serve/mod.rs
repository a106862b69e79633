//! `tierstack serve`, as a user runs it: a process, real sockets, signals.

#![cfg(all(feature = "cli", feature = "serve", unix))]

mod config;
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::time::Duration;

use crate::folder::Folder;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command that serves, until it is dropped.
pub(crate) struct Service {
    child: Child,
    out: BufReader<ChildStdout>,
    err: Option<ChildStderr>,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Service {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(folder: &Folder, args: &[&str], with: impl FnOnce(&mut Command)) -> Self {
        let mut command = folder.command(&[&["serve"], args].concat());
        with(&mut command);
        let piped = std::process::Stdio::piped;
        let mut child = command
            .stdin(std::process::Stdio::null())
            .stdout(piped())
            .stderr(piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = child.stderr.take();
        let mut service = Self { child, out, err, addresses: Vec::new() };
        service.until("serving ");
        service
    }

    /// Serves every store of the config on a free port.
    pub(crate) fn open(folder: &Folder) -> Self {
        Self::start(folder, &["--listen", "127.0.0.1:0"], |_| ())
    }

    fn until(&mut self, words: &str) {
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).unwrap() == 0 {
                let err = self.err();
                panic!("it has ended before it said '{words}': {err}");
            }
            if let Some(address) = line.trim_end().rsplit_once("://").map(|(_, address)| address) {
                self.addresses.extend(address.parse::<SocketAddr>());
            }
            if line.starts_with(words) {
                return;
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// What is left to read of standard error, to its end.
    fn err(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut err) = self.err.take() {
            err.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// Reads standard error up to a line with these words.
    pub(crate) fn says(&mut self, words: &str) -> String {
        let mut err = self.err.take().unwrap();
        let mut all = Vec::new();
        let mut byte = [0];
        while err.read(&mut byte).unwrap() == 1 {
            all.push(byte[0]);
            let text = String::from_utf8_lossy(&all);
            if byte[0] == b'\n' && text.contains(words) {
                self.err = Some(err);
                return text.into_owned();
            }
        }
        panic!("it has ended before it said '{words}': {}", String::from_utf8_lossy(&all));
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let err = self.err();
        (self.child.wait().unwrap(), err)
    }

    /// Asks for its end, and expects a good one.
    pub(crate) fn stop(self) -> String {
        self.signal("-TERM");
        let (status, err) = self.end();
        assert_eq!(status.code(), Some(0), "{err}");
        err
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One request over a connection of its own, and the answer to its end.
pub(crate) fn ask(
    address: SocketAddr,
    line: &str,
    more: &[&str],
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = body.as_ref();
    let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
    let length =
        if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head =
        format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{length}{more}\r\n");
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(body);
    answer(stream)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path}"), &[], "")
}

/// Reads to the end.
pub(crate) fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, body }
}
