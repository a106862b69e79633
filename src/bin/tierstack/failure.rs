//! What a command ends with when it fails: one block on standard error.

use std::error::Error as _;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use tierstack::{Error, ErrorKind, Operation, Retry};

use crate::entry_in_words;

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// An error with what to do next.
pub(crate) struct Failure {
    error: Error,
    next: Vec<String>,
    /// What else failed on the way out, such as closing the store.
    also: Vec<Failure>,
    /// The reader of standard output went away, which is its right.
    quiet: bool,
}

impl Failure {
    /// Wrong arguments: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Error::config(message.into()).into()
    }

    /// The command did what it could, and the answer is no: exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Error::invalid(message.into()).into()
    }

    /// Ctrl-C, or a request to terminate.
    pub(crate) fn stopped(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Closed, format!("stopped by request: {}", message.into())).into()
    }

    /// A failure of standard output; quiet where its reader closed it.
    pub(crate) fn output(error: std::io::Error) -> Self {
        let quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { quiet, ..Error::io("standard output cannot be written", error).into() }
    }

    /// Says what to do next, after the general advice.
    pub(crate) fn next(mut self, advice: impl Into<String>) -> Self {
        self.next.push(advice.into());
        self
    }

    /// Puts words before the message.
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.error = self.error.with_context(what);
        self
    }

    /// Adds what failed afterwards; one line of it is printed.
    pub(crate) fn also(mut self, other: Self) -> Self {
        self.also.push(other);
        self
    }

    /// Whether something is damaged.
    pub(crate) fn is_corruption(&self) -> bool {
        self.error.kind() == ErrorKind::Corruption
    }

    /// Whether a backup, and not the store, is damaged.
    pub(crate) fn is_of_damaged_backup(&self) -> bool {
        is_of_damaged_backup(&self.error)
    }

    /// Prints the block, and gives the exit code: 1 failed, 2 wrong usage or config.
    pub(crate) fn report(&self) -> ExitCode {
        if self.quiet && self.also.is_empty() {
            return ExitCode::SUCCESS;
        }
        // A closed standard error leaves no caller to tell.
        let _ = write!(std::io::stderr().lock(), "{self}");
        ExitCode::from(if self.error.kind() == ErrorKind::Config { 2 } else { 1 })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, next: Vec::new(), also: Vec::new(), quiet: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.error.message())?;
        let place = [self.error.layer(), self.error.operation().map(|op| op.as_str())];
        let mut place: Vec<_> = place.into_iter().flatten().map(str::to_owned).collect();
        place.extend(entry_in_words::entry(&self.error));
        if !place.is_empty() {
            writeln!(f, "  where: {}", place.join(", "))?;
        }
        causes(&self.error).try_for_each(|cause| writeln!(f, "  caused by: {cause}"))?;
        let general = advice(&self.error).into_iter();
        for next in general.chain(self.next.iter().map(String::as_str)) {
            writeln!(f, "  next: {next}")?;
        }
        for also in &self.also {
            write!(f, "  also: {}", also.error.message())?;
            causes(&also.error).try_for_each(|cause| write!(f, ": {cause}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The causes from the outermost to the root. Some libraries repeat a cause in the message of what it
/// caused; once is enough.
fn causes(error: &Error) -> impl Iterator<Item = String> {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let mut before = String::new();
    causes.map(ToString::to_string).filter(move |cause| {
        let new = !before.contains(cause.as_str());
        before.clone_from(cause);
        new
    })
}

fn is_of_damaged_backup(error: &Error) -> bool {
    // What fails below names its layer.
    let backup = error.layer().is_none() && error.operation() == Some(Operation::Backup);
    backup && error.kind() == ErrorKind::Corruption
}

/// What to do about an error, as its kind asks. A message about wrong input, a wrong setting or a
/// conflict says itself what is allowed.
fn advice(error: &Error) -> Option<&'static str> {
    if error.retry() == Retry::Later {
        return Some("check that the store can be reached, then run the command again");
    }
    match error.kind() {
        ErrorKind::Access => Some("correct the permissions or credentials, then run it again"),
        // What can be done about the backups themselves, the message or the command says.
        _ if is_of_damaged_backup(error) => None,
        ErrorKind::Corruption => Some(
            "nothing was repaired; `tierstack backup list` shows what can be restored, and \
             `tierstack backup restore --into CONFIG` brings it back into another store",
        ),
        ErrorKind::Capacity => Some("free space or raise the limit"),
        ErrorKind::Internal => Some("this is a defect of tierstack: please report it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_what_where_why_and_what_next() {
        let disk = std::io::Error::other("No space left on device");
        let error = Error::new(ErrorKind::Capacity, "the batch was not written")
            .with_layer("rocksdb")
            .with_operation(tierstack::Operation::Write)
            .with_source(disk);
        let closing = Failure::from(Error::internal("a worker panicked"));
        let text = Failure::from(error).also(closing).to_string();
        assert_eq!(
            text,
            "error: the batch was not written\n  where: rocksdb, write\n  caused by: No space left \
             on device\n  next: free space or raise the limit\n  also: a worker \
             panicked\n"
        );
    }

    #[test]
    fn own_advice_follows_the_general() {
        let failure = Failure::from(Error::internal("odd")).next("look at line 3");
        let general = "this is a defect of tierstack: please report it";
        assert_eq!(
            failure.to_string(),
            format!("error: odd\n  next: {general}\n  next: look at line 3\n")
        );
    }

    #[test]
    fn the_entry_is_named_so_that_it_can_be_found() {
        let place = |error: Error| {
            let text = Failure::from(error.with_layer("file")).to_string();
            let place = text.lines().find_map(|line| line.strip_prefix("  where: "));
            place.unwrap().to_owned()
        };
        let damaged = || Error::corruption("damaged");
        assert_eq!(
            place(damaged().with_key("ä b'\n\u{202e}".as_bytes())),
            "file, key 'ä b\\'\\n\\u{202e}'"
        );
        assert_eq!(place(damaged().with_key(b"\0\xff")), "file, key64 AP8=");
        assert_eq!(place(damaged().with_key(b"a/b").with_name("a%2fb")), "file, named 'a%2fb'");
        assert_eq!(place(damaged().with_name(b"a\xff\n")), "file, named 'a\\xff\\n'");
        let long = place(damaged().with_key(&[b'x'; 10_000]));
        assert!(long.ends_with("xx…' (10,000 bytes)") && long.len() < 400, "{long}");
    }
}
