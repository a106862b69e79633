//! The one error type of the crate.
//!
//! An [`Error`] says what to do about it (its [kind](ErrorKind)), whether trying again can help
//! ([`Retry`]), and where it arose (operation, layer, entry). It never prints a key: `Display` and `Debug`
//! show a [fingerprint](Error::key_fingerprint) of it, and [`Error::key`] gives the key to a program that may show
//! it. It never holds a value. A key that does not exist is not an error: reads answer `None`.

mod kind;
mod operation;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use self::kind::{ErrorKind, Outcome, Retry};
pub use self::operation::Operation;
use crate::hash::{fingerprint, salt_of_process};

/// What the operations of this crate return.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Read, Result};
///
/// async fn is_known(store: &dyn Read, user: &str) -> Result<bool> {
///     Ok(store.get(user.as_bytes()).await?.is_some())
/// }
/// assert!(!is_known(&Memory::new(), "ada").await?);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn std::error::Error + Send + Sync + 'static>;

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    retry: Retry,
    outcome: Outcome,
    operation: Option<Operation>,
    layer: Option<Cow<'static, str>>,
    key: Option<Bytes>,
    name: Option<Bytes>,
    setting: Option<Cow<'static, str>>,
    salt: Option<u64>,
    message: Cow<'static, str>,
    source: Option<Source>,
}

/// What an operation failed with. Cheap to clone, one pointer wide.
///
/// ```
/// use tierstack::{Error, ErrorKind, Operation, Retry};
///
/// let error = Error::new(ErrorKind::Unavailable, "the server closed the connection")
///     .with_operation(Operation::Get)
///     .with_layer("redis")
///     .with_key(b"user:1");
/// assert_eq!(error.retry(), Retry::Later);
/// assert!(error.to_string().starts_with("redis: get: unavailable: the server closed"));
/// assert!(!format!("{error:?}").contains("user:1"));
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

