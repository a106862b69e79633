//! Layers: stores that wrap a store. One module each, none imports another.

#[cfg(feature = "backup")]
pub mod backup;
#[cfg(feature = "cache")]
pub mod cache;
#[cfg(feature = "compress")]
pub mod compress;
#[cfg(feature = "encrypt")]
pub mod encrypt;
pub mod expire;
pub mod limit;
pub mod metrics;
pub mod prefix;
pub mod read_only;
pub mod retry;
pub mod timeout;
#[cfg(any(feature = "compress", feature = "encrypt"))]
mod transform;
pub mod write_back;

#[cfg(any(feature = "compress", feature = "encrypt"))]
pub use transform::{Rewriter, Transform, TransformLayer, Transformed};
