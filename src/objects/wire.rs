//! What `object_store` drops of the services' answers: names that its paths cannot be, and the class of storage.
//!
//! Names are changed to [paths](super::paths) in a listing before it is read, and back in a request after it was
//! written, which is then signed again.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, UpdateVersion};

use super::paths::{MARK_IN_URL, to_path, unhex};
use crate::error::Error;

/// The client's way to the service, and what is changed on it.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// What signs for S3. Set once the client is built.
    pub(super) signer: Arc<OnceLock<AwsCredentialProvider>>,
}

tokio::task_local! {
    /// The version that an object must have to be removed: the client has no place for it.
    static ONLY_IF: UpdateVersion;
}

/// Removes an object only if it is of this version.
pub(crate) async fn only_if<T>(version: UpdateVersion, removing: impl Future<Output = T>) -> T {
    ONLY_IF.scope(version, removing).await
}

impl HttpConnector for Wire {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service { inner, signer: Arc::clone(&self.signer) }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
    signer: Arc<OnceLock<AwsCredentialProvider>>,
}

/// The class of storage that a service told of an object.
#[derive(Clone, Debug)]
pub(crate) struct StorageClass(pub(crate) String);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.uri().path().contains(MARK_IN_URL) {
            self.name_plainly(&mut request).await?;
        }
        if request.method() == "DELETE"
            && let Ok(version) = ONLY_IF.try_with(Clone::clone)
        {
            condition(&mut request, version)?;
        }
        let element =
            request.uri().query().unwrap_or_default().split('&').find_map(|part| match part {
                "list-type=2" => Some("Key"),
                "comp=list" => Some("Name"),
                _ => None,
            });
        let mut response = self.inner.execute(request).await?;
        if let Some(element) = element.filter(|_| response.status().is_success()) {
            return marked(response, element).await;
        }
        let class = ["x-amz-storage-class", "x-goog-storage-class"]
            .iter()
            .find_map(|name| response.headers().get(*name))
            .and_then(|class| class.to_str().ok().map(|class| StorageClass(class.to_owned())));
        if let Some(class) = class {
            response.extensions_mut().insert(class);
        }
        Ok(response)
    }
}

fn failed(what: &'static str) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, Error::internal(what))
}

/// A header that is not signed, which is allowed where it is none of the service's own.
fn condition(request: &mut HttpRequest, version: UpdateVersion) -> Result<(), HttpError> {
    // Google Cloud Storage counts generations.
    let is_google = request
        .headers()
        .get("authorization")
        .is_some_and(|value| value.as_bytes().starts_with(b"Bearer"));
    let (name, value) = if is_google {
        ("x-goog-if-generation-match", version.version)
    } else {
        ("if-match", version.e_tag)
    };
    let value = value.ok_or_else(|| failed("an object without a version"))?;
    let value = value.parse().map_err(|_| failed("a version that no header has"))?;
    let _ = request.headers_mut().insert(name, value);
    Ok(())
}

impl Service {
    /// Names the object as it is called, and signs again what was signed.
    async fn name_plainly(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let named = unmark(&request.uri().to_string()).ok_or_else(|| failed("a malformed name"))?;
        *request.uri_mut() = named.parse().map_err(|_| failed("a name that no URL has"))?;
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        // ... Credential=ID/20260101/REGION/s3/aws4_request, ...
        let scope = text("authorization")
            .filter(|signature| signature.starts_with("AWS4-"))
            .and_then(|signature| signature.split('/').nth(2));
        let Some(region) = scope.map(str::to_owned) else { return Ok(()) };
        let digest = text("x-amz-content-sha256").and_then(unhex);
        let signer = self.signer.get().ok_or_else(|| failed("nobody signs"))?;
        let credential = signer
            .get_credential()
            .await
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        AwsAuthorizer::new(&credential, "s3", &region)
            .with_sign_payload(digest.is_some())
            .try_authorize(request, digest.as_deref())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
    }
}

