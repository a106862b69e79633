//! Errors of ours on their way through the tuple format's encoder and decoder.

use std::borrow::Cow;
use std::io;

use foundationdb_tuple::PackError;

use crate::error::Error;

/// An error of ours on its way through the encoder.
pub(super) fn refuse(message: impl Into<Cow<'static, str>>) -> io::Error {
    io::Error::other(Error::invalid(message))
}

/// An error of ours on its way through the decoder.
pub(super) fn malformed(message: &'static str) -> PackError {
    PackError::Message(message.into())
}