impl Error {
    /// An error of a kind, with a message that says what was wrong and what to do.
    ///
    /// The message must hold neither a key nor a value.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            retry: kind.default_retry(),
            outcome: kind.default_outcome(),
            operation: None,
            layer: None,
            key: None,
            name: None,
            setting: None,
            salt: None,
            message: message.into(),
            source: None,
        }))
    }

    /// An operation that the store's profile says it cannot do.
    #[must_use]
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Bytes that are not what was written.
    #[must_use]
    pub fn corruption(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    /// An argument that cannot be accepted.
    #[must_use]
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// A setting that cannot be accepted.
    #[must_use]
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// An operation on a store that was closed.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the store was closed; open it again")
    }

    /// A batch that was to be applied only [where its keys are absent](crate::Batch::if_absent), and one
    /// is there.
    #[must_use]
    pub fn exists(key: &[u8]) -> Self {
        let message = "a key that was to be absent exists, so nothing was written";
        Self::new(ErrorKind::Conflict, message).with_key(key)
    }

    /// A batch of a [group](crate::Store::write_group) behind the one that failed.
    #[must_use]
    pub fn aborted() -> Self {
        let message = "an earlier batch of its group failed, so this one was not written";
        Self::new(ErrorKind::Aborted, message).with_operation(Operation::Write)
    }

    /// A defect of this program.
    #[must_use]
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A failure of the file system, with the kind that fits it.
    #[must_use]
    pub fn io(message: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Access,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Capacity,
            Io::NotFound | Io::NotADirectory | Io::IsADirectory | Io::InvalidInput => {
                ErrorKind::InvalidInput
            }
            Io::AlreadyExists => ErrorKind::Conflict,
            Io::InvalidData | Io::UnexpectedEof => ErrorKind::Corruption,
            Io::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, message).with_source(source)
    }

    /// Sets the operation, unless one is set already.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        if self.0.operation.is_none() {
            Arc::make_mut(&mut self.0).operation = Some(operation);
        }
        self
    }

    /// Sets the layer or backend where the error arose, unless one is set already.
    #[must_use]
    pub fn with_layer(mut self, layer: impl Into<Cow<'static, str>>) -> Self {
        if self.0.layer.is_none() {
            Arc::make_mut(&mut self.0).layer = Some(layer.into());
        }
        self
    }

    /// Sets the key of the entry that it is about, unless one is set already. It is kept for
    /// [`key`](Self::key), and not printed.
    #[must_use]
    pub fn with_key(mut self, key: &[u8]) -> Self {
        if self.0.key.is_none() {
            Arc::make_mut(&mut self.0).key = Some(Bytes::copy_from_slice(key));
        }
        self
    }

    /// Sets the name under which the backend keeps the entry that it is about, such as that of a file or an
    /// object, unless one is set already. A name may spell a key, so it is kept for [`name`](Self::name), and
    /// not printed. A scan that stops at a name of no key also sets the key that is at this place of
    /// the order, so that a reader can [go on behind it](crate::Scan::resume_after).
    #[must_use]
    pub fn with_name(mut self, name: impl AsRef<[u8]>) -> Self {
        if self.0.name.is_none() {
            Arc::make_mut(&mut self.0).name = Some(Bytes::copy_from_slice(name.as_ref()));
        }
        self
    }

    /// Sets the setting that it is about, unless one is set already: a name among those of the layer or backend, or a path
    /// of names such as `disk.path`. Where the settings come from a config file, it ends the path that is printed.
    ///
    /// ```
    /// use tierstack::Error;
    ///
    /// let error = Error::config("attempts is 0; it must be at least 1").with_setting("attempts");
    /// assert_eq!(error.setting(), Some("attempts"));
    /// ```
    #[must_use]
    pub fn with_setting(mut self, setting: impl Into<Cow<'static, str>>) -> Self {
        if self.0.setting.is_none() {
            Arc::make_mut(&mut self.0).setting = Some(setting.into());
        }
        self
    }

    /// Sets the salt of the store for the [fingerprint](Self::key_fingerprint), unless one is set already.
    #[must_use]
    pub fn with_salt(mut self, salt: u64) -> Self {
        if self.0.salt.is_none() {
            Arc::make_mut(&mut self.0).salt = Some(salt);
        }
        self
    }

    /// Replaces the key by the one under which a caller further out knows the entry.
    #[must_use]
    pub fn map_key(mut self, outer: impl FnOnce(Bytes) -> Bytes) -> Self {
        if self.0.key.is_some() {
            let inner = Arc::make_mut(&mut self.0);
            inner.key = inner.key.take().map(outer);
        }
        self
    }

    /// Sets whether trying again can help. The default follows from the kind.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        Arc::make_mut(&mut self.0).retry = retry;
        self
    }

    /// Sets whether anything of the write happened. The default follows from the kind.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        Arc::make_mut(&mut self.0).outcome = outcome;
        self
    }

    /// Puts words before the message: what was being done when it happened.
    #[must_use]
    pub fn with_context(mut self, what: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.message = Cow::Owned(format!("{what}: {}", inner.message));
        self
    }

    /// Wraps the error that caused this one.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source.into()));
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether anything of the write that failed with this error happened, or can still happen. After
    /// several attempts the answer is for all of them. Of another operation than a write it says nothing.
    ///
    /// ```
    /// use tierstack::{Error, ErrorKind, Outcome};
    ///
    /// assert_eq!(Error::unsupported("no batches here").outcome(), Outcome::Nothing);
    /// let lost = Error::new(ErrorKind::Unavailable, "the connection broke before the answer");
    /// assert_eq!(lost.outcome(), Outcome::Unknown);
    /// ```
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The operation during which it arose, where known.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// The name of the layer or backend where it arose, where known.
    #[must_use]
    pub fn layer(&self) -> Option<&str> {
        self.0.layer.as_deref()
    }

    /// The key of the entry that it is about, where known. It must not get into logs.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }

    /// The name under which the backend keeps the entry that it is about: of a file, an object. It may
    /// spell the key, so it must not get into logs.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.0.name.as_deref()
    }

    /// The setting that it is about, where known.
    #[must_use]
    pub fn setting(&self) -> Option<&str> {
        self.0.setting.as_deref()
    }

    /// What stands for the key where the error is printed. Errors of a [`Stack`](crate::Stack) have the
    /// [same](crate::Stack::fingerprint) for equal keys in every process that opens the store, others within
    /// one process.
    #[must_use]
    pub fn key_fingerprint(&self) -> Option<u64> {
        let key = self.0.key.as_deref()?;
        Some(fingerprint(self.0.salt.unwrap_or_else(salt_of_process), key))
    }

    /// What was wrong, in words, without operation, layer and source.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(layer) = &inner.layer {
            write!(f, "{layer}: ")?;
        }
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        write!(f, "{}: {}", inner.kind, inner.message)?;
        if let Some(key) = self.key_fingerprint() {
            write!(f, " (key #{key:016x})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [retry: {:?}]", self.0.retry)?;
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            write!(f, "\n  caused by: {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_context_stays() {
        let error = Error::corruption("checksum differs")
            .with_layer("compress")
            .with_layer("cache")
            .with_operation(Operation::Get)
            .with_operation(Operation::Scan);
        assert_eq!(error.layer(), Some("compress"));
        assert_eq!(error.operation(), Some(Operation::Get));
    }

    #[test]
    fn the_source_is_kept_as_a_value() {
        let io = std::io::Error::new(std::io::ErrorKind::StorageFull, "no space");
        let error = Error::io("writing a page", io);
        assert_eq!(error.kind(), ErrorKind::Capacity);
        let source =
            std::error::Error::source(&error).and_then(|s| s.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::StorageFull));
        assert!(!error.to_string().contains("no space"), "Display leaves the source to the caller");
    }

    #[test]
    fn the_key_and_the_name_are_kept_and_never_printed() {
        let error = Error::closed().with_key(b"secret-key").with_name("secret%2Dkey");
        let error = error.with_key(b"another").with_name("another");
        assert_eq!(error.key(), Some(&b"secret-key"[..]));
        assert_eq!(error.name(), Some(&b"secret%2Dkey"[..]));
        assert!(!format!("{error} {error:?}").contains("secret"));
        let outer = error.map_key(|key| key.slice(7..));
        assert_eq!(outer.key(), Some(&b"key"[..]));
    }

    #[test]
    fn equal_keys_have_equal_fingerprints_under_a_salt() {
        let of = |key: &[u8]| Error::closed().with_key(key);
        assert_eq!(of(b"a").key_fingerprint(), of(b"a").key_fingerprint());
        assert_eq!(of(b"a").with_salt(7).key_fingerprint(), Some(fingerprint(7, b"a")));
        assert_ne!(fingerprint(7, b"a"), fingerprint(7, b"b"));
        assert_ne!(fingerprint(7, b"a"), fingerprint(8, b"a"));
        // Held for ever: it is in logs, and is looked up later.
        assert_eq!(fingerprint(7, b"a"), 16_335_284_698_483_325_843);
        let first = of(b"a").with_salt(7).with_salt(8);
        assert_eq!(first.key_fingerprint(), Some(fingerprint(7, b"a")));
    }
}