/// A URL with its names as they are.
fn unmark(url: &str) -> Option<String> {
    let mut parts = url.split(MARK_IN_URL);
    let mut named = parts.next()?.to_owned();
    for part in parts {
        let ends = part.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).unwrap_or(part.len());
        let (hex, rest) = part.split_at(ends);
        let segment = unhex(hex)?;
        // The client takes them out of a URL, and would name another object.
        if matches!(segment.as_slice(), b"." | b"..") {
            return None;
        }
        for byte in segment {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                    named.push(char::from(byte));
                }
                byte => named.push_str(&format!("%{byte:02X}")),
            }
        }
        named.push_str(rest);
    }
    Some(named)
}

async fn marked(response: HttpResponse, element: &str) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = response.into_parts();
    let body = body.bytes().await?;
    let body = match std::str::from_utf8(&body).map(|text| mark(text, element)) {
        Ok(Some(marked)) => {
            let _ = parts.headers.remove("content-length");
            marked.into()
        }
        _ => body,
    };
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body)))
}

/// A listing with its names as paths. `None`: they are already.
fn mark(listing: &str, element: &str) -> Option<String> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut parts = listing.split(&open);
    let mut marked = parts.next()?.to_owned();
    let mut changed = false;
    for part in parts {
        let (text, rest) = part.split_once(&close)?;
        marked.push_str(&open);
        match to_path(&unescape(text)?) {
            Cow::Borrowed(_) => marked.push_str(text),
            Cow::Owned(path) => {
                changed = true;
                let path = path.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                marked.push_str(&path);
            }
        }
        marked.push_str(&close);
        marked.push_str(rest);
    }
    changed.then_some(marked)
}

/// The text of an element.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    let mut parts = text.split('&');
    let first = parts.next()?;
    if first.len() == text.len() {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = first.to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';')?;
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            entity => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        });
        plain.push_str(rest);
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::super::paths::tests::ODD;
    use super::*;

    #[test]
    fn a_listing_tells_odd_names_as_paths() {
        let escape = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;");
        let listing = |names: &[String]| {
            let objects: String = names
                .iter()
                .map(|name| format!("<Contents><Key>{name}</Key><Size>1</Size></Contents>"))
                .collect();
            format!("<?xml version=\"1.0\"?><R><Name>acme</Name><Prefix></Prefix>{objects}</R>")
        };
        let names: Vec<_> = ODD.iter().map(|name| escape(name)).collect();
        let paths: Vec<_> =
            ODD.iter().map(|name| escape(&to_path(name)).replace('>', "&gt;")).collect();
        assert_eq!(mark(&listing(&names), "Key").unwrap(), listing(&paths));
        let plain = listing(&["a".to_owned(), "b&amp;c".to_owned()]);
        assert_eq!(mark(&plain, "Key"), None, "what needs no change is not copied");
        let numbered = listing(&["a&#x9;b".to_owned(), "a&#10;b".to_owned()]);
        let paths = ["a\tb", "a\nb"].map(|name| to_path(name).into_owned());
        assert_eq!(mark(&numbered, "Key").unwrap(), listing(&paths));
    }

    #[test]
    fn a_request_names_the_object_as_it_is() {
        let url = |path: &str| format!("http://h/b/{path}?x=1");
        for (path, named) in [
            ("%F4%8F%BF%BD/lead", "/lead"),
            ("x/%F4%8F%BF%BD", "x/"),
            ("a%2F%F4%8F%BF%BD%2Fb", "a%2F%2Fb"),
            ("%F4%8F%BF%BD74616209782f", "tab%09x%2F"),
            ("%F4%8F%BF%BDf48fbfbd", "%F4%8F%BF%BD"),
        ] {
            assert_eq!(unmark(&url(path)), Some(url(named)));
        }
        assert_eq!(unmark(&url("a/%F4%8F%BF%BD2e2e/b")), None);
    }
}
