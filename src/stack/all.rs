//! The stores of a config, opened and closed together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use futures_util::future::join_all;

use super::{Checked, OpenOptions, Stack};
use crate::config::{Config, Registry};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Claim;

/// Stores of one config that are open, by name. The caller that opened them [closes](Self::close_all) them.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::config::{Config, Format, Registry};
/// use tierstack::{OpenOptions, Read, Stacks, StoreExt};
///
/// let text = "
/// backends: { main: memory }
/// stores:
///   orders: { backend: { shared: main, prefix: orders/ } }
///   users: { backend: { shared: main, prefix: users/ } }
/// default: orders
/// ";
/// let config = Config::parse(text, Format::Yaml, "tierstack.yaml")?;
/// let stacks =
///     Stacks::open_all(&config, &Registry::standard(), &OpenOptions::service()).await?;
/// stacks["orders"].put("1", "tea").await?;
/// assert_eq!(stacks["users"].get(b"1").await?, None);
/// stacks.close_all().await.map_err(|errors| errors.into_error())?;
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Debug, Default)]
pub struct Stacks {
    open: BTreeMap<String, Stack>,
    failed: BTreeMap<String, Error>,
}

impl Stacks {
    /// Opens every store of a config, all at the same time, or none: if one fails, the others are closed.
    ///
    /// A dropped future lets go of what was opened, as dropping a stack does.
    ///
    /// # Errors
    /// Like [`Stack::check_all`]; the error of the store that failed, or one that names all that did.
    pub async fn open_all(
        config: &Config,
        registry: &Registry,
        options: &OpenOptions,
    ) -> Result<Self> {
        let stacks = Self::open_each(config, None, registry, options).await?;
        let Some(error) = stacks.failed() else { return Ok(stacks) };
        if let Err(error) = stacks.close_all().await {
            tracing::warn!(%error, "closing after a failed opening");
        }
        Err(error.into_error())
    }

    /// Opens those of the named stores that can be opened, all stores without names;
    /// [`failed`](Self::failed) tells about the others.
    ///
    /// # Errors
    /// Like [`Stack::check_all`], of the named stores. Then none is opened.
    pub async fn open_each(
        config: &Config,
        names: Option<&[&str]>,
        registry: &Registry,
        options: &OpenOptions,
    ) -> Result<Self> {
        let all = || config.stores.keys().map(String::as_str).collect();
        // Each of them once.
        let names: BTreeSet<_> = names.map_or_else(all, |names| names.iter().copied().collect());
        let opening = check_together(config, names, registry)?.into_iter().map(async |checked| {
            let name = checked.store().to_owned();
            (name, checked.open(options).await)
        });
        let mut stacks = Self::default();
        for (name, opened) in join_all(opening).await {
            match opened {
                Ok(stack) => drop(stacks.open.insert(name, stack)),
                Err(error) => drop(stacks.failed.insert(name, error)),
            }
        }
        Ok(stacks)
    }

    /// The store of that name, if it is open.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Stack> {
        self.open.get(name)
    }

    /// The open stores, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Stack> {
        self.open.values()
    }

    /// What kept stores from being opened. `None`: all of them are open.
    #[must_use]
    pub fn failed(&self) -> Option<StoreErrors> {
        StoreErrors::of("not opened", self.failed.clone())
    }

    /// Closes every store, all at the same time, also after one has failed. A second call succeeds and does
    /// nothing.
    ///
    /// # Errors
    /// Like [`Store::close`](crate::Store::close), of each store that failed; it is closed nevertheless.
    pub async fn close_all(&self) -> Result<(), StoreErrors> {
        let closing = self.open.iter().map(async |(name, stack)| {
            let closed = stack.close().await;
            closed.err().map(|error| (name.clone(), error))
        });
        let failed = join_all(closing).await.into_iter().flatten().collect();
        StoreErrors::of("not closed", failed).map_or(Ok(()), Err)
    }
}

/// The store of that name.
///
/// # Panics
/// If it is not open.
impl std::ops::Index<&str> for Stacks {
    type Output = Stack;

    #[expect(clippy::panic, reason = "what indexing means; `get` does not")]
    fn index(&self, name: &str) -> &Stack {
        self.get(name).unwrap_or_else(|| panic!("the store '{name}' is not open"))
    }
}

/// Checks each of the stores, and that no two of them have the same for themselves.
pub(super) fn check_together<'a>(
    config: &Config,
    names: impl IntoIterator<Item = &'a str>,
    registry: &Registry,
) -> Result<Vec<Checked>> {
    let check = |name| Checked::new(config, Some(name), registry);
    let checked: Vec<_> = names.into_iter().map(check).collect::<Result<_>>()?;
    let claims: Vec<_> = checked.iter().flat_map(Checked::claims).collect();
    // A shared backend is there once, and is here with each of its stores. What one store has twice was
    // refused before.
    refuse_same(config.origin(), &claims, |one, two| {
        one.store != two.store && one.path != two.path
    })?;
    Ok(checked)
}

/// What a part of a store needs for itself.
pub(super) struct Claimed<'a> {
    pub(super) store: &'a str,
    /// Of the part in the file.
    pub(super) path: &'a str,
    pub(super) claim: Claim,
}

/// Refuses two that need the same, among those that are to be compared.
pub(super) fn refuse_same(
    origin: &Path,
    claims: &[Claimed<'_>],
    compared: impl Fn(&Claimed<'_>, &Claimed<'_>) -> bool,
) -> Result<()> {
    for (at, one) in claims.iter().enumerate() {
        let mut others = claims.iter().skip(at + 1);
        let met = |two: &&Claimed<'_>| compared(one, two) && one.claim.is_same(&two.claim);
        let Some(two) = others.find(met) else { continue };
        let (owner, both) = match one.store == two.store {
            true => ("one of them", ""),
            false if one.path.contains(".backend") && two.path.contains("backend") => {
                ("one store", "; stores that are to share it name it under `backends`")
            }
            false => ("one store", ""),
        };
        let (what, one, two) = (one.claim.met(&two.claim), one.path, two.path);
        let both_use = match one == two {
            true => format!("{one} uses for two things {what}"),
            false => format!("{one} and {two} both use {what}"),
        };
        return Err(Error::config(format!(
            "{}: {both_use}, and only {owner} can; name another in one of them{both}",
            origin.display(),
        )));
    }
    Ok(())
}

/// What several stores failed with, by name. See [`Stacks`] for an example.
#[derive(Clone, Debug)]
pub struct StoreErrors {
    what: &'static str,
    errors: BTreeMap<String, Error>,
}

impl StoreErrors {
    fn of(what: &'static str, errors: BTreeMap<String, Error>) -> Option<Self> {
        (!errors.is_empty()).then_some(Self { what, errors })
    }

    /// The error of each store that failed: at least one.
    #[must_use]
    pub fn by_store(&self) -> &BTreeMap<String, Error> {
        &self.errors
    }

    /// One error about all of them, of the kind of the first.
    #[must_use]
    pub fn into_error(self) -> Error {
        let kind = self.errors.values().next().map_or(ErrorKind::Internal, Error::kind);
        Error::new(kind, self.to_string())
    }
}

impl fmt::Display for StoreErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, error)) in self.errors.iter().enumerate() {
            let before = if at == 0 { "" } else { "; " };
            write!(f, "{before}the store '{name}' was {}: {error}", self.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for StoreErrors {}
