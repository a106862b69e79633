use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::wire::{Answer, Ask, MAX_LINE, PATIENCE, Request};
use super::*;
use crate::backends::Memory;
use crate::error::{ErrorKind, Operation};
use crate::testing::{FaultStore, Faults};
use crate::types::{Presence, Scope};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("c.sock")
    }

    fn listen(&self, faults: &Faults) -> Result<Control> {
        let store: Arc<dyn Store> = Arc::new(FaultStore::new(Memory::new(), faults));
        Control::listen(self.path(), [("orders", store)])
    }

    async fn client(&self) -> Client {
        Client::connect(self.path()).await.unwrap().unwrap()
    }

    /// Sends bytes as they are, and gives the answers until the connection ends.
    async fn say(&self, bytes: impl AsRef<[u8]>) -> Vec<String> {
        let stream = UnixStream::connect(self.path()).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        // It may hang up before it has read everything.
        let _ = writer.write_all(bytes.as_ref()).await;
        let _ = writer.shutdown().await;
        let mut lines = BufReader::new(reader).lines();
        let mut answers = Vec::new();
        while let Ok(Some(line)) = lines.next_line().await {
            answers.push(line);
        }
        answers
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }
}

#[test]
fn a_request_is_read_as_it_was_written() {
    let keys = vec![Bytes::from_static(b"\x00\xff"), Bytes::from_static(b"user:1")];
    for ask in [
        Ask::Invalidate(Scope::Keys(keys)),
        Ask::Invalidate(Scope::Keys(Vec::new())),
        Ask::Invalidate(Scope::Prefix("user:".into())),
        Ask::Invalidate(Scope::All),
        Ask::Inspect("user:1".into()),
        Ask::Status,
    ] {
        let request = Request { store: "orders".into(), ask };
        let line = request.to_line().unwrap();
        assert!(!line.contains(&b'\n'));
        assert_eq!(Request::parse(&line).unwrap(), request);
    }
}

