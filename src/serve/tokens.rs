//! Tokens: read from where they are kept, held as hashes, compared in constant time.

use std::path::Path;
use std::sync::Arc;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::{Grants, TokenConfig};
use crate::error::{Error, Result};
use crate::types::units::Secret;

/// One that can be guessed is none.
const SHORTEST: usize = 16;
/// A request that carries a longer one is too large.
const LONGEST: usize = 4096;

/// A token that a listener knows. The token itself is not kept.
pub(in crate::serve) struct Token {
    pub(in crate::serve) name: Arc<str>,
    pub(in crate::serve) stores: Option<Grants>,
    hash: [u8; 32],
}

impl Token {
    pub(in crate::serve) async fn load(config: &TokenConfig, folder: &Path) -> Result<Self> {
        let secret = match &config.secret {
            Secret::File(path) => Secret::File(folder.join(path)),
            Secret::Env(name) => Secret::Env(name.clone()),
        };
        let refuse = |error: Error| error.with_context(format_args!("the token '{}'", config.name));
        let text = secret.load().await.map_err(refuse)?;
        check(text.expose()).map_err(|what| refuse(Error::config(what)))?;
        Ok(Self {
            name: config.name.as_str().into(),
            stores: config.stores.clone(),
            hash: blake3::hash(text.expose().as_bytes()).into(),
        })
    }

    pub(in crate::serve) fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash
    }

    /// The place of the token that was presented. Takes the same time whatever was presented, and whichever it is.
    pub(in crate::serve) fn find(tokens: &[Self], presented: &[u8]) -> Option<usize> {
        let hash: [u8; 32] = blake3::hash(presented).into();
        let mut found = u64::MAX;
        for (at, token) in (0..).zip(tokens) {
            let same: Choice = token.hash.ct_eq(&hash);
            found.conditional_assign(&at, same);
        }
        usize::try_from(found).ok().filter(|at| *at < tokens.len())
    }
}

/// What can travel in a header, and cannot be guessed.
fn check(token: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !token.bytes().all(fits) {
        return Err(
            "it holds what a header cannot carry; a token is letters, digits and `-._~+/=`, such as `openssl rand -hex 32` prints"
                .to_owned(),
        );
    }
    if !(SHORTEST..=LONGEST).contains(&token.len()) {
        return Err(format!(
            "it has {} characters; a token has {SHORTEST} to {LONGEST}, such as `openssl rand -hex 32` prints",
            token.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token { name: text.into(), stores: None, hash: blake3::hash(text.as_bytes()).into() }
    }

    #[test]
    fn each_of_several_is_found_and_nothing_else() {
        let tokens = [token("first"), token("second"), token("third")];
        for (at, text) in ["first", "second", "third"].into_iter().enumerate() {
            assert_eq!(Token::find(&tokens, text.as_bytes()), Some(at));
        }
        for text in ["", "firs", "firstt", "FIRST"] {
            assert_eq!(Token::find(&tokens, text.as_bytes()), None, "{text}");
        }
        assert_eq!(Token::find(&[], b"first"), None);
    }

    #[test]
    fn what_can_be_guessed_or_cannot_travel_is_refused() {
        let error = check("short").unwrap_err();
        assert!(error.contains("has 5 characters") && !error.contains("short"), "{error}");
        let error = check("a token with spaces in it").unwrap_err();
        assert!(error.contains("cannot carry") && !error.contains("spaces"), "{error}");
        assert!(check(&"x".repeat(LONGEST + 1)).is_err());
        assert_eq!(check("abcDEF012-._~+/="), Ok(()));
    }
}
