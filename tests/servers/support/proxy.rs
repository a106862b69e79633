//! A TCP proxy that cuts, holds up and slows a line, and counts what passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{blocking, port};

/// Runs in a thread and a runtime of its own, whatever the test's runtime is busy with.
pub(crate) struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// The way of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What has passed since the proxy was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Connections that clients made.
    pub(crate) connections: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    /// How often a client sent something for which it had not been waiting: its first bytes, and
    /// its next ones after an answer came. Exact while a connection is used by one task.
    pub(crate) round_trips: u64,
}

/// What has passed since an earlier look.
impl std::ops::Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            connections: self.connections - earlier.connections,
            bytes_up: self.bytes_up - earlier.bytes_up,
            bytes_down: self.bytes_down - earlier.bytes_down,
            round_trips: self.round_trips - earlier.round_trips,
        }
    }
}

struct Shared {
    server: String,
    open: watch::Sender<bool>,
    delay: AtomicU64,
    /// How many more bytes may pass on either way before everything is cut.
    budgets: [AtomicI64; 2],
    bytes: [AtomicU64; 2],
    connections: AtomicU64,
    round_trips: AtomicU64,
}

enum Order {
    Cut(Option<oneshot::Sender<()>>),
    Reset(oneshot::Sender<()>),
    Heal(oneshot::Sender<()>),
    End,
}

impl Proxy {
    /// A proxy to the server at this address, such as `127.0.0.1:5432`. Everything passes.
    pub(crate) async fn to(server: impl Into<String>) -> Self {
        let shared = Arc::new(Shared {
            server: server.into(),
            open: watch::Sender::new(true),
            delay: AtomicU64::new(0),
            budgets: [AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX)],
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            connections: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
        });
        let (orders, mailbox) = mpsc::unbounded_channel();
        let (told, listening) = oneshot::channel();
        let (for_thread, for_pumps) = (Arc::clone(&shared), orders.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve(for_thread, mailbox, for_pumps, told));
        });
        let addr = listening.await.expect("a port to listen at");
        Self { addr, shared, orders, thread: Some(thread) }
    }

    /// Where clients connect: `127.0.0.1:PORT`.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of a server, with the proxy's address in place of the server's.
    pub(crate) fn url(&self, server: &str) -> String {
        assert!(server.contains(&self.shared.server), "the proxy leads to {}", self.shared.server);
        server.replace(&self.shared.server, &self.addr.to_string())
    }

    /// Closes every connection and refuses new ones, until [`heal`](Self::heal).
    pub(crate) async fn cut(&self) {
        self.order(|done| Order::Cut(Some(done))).await;
    }

    /// Closes every connection. New ones are served.
    pub(crate) async fn reset(&self) {
        self.order(Order::Reset).await;
    }

    /// As if the cable were pulled: connections are accepted and nothing closes, but nothing passes,
    /// until [`heal`](Self::heal). What is sent meanwhile arrives then, as TCP would have it:
    /// late writes are a thing to expect. [`reset`](Self::reset) before `heal` loses it.
    pub(crate) fn hang(&self) {
        self.shared.open.send_replace(false);
    }

    /// Ends a cut and a hang, and takes back [`cut_after_bytes`](Self::cut_after_bytes).
    pub(crate) async fn heal(&self) {
        self.order(Order::Heal).await;
    }

    /// Delays bytes by so much on each way: a round trip takes twice as long. Connections are accepted
    /// at once.
    pub(crate) fn delay(&self, each_way: Duration) {
        let micros = each_way.as_micros().try_into().unwrap();
        self.shared.delay.store(micros, Ordering::Relaxed);
    }

    /// Lets exactly so many more bytes pass that way, over all connections, and then
    /// [cuts](Self::cut): in the midst of a request, or of an answer.
    pub(crate) fn cut_after_bytes(&self, way: Way, bytes: u64) {
        self.shared.budgets[way as usize].store(bytes.try_into().unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn counters(&self) -> Counters {
        let [up, down] = &self.shared.bytes;
        Counters {
            connections: self.shared.connections.load(Ordering::Relaxed),
            bytes_up: up.load(Ordering::Relaxed),
            bytes_down: down.load(Ordering::Relaxed),
            round_trips: self.shared.round_trips.load(Ordering::Relaxed),
        }
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, wait) = oneshot::channel();
        self.orders.send(order(done)).expect("the proxy runs");
        wait.await.expect("the proxy runs");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    mut mailbox: mpsc::UnboundedReceiver<Order>,
    orders: mpsc::UnboundedSender<Order>,
    told: oneshot::Sender<SocketAddr>,
) {
    let first = loop {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port::free())).await {
            break listener;
        }
    };
    let addr = first.local_addr().unwrap();
    let mut listener = Some(first);
    let mut lines = JoinSet::new();
    let _ = told.send(addr);
    loop {
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = mailbox.recv() => match order {
                Some(Order::Cut(done)) => {
                    listener = None;
                    lines.shutdown().await;
                    let _ = done.map(|done| done.send(()));
                }
                Some(Order::Reset(done)) => {
                    lines.shutdown().await;
                    let _ = done.send(());
                }
                Some(Order::Heal(done)) => {
                    shared.budgets.iter().for_each(|b| b.store(i64::MAX, Ordering::SeqCst));
                    while listener.is_none() {
                        listener = TcpListener::bind(addr).await.ok();
                        if listener.is_none() {
                            sleep(Duration::from_millis(10)).await;
                        }
                    }
                    shared.open.send_replace(true);
                    let _ = done.send(());
                }
                Some(Order::End) | None => return,
            },
            accepted = accept => {
                let Ok((client, _)) = accepted else { continue };
                shared.connections.fetch_add(1, Ordering::Relaxed);
                lines.spawn(line(client, Arc::clone(&shared), orders.clone()));
            }
            Some(_) = lines.join_next() => {}
        }
    }
}

