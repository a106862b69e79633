//! Asking a server: `GET /v1/status`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use tierstack::status::Facts;
use tierstack::units::SecretText;
use tierstack::{Clock, Error, ErrorKind, SystemClock};

use crate::failure::{Failure, Outcome};

/// The longest answer.
const MOST: usize = 64 << 20;
/// How long an answer is waited for. The server itself takes a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server is, and what it is shown.
pub(super) struct Address {
    host: String,
    port: u16,
    /// `host:port`, as the server is to see it.
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authorization: Option<HeaderValue>,
}

/// What a server answers when it does not do what it is asked.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Address {
    pub(super) fn parse(url: &str, token: Option<SecretText>) -> Outcome<Self> {
        let wrong = |why: &str| {
            Failure::usage(format!("--url: {why}; write http://HOST:PORT or https://HOST:PORT"))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("this is no URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("there is no host"))?;
        if !["", "/"].contains(&uri.path())
            || uri.query().is_some()
            || authority.as_str().contains('@')
        {
            return Err(wrong("only scheme, host and port belong there"));
        }
        // An IPv6 address is in brackets there, and alone elsewhere.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|_| wrong("this is no name of a host"))?;
                (Some((connector()?, name)), 443)
            }
            _ => return Err(wrong("the scheme is neither http nor https")),
        };
        let authorization = token.map(|token| {
            let header = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            header.map_err(|_| {
                Failure::usage("--token: the token has characters that a token cannot have")
            })
        });
        let mut authorization = authorization.transpose()?;
        if let Some(header) = &mut authorization {
            header.set_sensitive(true);
        }
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { host, port, authority: authority.to_string(), tls, authorization })
    }

    pub(super) async fn facts(&self) -> Outcome<Facts> {
        tokio::select! {
            facts = self.ask() => facts,
            () = SystemClock.sleep(PATIENCE) => {
                Err(Error::new(ErrorKind::Timeout, format!("{} gave no answer", self.authority)).into())
            }
        }
    }

    async fn ask(&self) -> Outcome<Facts> {
        let lost = |error| {
            Failure::from(Error::io(format!("{} cannot be reached", self.authority), error))
        };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(lost)?;
        let (status, body) = match &self.tls {
            None => self.exchange(stream).await?,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(lost)?;
                self.exchange(stream).await?
            }
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| {
                let what = format!("{} answers with no status of this version", self.authority);
                Error::unsupported(what).with_source(error).into()
            });
        }
        let detail = serde_json::from_slice(&body)
            .map_or_else(|_| format!("the answer was {status}"), |problem: Problem| problem.detail);
        let failure = Failure::failed(format!("{}: {detail}", self.authority));
        Err(match status {
            StatusCode::UNAUTHORIZED => {
                failure.next("--token env:NAME or --token file:PATH says where the token is")
            }
            _ => failure,
        })
    }

    /// Sends the request, and takes the answer.
    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Outcome<(StatusCode, Bytes)> {
        let broken = |error: hyper::Error| {
            let what = format!("{} does not answer as a server of tierstack does", self.authority);
            Failure::from(Error::new(ErrorKind::Unavailable, what).with_source(error))
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends when the sender is dropped.
        tokio::spawn(connection);
        let mut request = Request::get("/v1/status")
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| Error::internal("a request cannot be made").with_source(error))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST).collect().await.map_err(|error| {
            let what = format!("the answer of {} broke off", self.authority);
            Failure::from(Error::new(ErrorKind::Unavailable, what).with_source(BodyError(error)))
        })?;
        Ok((status, body.to_bytes()))
    }
}

/// A boxed error that is one itself.
#[derive(Debug)]
struct BodyError(Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BodyError {}

/// Trusts what the system trusts.
fn connector() -> Outcome<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        let parse = |url| Address::parse(url, None).map(|at| (at.host, at.port, at.tls.is_some()));
        let good = |url| parse(url).ok().unwrap();
        assert_eq!(good("http://127.0.0.1:8080"), ("127.0.0.1".into(), 8080, false));
        assert_eq!(good("http://[::1]/"), ("::1".into(), 80, false));
        assert_eq!(good("https://cache.example"), ("cache.example".into(), 443, true));
        for bad in [
            "",
            "127.0.0.1:8080",
            "ftp://a",
            "http://a/v1/status",
            "http://a?b",
            "http://user:secret@a",
        ] {
            let message = parse(bad).err().unwrap().to_string();
            assert!(
                message.contains("write http://HOST:PORT") && !message.contains("secret"),
                "{message}"
            );
        }
    }
}
