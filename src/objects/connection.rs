//! How a place is talked to.

use std::time::Duration;

use crate::types::units::SecretText;

/// How a place is talked to.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(all(feature = "cloud", feature = "object")),
    allow(
        dead_code,
        reason = "buckets alone have a line to wait for, and the entries of `object` any name"
    )
)]
pub(crate) struct Connection {
    /// The deadline of one request.
    pub(crate) timeout: Duration,
    /// How often, and for how long, a request is repeated.
    pub(crate) retries: usize,
    pub(crate) retry_for: Duration,
    /// Whether objects may be those of others, with any name.
    pub(crate) foreign: bool,
    /// Whether a file is on the disk before a put is acknowledged.
    pub(crate) sync: bool,
    /// What the environment does not say, or says otherwise, by `object_store`'s names.
    pub(crate) options: Vec<(String, SecretText)>,
}

/// Of a repository: a pack of 16 MiB must get through a slow line, and an acknowledged backup
/// survives a power cut.
impl Default for Connection {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            retries: 10,
            retry_for: Duration::from_secs(180),
            foreign: false,
            sync: true,
            options: Vec::new(),
        }
    }
}
