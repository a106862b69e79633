//! What the client makes of the address of a server, and where it has a password.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::error::{Error, Result};

/// Where the server is, and as which user.
///
/// What is refused is never repeated, nor what the client says of it: the text may hold a password.
pub(super) fn parse(text: &str, of_cluster: bool) -> Result<ConnectionInfo> {
    let url = redis::parse_redis_url(text).ok_or_else(|| {
        Error::config(
            "the address of a server must look like redis://host:6379/0, rediss://host:6379/0 or redis+unix:///path",
        )
    })?;
    let info = text.into_connection_info().map_err(|_| {
        Error::config(
            "the address of a server is not understood; write redis://[user@]host[:port][/database]",
        )
    })?;
    let is_path = matches!(info.addr(), ConnectionAddr::Unix(_));
    // Otherwise what precedes such a sign would be the host, which messages name.
    if url.fragment().is_some() || (!is_path && url.query().is_some_and(|rest| rest.contains('@')))
    {
        return Err(Error::config(
            "the address of a server takes no `#`, and no `@` after a `?`; in a password write them as %23, %3F and %40",
        ));
    }
    if of_cluster && info.redis_settings().db() != 0 {
        return Err(Error::config("a cluster has database 0 only; leave the number out"));
    }
    if of_cluster && is_path {
        return Err(Error::config(
            "the nodes of a cluster are reached by TCP; write redis://host:port",
        ));
    }
    Ok(info)
}

/// Like [`parse`], for an address that everybody can read.
pub(super) fn parse_plain(text: &str, of_cluster: bool) -> Result<ConnectionInfo> {
    if redis::parse_redis_url(text).is_some_and(|url| {
        url.password().is_some() || url.query_pairs().any(|(name, _)| name == "pass")
    }) {
        return Err(Error::config(
            "a password must not be in the address; say where it is: password: { env: NAME } or { file: PATH }, or give the whole address so",
        ));
    }
    parse(text, of_cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_password_is_no_host() {
        for text in ["redis://me:12#34@host", "redis://me:12?34@host", "redis://me:12/34@host"] {
            let error = parse(text, false).unwrap_err();
            assert!(!format!("{error:?}").contains("12"), "{error:?}");
        }
        let info = parse("redis://me:12%2334@host", false).unwrap();
        assert_eq!(info.redis_settings().password(), Some("12#34"));
        parse("redis+unix:///run/redis.sock?db=2&pass=a@b", false).unwrap();
    }
}
