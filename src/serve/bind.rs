//! Sockets: made here, or handed over by the system that started the process.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use listenfd::ListenFd;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::config::Listen;
use crate::error::{Error, ErrorKind, Result};

#[cfg(unix)]
mod unix {
    pub(super) use tokio::net::{UnixListener, UnixStream};

    pub(super) use crate::control::SocketFile;
}

/// Where connections come from.
pub(super) enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: unix::UnixListener,
        /// Removed with the listener. One that was handed over is not ours to remove.
        _file: Option<unix::SocketFile>,
    },
}

/// A connection, before TLS.
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(unix::UnixStream),
}

/// Sockets that the system has handed over to this process, as systemd does (`LISTEN_FDS`). Each is taken once, by the
/// listener with its address.
#[derive(Default)]
struct Inherited {
    tcp: Vec<std::net::TcpListener>,
    #[cfg(unix)]
    unix: Vec<std::os::unix::net::UnixListener>,
}

static INHERITED: LazyLock<Result<Mutex<Inherited>>> =
    LazyLock::new(|| Inherited::of_the_process().map(Mutex::new));

fn inherited() -> Result<MutexGuard<'static, Inherited>> {
    match &*INHERITED {
        Ok(sockets) => Ok(sockets.lock()),
        Err(error) => Err(error.clone()),
    }
}

/// Refuses sockets that no listener has taken: callers would wait there for ever.
pub(super) fn refuse_unused_sockets() -> Result<()> {
    inherited()?.refuse_rest()
}

impl Inherited {
    fn of_the_process() -> Result<Self> {
        let mut fds = ListenFd::from_env();
        let mut taken = Self::default();
        for at in 0..fds.len() {
            if let Ok(Some(listener)) = fds.take_tcp_listener(at) {
                taken.tcp.push(listener);
                continue;
            }
            #[cfg(unix)]
            if let Ok(Some(listener)) = fds.take_unix_listener(at) {
                taken.unix.push(listener);
                continue;
            }
            return Err(Error::config(format!(
                "the socket {at} that the system has handed over listens for no stream; a socket unit has `ListenStream=`"
            )));
        }
        Ok(taken)
    }

    fn tcp(&mut self, address: SocketAddr) -> Option<std::net::TcpListener> {
        let same = |socket: &std::net::TcpListener| socket.local_addr().is_ok_and(|a| a == address);
        self.tcp.iter().position(same).map(|at| self.tcp.swap_remove(at))
    }

    #[cfg(unix)]
    fn unix(&mut self, path: &Path) -> Option<std::os::unix::net::UnixListener> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let wanted = real(path);
        let same = |socket: &std::os::unix::net::UnixListener| {
            let address = socket.local_addr();
            address.is_ok_and(|address| address.as_pathname().is_some_and(|at| real(at) == wanted))
        };
        self.unix.iter().position(same).map(|at| self.unix.swap_remove(at))
    }

    fn refuse_rest(&self) -> Result<()> {
        let mut left: Vec<_> = self
            .tcp
            .iter()
            .filter_map(|socket| Some(socket.local_addr().ok()?.to_string()))
            .collect();
        #[cfg(unix)]
        left.extend(self.unix.iter().map(|socket| {
            let address = socket.local_addr().ok();
            let path = address.as_ref().and_then(|address| address.as_pathname());
            path.map_or("a path without a name".to_owned(), |path| path.display().to_string())
        }));
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!(
            "the system has handed over a socket at {}, where no listener of `serve` is; give one this address",
            left.join(" and ")
        )))
    }
}

impl Socket {
    /// Takes the socket that was handed over, or makes one. `place` has whole paths.
    pub(super) async fn bind(place: &Listen) -> Result<Self> {
        match place {
            Listen::Tcp(address) => {
                let handed_over = inherited()?.tcp(*address);
                let listener = match handed_over {
                    Some(listener) => from_outside(listener),
                    None => TcpListener::bind(address).await,
                };
                listener.map(Self::Tcp).map_err(|error| cannot_listen(*address, error))
            }
            #[cfg(unix)]
            Listen::Unix { path, mode } => {
                let handed_over = inherited()?.unix(path);
                let (listener, file) = match handed_over {
                    Some(listener) => {
                        listener.set_nonblocking(true).map_err(|error| unusable(path, error))?;
                        (listener, None)
                    }
                    None => {
                        let (listener, file) = crate::control::bind_socket(path, *mode)?;
                        (listener, Some(file))
                    }
                };
                let listener = unix::UnixListener::from_std(listener)
                    .map_err(|error| unusable(path, error))?;
                Ok(Self::Unix { listener, _file: file })
            }
            #[cfg(not(unix))]
            Listen::Unix { .. } => Err(Error::unsupported(
                "this system has no Unix domain sockets here; write `listen`",
            )),
        }
    }

    /// Where callers reach it: `None` of a Unix domain socket.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Self::Unix { .. } => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An answer is not held back until the last one is acknowledged. It fails where the caller has left.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// A socket that blocks would hold up a thread of the runtime, and the end of the process.
fn from_outside(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn cannot_listen(address: SocketAddr, error: io::Error) -> Error {
    let (kind, what) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            ErrorKind::Conflict,
            "another process listens there already; end it, or name another port",
        ),
        io::ErrorKind::AddrNotAvailable => {
            (ErrorKind::Config, "this machine has no such address; 0.0.0.0 is all that it has")
        }
        io::ErrorKind::PermissionDenied => (
            ErrorKind::Access,
            "this user may not; ports below 1024 are for root, or for a socket that systemd hands over",
        ),
        _ => (ErrorKind::Unavailable, "it is not possible to listen there"),
    };
    Error::new(kind, format!("{address}: {what}")).with_source(error)
}

#[cfg(unix)]
fn unusable(path: &Path, error: io::Error) -> Error {
    Error::io(format!("{}: the socket cannot be served", path.display()), error)
}

impl Stream {
    /// Writes as far as it goes without waiting, and reads what is there: the end of a connection with bytes that nobody
    /// has read may take the answer along.
    pub(super) fn turn_away(self, answer: &[u8]) {
        fn say(stream: io::Result<impl io::Read + io::Write>, answer: &[u8]) {
            if let Ok(mut stream) = stream {
                let _ = stream.write(answer);
                let _ = stream.read(&mut [0; 4096]);
            }
        }
        // The runtime does not know yet whether it can be written to; the system does.
        match self {
            Self::Tcp(stream) => say(stream.into_std(), answer),
            #[cfg(unix)]
            Self::Unix(stream) => say(stream.into_std(), answer),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
