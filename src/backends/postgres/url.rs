//! What the client makes of the address of the database, and where it has a password.

use tokio_postgres::Config;

use crate::error::{Error, Result};
use crate::types::units::{Secret, Url};

/// Refuses an address that is none, or that holds a password where it can be read.
pub(super) fn check(url: &Url) -> Result<()> {
    match url {
        Url::Secret(_) => Ok(()),
        Url::Plain(text) => match parse(text)?.get_password() {
            None => Ok(()),
            Some(_) => Err(Error::config(
                "`url` holds a password, which must not be in a config; leave it out and say where it is with `password: { env: NAME }`, or give the whole `url` as `{ env: NAME }`",
            )),
        },
    }
}

/// What the client makes of the address and the password.
pub(super) fn read(url: &Url, password: Option<&Secret>) -> Result<Config> {
    check(url)?;
    let mut config = match url {
        Url::Plain(text) => parse(text)?,
        Url::Secret(secret) => parse(secret.read()?.expose())?,
    };
    if let Some(secret) = password {
        if config.get_password().is_some() {
            return Err(Error::config(
                "`url` and `password` both hold a password; leave one of them out",
            ));
        }
        config.password(secret.read()?.expose());
    }
    Ok(config)
}

fn parse(text: &str) -> Result<Config> {
    // What the parser says may quote the text, so it is not passed on.
    let config: Config = text.parse().map_err(|_| {
        Error::config(
            "`url` is not the address of a database; write postgres://user@host:5432/database, with `sslmode` as `disable` or `require` where it is given (`require` checks the certificate)",
        )
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::config("`url` names no host; write postgres://user@host:5432/database"));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_address_is_refused_and_never_printed() {
        for text in ["postgres://app:hunter2@db/orders", "host=db password=hunter2 user=app"] {
            let url = Url::from(text);
            let error = check(&url).unwrap_err();
            assert!(error.message().contains("password: { env: NAME }"), "{error}");
            let printed = format!("{error:?} {url:?}");
            assert!(!printed.contains("hunter2"), "{printed}");
        }
        let url = Url::from("postgres://app:hunter2@db/orders?sslmode=verify-full");
        let error = check(&url).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(error.message().contains("sslmode"), "{error}");
    }

    #[test]
    fn an_address_needs_a_host() {
        assert!(check(&"user=app".into()).is_err());
        assert!(check(&"nonsense".into()).is_err());
        check(&"postgres://app@one,two:5433/orders".into()).unwrap();
        check(&"host=/run/postgresql user=app".into()).unwrap();
    }
}
