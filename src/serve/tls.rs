//! The certificate of a listener.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};

use super::expiry;
use crate::clock::Timestamp;
use crate::config::TlsConfig;
use crate::error::{Error, Result};

/// A certificate with its key.
pub(super) struct Certificate {
    pub(super) config: Arc<ServerConfig>,
    /// When the first of the chain expires, if that can be told.
    pub(super) expires_at: Option<Timestamp>,
}

/// Reads a certificate and its key. What can be seen to be wrong is refused: what does not parse, and a key that belongs to
/// another certificate.
pub(super) fn load(files: &TlsConfig, folder: &Path) -> Result<Certificate> {
    let (cert, key) = (folder.join(&files.cert), folder.join(&files.key));
    let chain = CertificateDer::pem_file_iter(&cert)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| unreadable("tls.cert", &cert, error))?;
    if chain.is_empty() {
        return Err(unreadable("tls.cert", &cert, pem::Error::NoItemsFound));
    }
    let expires_at = chain.iter().filter_map(|one| expiry::of(one)).min();
    let private =
        PrivateKeyDer::from_pem_file(&key).map_err(|error| unreadable("tls.key", &key, error))?;
    let refuse = |error: rustls::Error| {
        let what = match error {
            rustls::Error::InconsistentKeys(_) => "the key belongs to another certificate",
            _ => "they cannot be used",
        };
        Error::config(format!("tls: {} and {}: {what}", cert.display(), key.display()))
            .with_source(error)
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refuse)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(refuse)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Certificate { config: Arc::new(config), expires_at })
}

/// The content of a file with a key is not quoted, so what the parser says of it is left out.
fn unreadable(setting: &str, path: &Path, error: pem::Error) -> Error {
    let path = path.display();
    match error {
        pem::Error::Io(error) => {
            Error::config(format!("{setting}: the file {path} cannot be read")).with_source(error)
        }
        pem::Error::NoItemsFound => {
            let what = if setting.ends_with("key") { "private key" } else { "certificate" };
            Error::config(format!("{setting}: the file {path} holds no {what} in PEM"))
        }
        _ => Error::config(format!("{setting}: the file {path} is damaged, or no PEM")),
    }
}
