//! The other side: asking a running process.

use std::path::Path;

use super::wire::{Answer, Ask, Request};
use crate::error::{Error, Result};
use crate::status::Facts;
use crate::types::{Inspection, Scope};

/// A connection to a process that listens on its control socket.
///
/// ```
/// # #[cfg(unix)]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::control::{Client, Control};
/// use tierstack::{Presence, Scope, Store};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("orders.sock");
/// assert!(Client::connect(&path).await?.is_none(), "nobody listens yet");
/// let store: Arc<dyn Store> = Arc::new(Memory::new());
/// let _control = Control::listen(&path, [("orders", store)])?;
///
/// let mut client = Client::connect(&path).await?.unwrap();
/// client.invalidate("orders", Scope::All).await?;
/// let inspections = client.inspect("orders", b"user:1").await?;
/// assert_eq!(inspections[0].presence, Presence::None);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Client {
    #[cfg(unix)]
    stream: tokio::io::BufReader<tokio::net::UnixStream>,
}

impl Client {
    /// Connects to the process that listens there. `None`: nobody does.
    ///
    /// # Errors
    /// `Access` if this user may not, or if the process is of another user, which may not be trusted with keys:
    /// neither of this one, nor root, nor the owner of the socket's folder; `Unavailable` otherwise; `Unsupported` where there are no Unix domain
    /// sockets.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Option<Self>> {
        #[cfg(unix)]
        {
            use std::io::ErrorKind::{ConnectionRefused, NotFound};
            let path = path.as_ref();
            match tokio::net::UnixStream::connect(path).await {
                Ok(stream) => {
                    check_peer(&stream, path)?;
                    Ok(Some(Self { stream: tokio::io::BufReader::new(stream) }))
                }
                Err(error) if matches!(error.kind(), ConnectionRefused | NotFound) => Ok(None),
                Err(error) => {
                    Err(Error::io("the process cannot be reached on its control socket", error))
                }
            }
        }
        #[cfg(not(unix))]
        {
            let _ = path;
            Err(unsupported())
        }
    }

    /// [Invalidates](crate::Store::invalidate) keys of a store of that process.
    ///
    /// # Errors
    /// As the store; `Config` if the process does not serve it; `Unavailable` and `Timeout` if it gives no answer;
    /// `InvalidInput` for more keys than 4 MiB hold as base64.
    pub async fn invalidate(&mut self, store: &str, scope: Scope) -> Result<()> {
        match self.ask(store, Ask::Invalidate(scope)).await? {
            Answer::Invalidated => Ok(()),
            _ => Err(another()),
        }
    }

    /// [Inspects](crate::Store::inspect) a key of a store of that process.
    ///
    /// # Errors
    /// Like [`invalidate`](Self::invalidate).
    pub async fn inspect(&mut self, store: &str, key: &[u8]) -> Result<Vec<Inspection>> {
        match self.ask(store, Ask::Inspect(bytes::Bytes::copy_from_slice(key))).await? {
            Answer::Inspections(inspections) => Ok(inspections),
            _ => Err(another()),
        }
    }

    /// What the stores of that process do now. It takes a second, unless that process is asked all the time.
    ///
    /// # Errors
    /// Like [`invalidate`](Self::invalidate), without those about a store.
    pub async fn status(&mut self) -> Result<Facts> {
        match self.ask("", Ask::Status).await? {
            Answer::Status(facts) => Ok(*facts),
            _ => Err(another()),
        }
    }

    #[cfg(unix)]
    async fn ask(&mut self, store: &str, ask: Ask) -> Result<Answer> {
        use std::time::Duration;

        use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

        use super::wire::{MAX_LINE, PATIENCE};
        use crate::clock::{Clock, SystemClock};
        use crate::error::ErrorKind;

        let mut line = Request { store: store.to_owned(), ask }.to_line()?;
        line.push(b'\n');
        if line.len() as u64 > MAX_LINE {
            let message =
                "these are too many keys for one request; ask in several, or for a prefix";
            return Err(Error::invalid(message));
        }
        let asked = async {
            self.stream.write_all(&line).await?;
            line.clear();
            (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line).await
        };
        let lost = |error| Error::io("the process on the control socket has gone", error);
        tokio::select! {
            read = asked => match read.map_err(lost)? {
                0 => Err(lost(std::io::ErrorKind::UnexpectedEof.into())),
                _ => Answer::parse(&line),
            },
            // A little longer than the process itself takes at most.
            () = SystemClock.sleep(PATIENCE + Duration::from_secs(5)) => Err(Error::new(
                ErrorKind::Timeout,
                "the process on the control socket gave no answer",
            )),
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_async, reason = "as on Unix")]
    async fn ask(&mut self, store: &str, ask: Ask) -> Result<Answer> {
        Request { store: store.to_owned(), ask }.to_line()?;
        Err(unsupported())
    }
}

/// Refuses a process of a user who has nothing to do with the socket: anyone who can write into its folder can have a
/// process listen there. The owner of the folder decides what is in it, and root about everything.
#[cfg(unix)]
fn check_peer(stream: &tokio::net::UnixStream, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    use crate::error::ErrorKind;

    let unknown = |error| {
        Error::io("it is unknown which user's process listens on the control socket", error)
    };
    let peer = stream.peer_cred().map_err(unknown)?.uid();
    let (one, _other) = tokio::net::UnixStream::pair().map_err(unknown)?;
    let own = one.peer_cred().map_err(unknown)?.uid();
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let owner = std::fs::metadata(folder).map_err(unknown)?.uid();
    if [own, owner, 0].contains(&peer) {
        return Ok(());
    }
    let message = format!(
        "control: a process of another user (uid {peer}) listens on the socket, and is told nothing; `control` must name a path in a folder that no other user can write into"
    );
    Err(Error::new(ErrorKind::Access, message))
}

fn another() -> Error {
    Error::internal("the process on the control socket answered another question")
}

#[cfg_attr(unix, expect(dead_code, reason = "for the other systems"))]
pub(super) fn unsupported() -> Error {
    Error::unsupported("`control` needs Unix domain sockets, which this system does not have here")
}