/// One connection, until both ways are done or one fails.
async fn line(client: TcpStream, shared: Arc<Shared>, orders: mpsc::UnboundedSender<Order>) {
    shared.passable().await;
    let Ok(server) = TcpStream::connect(&shared.server).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let answered = AtomicBool::new(true);
    let up = pump(Way::Up, from_client, to_server, &shared, &orders, &answered);
    let down = pump(Way::Down, from_server, to_client, &shared, &orders, &answered);
    let _ = tokio::try_join!(up, down);
}

async fn pump(
    way: Way,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    orders: &mpsc::UnboundedSender<Order>,
    answered: &AtomicBool,
) -> std::io::Result<()> {
    // Bytes wait here for their time, and the sender is held up when there are too many.
    let (later, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let read = async move {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut buffer).await?;
            let delay = Duration::from_micros(shared.delay.load(Ordering::Relaxed));
            let bytes = buffer[..count].to_vec();
            if later.send((Instant::now() + delay, bytes)).await.is_err() || count == 0 {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, mut bytes)) = queue.recv().await {
            // A timer is a millisecond coarse.
            if due > Instant::now() {
                sleep_until(due).await;
            }
            shared.passable().await;
            if bytes.is_empty() {
                to.shutdown().await?;
                return Ok(());
            }
            let count = bytes.len() as i64;
            let left = shared.budgets[way as usize].fetch_sub(count, Ordering::SeqCst);
            let cut = left <= count;
            bytes.truncate(usize::try_from(left.clamp(0, count)).unwrap());
            shared.count(way, bytes.len(), answered);
            to.write_all(&bytes).await?;
            if cut {
                let _ = orders.send(Order::Cut(None));
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

impl Shared {
    async fn passable(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    fn count(&self, way: Way, bytes: usize, answered: &AtomicBool) {
        self.bytes[way as usize].fetch_add(bytes as u64, Ordering::Relaxed);
        match way {
            Way::Down => answered.store(true, Ordering::Relaxed),
            Way::Up if answered.swap(false, Ordering::Relaxed) => {
                self.round_trips.fetch_add(1, Ordering::Relaxed);
            }
            Way::Up => {}
        }
    }
}
