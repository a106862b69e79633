//! A certificate authority of the test's own, and a server certificate for localhost from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{find, output};
use super::{blocking, required};

const CONFIG: &str = "\
[req]
distinguished_name = dn
prompt = no
x509_extensions = ca
[dn]
CN = tierstack test CA
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// Two of them do not trust each other.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(crate) async fn make() -> Option<Self> {
        let openssl = find(&["openssl"]);
        required(openssl, "the command openssl is not installed")?;
        Some(blocking(Self::make_now).await)
    }

    fn make_now() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |line: &str| {
            output(Command::new("openssl").args(line.split(' ')).current_dir(folder.path()))
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config config";
        fs::write(folder.path().join("config"), CONFIG).unwrap();
        openssl(&format!("req -x509 -days 30 {key} -keyout ca.key -out ca.pem"));
        openssl(&format!("req -new {key} -subj /CN=localhost -keyout server.key -out server.csr"));
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
             -extfile config -extensions server -out server.pem",
        );
        Self { folder }
    }

    /// The authority that a client must trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// The certificate of a server at localhost or 127.0.0.1.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.file("server.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.file("server.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}