/// They are guaranteed to programs in other languages.
#[test]
fn the_lines_of_the_docs_are_understood() {
    let docs = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! {"));
    let (mut requests, mut answers) = (0, 0);
    for line in docs {
        let line = format!("{{{line}").replace(",...", "");
        if line.contains("\"ask\"") {
            let request = Request::parse(line.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(request.to_line().unwrap()).unwrap(), line);
            requests += 1;
        } else {
            let answer = Answer::parse(line.as_bytes());
            assert!(answer.is_ok() || line.contains("error"), "{line}: {answer:?}");
            answers += 1;
        }
    }
    assert_eq!((requests, answers), (5, 4));
}

#[tokio::test]
async fn the_status_is_that_of_every_store_and_needs_no_name() {
    let (place, faults) = (Place::new(), Faults::new());
    let _control = place.listen(&faults).unwrap();
    let mut client = place.client().await;
    for _ in 0..2 {
        let facts = client.status().await.unwrap();
        assert_eq!(facts.stacks[0].name, "orders");
        assert!(facts.period.is_some(), "it has rates");
    }
}

#[tokio::test]
async fn what_is_asked_reaches_the_store() {
    let (place, faults) = (Place::new(), Faults::new());
    let _control = place.listen(&faults).unwrap();
    let mut client = place.client().await;
    for _ in 0..2 {
        client.invalidate("orders", Scope::Prefix("user:".into())).await.unwrap();
        let inspections = client.inspect("orders", b"user:1").await.unwrap();
        assert_eq!(inspections[0].presence, Presence::None);
    }
    assert_eq!(faults.calls(Operation::Invalidate), 2);
    assert_eq!(faults.calls(Operation::Inspect), 2);

    let error = client.inspect("orders", b"").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = client.inspect("users", b"k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("it serves orders"), "{error}");
    faults.on(Operation::Invalidate).fail(ErrorKind::Unavailable);
    let error = client.invalidate("orders", Scope::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn bad_input_is_answered_and_harms_nobody() {
    let (place, faults) = (Place::new(), Faults::new());
    let _control = place.listen(&faults).unwrap();
    let secret = "s3cr3t";
    for bad in [
        String::new(),
        "nonsense".to_owned(),
        "{}".to_owned(),
        "[1]".to_owned(),
        format!(r#"{{"version":1,"store":"orders","ask":{{"{secret}":1}}}}"#),
        format!(r#"{{"version":1,"store":"orders","ask":"{secret}"}}"#),
        format!(r#"{{"version":1,"store":"{secret}","ask":{{"invalidate":"all"}}}}"#),
        format!(r#"{{"version":1,"store":"orders","ask":{{"inspect":{{"key64":"{secret}!"}}}}}}"#),
        r#"{"version":1,"store":"orders","ask":{"invalidate":"all"},"more":1}"#.to_owned(),
        r#"{"version":2,"store":"orders","question":"?"}"#.to_owned(),
        "[".repeat(100_000),
    ] {
        let answers = place.say(format!("{bad}\n")).await;
        assert_eq!(answers.len(), 1, "{bad:.80}");
        assert!(answers[0].contains(r#""error""#) && !answers[0].contains(secret), "{answers:?}");
    }
    let answers = place.say(b"\xff\xfe\x00\n").await;
    assert!(answers[0].contains("this is not a request; write"), "{answers:?}");
    let answers = place.say(r#"{"version":2}"#.to_owned() + "\n").await;
    assert!(answers[0].contains("speaks version 1"), "{answers:?}");
    // A line that is cut off is no request.
    let cut = r#"{"version":1,"store":"orders","ask":{"invalidate":"all"}}"#;
    assert!(place.say(cut).await.is_empty());
    assert_eq!(faults.calls(Operation::Invalidate), 0);
    let answers = place.say(format!("nonsense\n{cut}\n")).await;
    assert_eq!(answers[1..], [r#"{"version":1,"answer":"invalidated"}"#]);
}

#[tokio::test]
async fn a_line_without_an_end_is_cut_off() {
    let place = Place::new();
    let _control = place.listen(&Faults::new()).unwrap();
    let mut stream = UnixStream::connect(place.path()).await.unwrap();
    // It may hang up before it has read everything.
    let _ = stream.write_all(&vec![b'x'; MAX_LINE as usize + 1]).await;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.unwrap();
    assert!(answer.contains("the line is longer than"), "without an end of it: {answer:?}");
    place.client().await.invalidate("orders", Scope::All).await.unwrap();
    let keys = vec![Bytes::from(vec![0; 64 << 10]); 100];
    let error = place.client().await.invalidate("orders", Scope::Keys(keys)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out_for_ever() {
    let place = Place::new();
    let _control = place.listen(&Faults::new()).unwrap();
    let mut idle = Vec::new();
    for _ in 0..32 {
        let mut client = place.client().await;
        client.invalidate("orders", Scope::All).await.unwrap();
        idle.push(client);
    }
    let error = place.client().await.invalidate("orders", Scope::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Capacity);
    // From here on the clock of the runtime is moved by its waiting.
    tokio::time::pause();
    tokio::time::sleep(PATIENCE).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    place.client().await.invalidate("orders", Scope::All).await.unwrap();
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up() {
    let (place, faults) = (Place::new(), Faults::new());
    let _control = place.listen(&faults).unwrap();
    let mut client = place.client().await;
    let _gate = faults.on(Operation::Inspect).hold();
    tokio::time::pause();
    let error = client.inspect("orders", b"k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("the store gave no answer"), "{error}");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_goes_with_the_guard() {
    let place = Place::new();
    let control = place.listen(&Faults::new()).unwrap();
    let mode = std::fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(place.files(), 1);
    let mut client = place.client().await;
    drop(control);
    assert_eq!(place.files(), 0);
    assert!(Client::connect(place.path()).await.unwrap().is_none());
    assert!(client.invalidate("orders", Scope::All).await.is_err(), "connections end with it");
}

#[tokio::test]
async fn only_what_nobody_listens_on_is_replaced() {
    let place = Place::new();
    std::fs::write(place.path(), "mine").unwrap();
    assert_eq!(place.listen(&Faults::new()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(std::fs::read(place.path()).unwrap(), b"mine");
    std::fs::remove_file(place.path()).unwrap();

    // A process that was killed leaves its socket.
    drop(UnixListener::bind(place.path()).unwrap());
    assert!(Client::connect(place.path()).await.unwrap().is_none());
    let first = place.listen(&Faults::new()).unwrap();
    let error = place.listen(&Faults::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another process listens there"), "{error}");
    place.client().await.invalidate("orders", Scope::All).await.unwrap();

    // Somebody has removed the file, and another is there now.
    std::fs::remove_file(place.path()).unwrap();
    let _second = place.listen(&Faults::new()).unwrap();
    drop(first);
    place.client().await.invalidate("orders", Scope::All).await.unwrap();
    assert_eq!(place.files(), 1);
}

/// A user who can open the folder, or what is in it, can lock that for ever.
#[tokio::test]
async fn a_lock_on_the_folder_keeps_nobody_out() {
    let place = Place::new();
    let folder = std::fs::File::open(place.0.path()).unwrap();
    folder.lock().unwrap();
    let control = place.listen(&Faults::new()).unwrap();
    assert_eq!(place.files(), 1, "the lock of its own is gone");
    drop(control);
    // As a process that was killed leaves it.
    let lock = place.0.path().join("c.sock.lock");
    let leave = || {
        let file = std::fs::File::create(&lock).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    };
    leave();
    drop(place.listen(&Faults::new()).unwrap());
    assert_eq!(place.files(), 0);
    let held = leave();
    held.lock().unwrap();
    let error = place.listen(&Faults::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another process of this user"), "{error}");
    drop(held);
    std::fs::remove_file(&lock).unwrap();
    // What others may have opened, and what leads elsewhere.
    std::fs::write(place.0.path().join("mine"), "mine").unwrap();
    let public = || {
        std::fs::write(&lock, "").unwrap();
        std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o644)).unwrap();
    };
    let link = || std::os::unix::fs::symlink("mine", &lock).unwrap();
    for make in [&public as &dyn Fn(), &link] {
        make();
        let error = place.listen(&Faults::new()).unwrap_err();
        assert!(error.to_string().contains("not a file that only this user can open"), "{error}");
        std::fs::remove_file(&lock).unwrap();
    }
    assert_eq!(std::fs::read(place.0.path().join("mine")).unwrap(), b"mine");
}

/// Only root can have a process of another user.
#[tokio::test]
async fn a_process_of_another_user_is_told_nothing() {
    const NOBODY: u32 = 65_534;
    let place = Place::new();
    if std::fs::metadata(place.0.path()).unwrap().uid() != 0 {
        println!("left out: this needs root");
        return;
    }
    std::fs::set_permissions(place.0.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let listen = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True); sys.stdin.read()";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", listen]).arg(place.path()).uid(NOBODY).current_dir("/");
    let piped = std::process::Stdio::piped;
    let Ok(mut listener) = command.stdin(piped()).stdout(piped()).spawn() else {
        println!("left out: this needs python3");
        return;
    };
    let mut ready = [0];
    std::io::Read::read_exact(listener.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let error = Client::connect(place.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access);
    assert!(error.to_string().contains("uid 65534"), "{error}");
    // The owner of the folder decides what is in it: root asks a service of another user.
    std::os::unix::fs::chown(place.0.path(), Some(NOBODY), None).unwrap();
    assert!(Client::connect(place.path()).await.unwrap().is_some());
    drop(listener.stdin.take());
    listener.wait().unwrap();
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_says_so() {
    let place = Place::new();
    let listen = |path: PathBuf| {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        Control::listen(path, [("orders", store)]).unwrap_err()
    };
    let deep = place.0.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let error = listen(deep.join("c.sock"));
    assert!(error.to_string().contains("too long"), "{error}");
    assert_eq!(std::fs::read_dir(deep).unwrap().count(), 0);
    let error = listen(place.0.path().join("nowhere/c.sock"));
    assert!(error.to_string().contains("its folder cannot be used"), "{error}");
}

#[test]
fn without_a_runtime_there_is_no_socket() {
    let place = Place::new();
    let error = place.listen(&Faults::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(place.files(), 0);
}
