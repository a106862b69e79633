//! `object`: object storage or a folder, an object per entry, as it is.
//!
//! # Guarantees
//! What is under a URL is opened as it is: the object `users/1` is the key `users/1`. A value is seen once
//! all of it is there, also a large one, which is uploaded in parts. An acknowledged write survives what
//! the service makes it survive: see `durability`. Scans in key order where the service lists in order,
//! which is looked at when the store is opened and checked at every name of every scan: a listing out of
//! order is an error, never a scan that misses entries. With `conditional_writes` a batch can depend on its
//! key being absent; opening then tries out, in races, whether the service keeps writers apart.
//!
//! # Gives up
//! Batches of more than one operation, snapshots, expiry (the `expire` layer adds it), counting. A reverse
//! scan lists all names of its range for its first page. A folder has no ordered scans, as it lists in no
//! order: the backend `file` has them.
//!
//! # Cancellation
//! A dropped write has taken effect or not, or does so within a moment. A dropped upload in parts is
//! aborted; when the process ends in the middle, the parts stay in the bucket, unseen: have a lifecycle
//! rule remove unfinished uploads.
//!
//! # Errors
//! Opening: `Config` (settings; no such bucket; names out of order; `conditional_writes` with a service that
//! cannot), `Access` (credentials, rights, or none at all), `Unavailable`, `Timeout`. Later: `InvalidInput`
//! (key, limits), `Unsupported`, `Access`, `Conflict` (the key exists; a folder is where a file should be),
//! `Capacity` (a full disk), `Config` (a name that no key has, names out of order), `Unavailable`,
//! `Timeout`. The service's own words are left out but for its code, as they hold the key.
//!
//! # Configuration
//! `object: { url: "s3://acme/orders" }`; see [`ObjectConfig`].
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::{Object, ObjectConfig};
//! use tierstack::{Context, Read, StoreExt};
//!
//! let config = ObjectConfig::new("memory://");
//! let store = Object::open(&config, &Context::default()).await?;
//! store.put("users/1", "Ada").await?;
//! assert_eq!(store.get(b"users/1").await?, Some("Ada".into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod backend_config;
mod client;
mod config;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::client::Client;
pub use self::config::ObjectConfig;
use crate::error::Result;
use crate::layer::{BackendConfig, Context};
use crate::objects::{Entries, Opening, delegate};
pub use crate::objects::{Names, Options, Setting};

/// Object storage or a folder, an object per entry. See the [module docs](self).
#[derive(Debug)]
pub struct Object(Entries);

delegate!(Object);

impl Object {
    /// Opens what is under the URL. Relative paths are meant from the context's folder.
    ///
    /// # Errors
    /// See the [module docs](self).
    pub async fn open(config: &ObjectConfig, context: &Context) -> Result<Self> {
        let opening = config.opening(context).await?;
        let client =
            config.client(context).await.map_err(|error| error.with_layer(ObjectConfig::NAME))?;
        Self::over(client, opening).await
    }

    async fn over(client: Client, opening: Opening) -> Result<Self> {
        Ok(Self(Entries::open(Arc::new(client), opening).await?))
    }
}
