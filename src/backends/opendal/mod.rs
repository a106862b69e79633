//! `opendal`: a service of Apache OpenDAL, an object or file per entry, as it is.
//!
//! # Guarantees
//! What is under the service's `root` is opened as it is: the object `users/1` is the key `users/1`. A scheme
//! is one of those compiled in (see [`OpenDalConfig::scheme`]); what it guarantees follows from the service,
//! and is checked when the store is opened: against the capabilities that OpenDAL tells of it, by a look at
//! the listing, and, with `conditional_writes`, by races. Scans in key order where the service lists all
//! names in order, checked at every name.
//!
//! # Gives up
//! Batches of more than one operation, snapshots, counting, expiry (the `expire` layer adds it). Scans where
//! the service lists by folders, or not at all. A reverse scan lists all names of its range for its first
//! page.
//!
//! # Cancellation
//! A dropped write to a bucket has taken effect or not, or does so within a moment. Elsewhere, and where a
//! value goes in parts, a write goes on when its future is dropped: a service that keeps what it got of a
//! broken request would keep half a value. So does every request to memcached, whose connections do not
//! survive a dropped one.
//!
//! # Errors
//! Opening: `Config` (scheme, options; no such bucket; what is guaranteed and the service cannot do),
//! `Access`, `Unavailable`, `Timeout`. Later: `InvalidInput` (key, limits), `Unsupported`, `Access`, `Config` (a
//! name that no key has, names out of order), `Conflict` (the key exists), `Unavailable`, `Timeout`. OpenDAL's
//! own words are left out, as they hold the key.
//!
//! # Configuration
//! `opendal: { scheme: s3, options: { bucket: acme } }`; see [`OpenDalConfig`].
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::{OpenDal, OpenDalConfig};
//! use tierstack::{Context, Read, StoreExt};
//!
//! let config = OpenDalConfig::new("memory");
//! let store = OpenDal::open(&config, &Context::default()).await?;
//! store.put("users/1", "Ada").await?;
//! assert_eq!(store.get(b"users/1").await?, Some("Ada".into()));
//!
//! // With an operator of your own, its layers and credentials:
//! let memory = opendal::services::Memory::default();
//! let store = OpenDal::over(opendal::Operator::new(memory).unwrap(), &config).await?;
//! assert_eq!(store.get(b"users/1").await?, None);
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod backend_config;
mod client;
mod config;
mod services;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::opendal::Operator;

use self::client::Client;
pub use self::config::OpenDalConfig;
use crate::error::{Error, Operation, Result};
use crate::layer::{BackendConfig, Context};
use crate::objects::{Entries, delegate};
pub use crate::objects::{Names, Options, Setting};
use crate::types::Identity;

/// A service of OpenDAL, an object or file per entry. See the [module docs](self).
#[derive(Debug)]
pub struct OpenDal(Entries);

delegate!(OpenDal);

impl OpenDal {
    /// Opens a service. Relative paths are meant from the context's folder.
    ///
    /// # Errors
    /// See the [module docs](self).
    pub async fn open(config: &OpenDalConfig, context: &Context) -> Result<Self> {
        let operator = config.operator(context).await.map_err(told)?;
        let identity = config.identity(&operator);
        Self::checked(operator, config, context, identity).await
    }

    /// The store of an operator that is there already. The scheme of the settings must be the operator's;
    /// their options are not used. Deadlines and retries are put around the operator.
    ///
    /// # Errors
    /// See the [module docs](self).
    pub async fn over(operator: Operator, config: &OpenDalConfig) -> Result<Self> {
        // Which server it talks to, an operator does not tell.
        Self::checked(operator, config, &Context::default(), None).await
    }

    async fn checked(
        operator: Operator,
        config: &OpenDalConfig,
        context: &Context,
        identity: Option<Identity>,
    ) -> Result<Self> {
        config.check_operator(&operator).map_err(told)?;
        let folder = (config.scheme == "fs").then(|| operator.info().root().into());
        let client = Client::new(operator, config.service()?, config, context);
        let opening = config.opening(context, identity, folder)?;
        Ok(Self(Entries::open(Arc::new(client), opening).await?))
    }
}

fn told(error: Error) -> Error {
    error.with_operation(Operation::Open).with_layer(OpenDalConfig::NAME)
}
