//! `object_store`'s errors as ours.

#[cfg(feature = "object")]
use crate::error::Error;
use crate::error::ErrorKind;

/// The kind that fits a failure of the client.
pub(crate) fn kind_of(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as Theirs;
    match error {
        Theirs::NotFound { .. } => ErrorKind::InvalidInput,
        Theirs::InvalidPath { .. } | Theirs::UnknownConfigurationKey { .. } => ErrorKind::Config,
        Theirs::NotSupported { .. } | Theirs::NotImplemented { .. } => ErrorKind::Unsupported,
        Theirs::AlreadyExists { .. } | Theirs::Precondition { .. } => ErrorKind::Conflict,
        Theirs::PermissionDenied { .. } | Theirs::Unauthenticated { .. } => ErrorKind::Access,
        other => file_system(other)
            .or_else(|| timed_out(other).then_some(ErrorKind::Timeout))
            .unwrap_or(ErrorKind::Unavailable),
    }
}

/// The codes with which S3, Azure and Google Cloud Storage say so; the client tells them as text only.
pub(crate) fn lacks_a_bucket(error: &object_store::Error) -> bool {
    const CODES: [&str; 3] =
        ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"];
    let text = error.to_string();
    CODES.iter().any(|code| text.contains(code))
}

fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |cause| cause.source())
}

#[cfg(feature = "cloud")]
fn timed_out(error: &object_store::Error) -> bool {
    use object_store::client::{HttpError, HttpErrorKind};
    causes(error).any(|cause| {
        let http = cause.downcast_ref::<HttpError>();
        http.is_some_and(|http| http.kind() == HttpErrorKind::Timeout)
    })
}

#[cfg(not(feature = "cloud"))]
fn timed_out(_: &object_store::Error) -> bool {
    false
}

/// A full disk or a lack of rights, where the error is one of the file system.
fn file_system(error: &object_store::Error) -> Option<ErrorKind> {
    use std::io::ErrorKind as Io;
    let io = causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>())?;
    match io.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Some(ErrorKind::Access),
        Io::StorageFull | Io::QuotaExceeded => Some(ErrorKind::Capacity),
        Io::InvalidFilename => Some(ErrorKind::InvalidInput),
        Io::IsADirectory | Io::NotADirectory => Some(ErrorKind::Conflict),
        _ => None,
    }
}

/// The error of an operation on an entry. The client's own words name the object, which is the key, so
/// only the service's code is kept of them.
#[cfg(feature = "object")]
pub(crate) fn redacted(error: &object_store::Error, doing: &str) -> Error {
    let text = error.to_string();
    if lacks_a_bucket(error) {
        return Error::config("the bucket does not exist; create it, or correct `url`");
    }
    // Where no credentials are set, the client asks the cloud's own machine for them.
    if ["169.254.169.254", "metadata.google.internal", "/oauth2/token"]
        .iter()
        .any(|sign| text.contains(sign))
    {
        return Error::new(
            ErrorKind::Access,
            "no credentials: there are none in the options or the environment, and the machine offers no identity of its own",
        );
    }
    let status = between(&text, "status code: ").and_then(|rest| rest.get(..3));
    let kind = match status {
        // Told so by a listing, which knows fewer errors.
        Some("401" | "403") => ErrorKind::Access,
        _ => kind_of(error),
    };
    let (kind, words) = match kind {
        ErrorKind::Config => (
            ErrorKind::Config,
            "an object here has a name with an empty, `.` or `..` segment, or a control character, so that nothing behind it can be listed; remove it, or set `scans: false`",
        ),
        ErrorKind::Access => (
            ErrorKind::Access,
            "the service refuses access; check credentials and rights (get, put, delete, and list, without which S3 refuses to read what is not there)",
        ),
        ErrorKind::Capacity => (ErrorKind::Capacity, "the disk is full"),
        ErrorKind::Timeout => (ErrorKind::Timeout, "the service did not answer within `timeout`"),
        ErrorKind::InvalidInput => (ErrorKind::InvalidInput, "the key cannot be a name here"),
        ErrorKind::Conflict => (
            ErrorKind::Conflict,
            "something else is in the way, such as a folder with the name of the file",
        ),
        ErrorKind::Unsupported => (ErrorKind::Unsupported, "the service cannot do this"),
        _ if text.contains("EntityTooLarge") => {
            (ErrorKind::Capacity, "the value is larger than the service takes")
        }
        _ if status
            .is_some_and(|status| status.starts_with('4') && !["408", "429"].contains(&status)) =>
        {
            (
                ErrorKind::Config,
                "the service does not understand the request; check endpoint, region and options",
            )
        }
        _ => (ErrorKind::Unavailable, "the service cannot be reached, is busy or failed"),
    };
    let code = between(&text, "<Code>").and_then(|rest| rest.split('<').next());
    let answer = match (status, code.filter(|code| code.chars().all(|c| c.is_ascii_alphanumeric())))
    {
        (Some(status), Some(code)) => format!(" (it answered {status} {code})"),
        (Some(status), None) => format!(" (it answered {status})"),
        _ => String::new(),
    };
    Error::new(kind, format!("{doing}: {words}{answer}"))
}

#[cfg(feature = "object")]
fn between<'a>(text: &'a str, sign: &str) -> Option<&'a str> {
    text.split_once(sign).map(|(_, rest)| rest)
}
