//! Reaching a running process: a Unix domain socket on which it is asked to drop what its caches keep, and
//! to say what they keep; and to say what its stores do.
//!
//! A cache in the memory of a process can be reached by nobody else. A service that opened its stacks from
//! a config calls [`Control::of`] once; where the config has `control: ./orders.sock`, `tierstack cache
//! invalidate`, `tierstack inspect`, `tierstack status` and `tierstack top` then ask that process.
//!
//! A process that may open the socket may ask: it belongs to the user of the process (mode 0600). A [`Client`] asks a process
//! of its own user only, of root, or of the owner of the socket's folder. While a socket is made, a file next to it,
//! `orders.sock.lock`, keeps other processes of the user from replacing it. One request and one answer are a line of
//! JSON each:
//!
//! ```text
//! {"version":1,"store":"orders","ask":{"invalidate":{"keys64":["dXNlcjox"]}}}
//! {"version":1,"store":"orders","ask":{"invalidate":{"prefix64":"dXNlcjo="}}}
//! {"version":1,"store":"orders","ask":{"invalidate":"all"}}
//! {"version":1,"answer":"invalidated"}
//! {"version":1,"store":"orders","ask":{"inspect":{"key64":"dXNlcjox"}}}
//! {"version":1,"answer":{"inspections":[{"layer":"cache","place":"memory","presence":"entry","bytes":3,...}]}}
//! {"version":1,"ask":"status"}
//! {"version":1,"answer":{"status":{"version":1,"now":1790000000000,"process":{"version":"0.1.0","started_at":1780000000000},"period":1.0,"stacks":[],"listeners":[],"alerts":[]}}}
//! {"version":1,"answer":{"error":{"kind":"invalid_input","message":"..."}}}
//! ```
//!
//! Bytes are base64; times are milliseconds since 1970. A line has at most 4 MiB. A connection on which no
//! whole line comes for 30 seconds is closed, as is one behind a line that is too long; of more than 32
//! at a time the rest are turned away. Each request has 30 seconds as well.
//!
//! ```
//! # #[cfg(unix)]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use tierstack::config::{Config, Format, Registry};
//! use tierstack::control::Control;
//! use tierstack::{OpenOptions, Stack, Store};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! let text = "stores: { orders: { backend: memory } }\ncontrol: ./orders.sock";
//! # let origin = folder.path().join("tierstack.yaml");
//! # let config = Config::parse(text, Format::Yaml, origin)?;
//! # #[cfg(any())]
//! let config = Config::load("tierstack.yaml")?;
//! let options = OpenOptions::service();
//! let orders = Stack::open(&config, None, &Registry::standard(), &options).await?;
//! // Until it is dropped. Without `control` in the config it does nothing.
//! let _control = Control::of(&config, [&orders])?;
//! # orders.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod client;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod socket;
#[cfg(test)]
#[cfg(unix)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use self::client::Client;
#[cfg(all(unix, feature = "serve"))]
pub(crate) use self::socket::{SocketFile, bind as bind_socket};
use crate::config::Config;
use crate::error::Result;
use crate::stack::Stack;
use crate::status::Subject;
use crate::store::Store;

/// A socket on which this process can be reached, until it is dropped. See the [module docs](self).
#[derive(Debug)]
#[must_use = "the socket is removed when this is dropped"]
pub struct Control {
    #[cfg(unix)]
    _listener: serve::Listener,
}

impl Control {
    /// Serves these stores, by name, on a socket at that path, in tasks of the present tokio runtime.
    ///
    /// A file at that path is replaced if it is a socket where nobody answers.
    ///
    /// # Errors
    /// `Conflict` if another process answers there, or it is no socket, or the lock is another user's; `Config` if the path is too long;
    /// `Access`, `Unavailable` as the folder is; `Unsupported` outside a runtime, and where there are no Unix
    /// domain sockets.
    pub fn listen<N: Into<String>>(
        path: impl AsRef<Path>,
        stores: impl IntoIterator<Item = (N, Arc<dyn Store>)>,
    ) -> Result<Self> {
        let stores = stores.into_iter().map(|(name, store)| (name.into(), store));
        let stores: BTreeMap<String, Arc<dyn Store>> = stores.collect();
        let subjects: Vec<_> =
            stores.iter().map(|(name, store)| Subject::of_store(name, store)).collect();
        Self::serve(path.as_ref(), stores, subjects)
    }

    fn serve(
        path: &Path,
        stores: BTreeMap<String, Arc<dyn Store>>,
        subjects: Vec<Subject>,
    ) -> Result<Self> {
        #[cfg(unix)]
        {
            let served = serve::Served::new(stores, subjects);
            Ok(Self { _listener: serve::Listener::new(path, served)? })
        }
        #[cfg(not(unix))]
        {
            let _ = (path, stores, subjects);
            Err(client::unsupported())
        }
    }

    /// Serves stacks where `control` of their config says. `None`: it says nothing.
    ///
    /// # Errors
    /// Like [`listen`](Self::listen).
    pub fn of<'a>(
        config: &Config,
        stacks: impl IntoIterator<Item = &'a Stack>,
    ) -> Result<Option<Self>> {
        let Some(path) = config.control() else { return Ok(None) };
        let (stores, subjects) = stacks
            .into_iter()
            .map(|stack| ((stack.name().to_owned(), stack.store()), Subject::of(stack)))
            .unzip();
        Self::serve(&path, stores, subjects).map(Some)
    }
}
