//! [`forward!`](crate::forward): methods of a wrapper that ask the store below.

/// Methods of [`Read`](crate::Read) and [`Store`](crate::Store) that a wrapper passes to the store below as they are.
///
/// A wrapper decides about every method, as neither trait has a provided one: it writes those that it changes, and names the
/// others here. The future of the store below is returned itself, so a method that is passed on costs no allocation.
/// It is in an `impl` of either trait, below `#[async_trait]` for `Store`.
///
/// ```
/// # use std::sync::Arc;
/// use async_trait::async_trait;
/// use tierstack::{Batch, Commit, Error, Page, Pages, Read, Result, Store, forward};
///
/// /// Refuses groups.
/// struct NoGroups<S>(S);
///
/// impl<S: Read> Read for NoGroups<S> {
///     forward!(self => self.0; get, get_many, scan);
/// }
///
/// #[async_trait]
/// impl<S: Store> Store for NoGroups<S> {
///     async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
///         group.iter().map(|_| Err(Error::unsupported("groups are refused here"))).collect()
///     }
///
///     forward!(self => self.0; write, ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, profile, identity);
/// }
/// # tokio_test::block_on(async {
/// # use tierstack::{StoreExt, backends::Memory};
/// let store = NoGroups(Memory::new());
/// store.put("k", "v").await?;
/// assert_eq!(store.get(b"k").await?, Some("v".into()));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[macro_export]
macro_rules! forward {
    ($self:ident => $below:expr; $($method:ident),+ $(,)?) => {
        $($crate::__forward!($self, $below, $method);)+
    };
}

/// One method. The signatures are those that `async_trait` gives the methods of the trait.
#[doc(hidden)]
#[macro_export]
macro_rules! __forward {
    ($self:ident, $below:expr, get) => {
        fn get<'a>(&'a $self, key: &'a [u8]) -> $crate::Reply<'a, Option<$crate::Value>> {
            $below.get(key)
        }
    };
    ($self:ident, $below:expr, get_many) => {
        fn get_many<'a>(
            &'a $self,
            keys: &'a [::bytes::Bytes],
        ) -> $crate::Reply<'a, Vec<Option<$crate::Value>>> {
            $below.get_many(keys)
        }
    };
    ($self:ident, $below:expr, scan) => {
        fn scan(&$self, scan: $crate::Scan) -> $crate::Pages<'_> {
            $below.scan(scan)
        }
    };
    ($self:ident, $below:expr, write) => {
        $crate::__forward!(@ $self, $below, write(batch: $crate::Batch) -> $crate::Result<$crate::Commit>);
    };
    ($self:ident, $below:expr, write_group) => {
        $crate::__forward!(@ $self, $below, write_group(group: Vec<$crate::Batch>) -> Vec<$crate::Result<$crate::Commit>>);
    };
    ($self:ident, $below:expr, ingest) => {
        $crate::__forward!(@ $self, $below, ingest<'b>(run: $crate::Pages<'b>) -> $crate::Result<u64>);
    };
    ($self:ident, $below:expr, changes) => {
        $crate::__forward!(@ $self, $below, changes() -> $crate::Result<$crate::Changes>);
    };
    ($self:ident, $below:expr, invalidate) => {
        $crate::__forward!(@ $self, $below, invalidate(scope: $crate::Scope) -> $crate::Result<()>);
    };
    ($self:ident, $below:expr, inspect) => {
        $crate::__forward!(@ $self, $below, inspect<'b>(key: &'b [u8]) -> $crate::Result<Vec<$crate::Inspection>>);
    };
    ($self:ident, $below:expr, snapshot) => {
        $crate::__forward!(@ $self, $below, snapshot() -> $crate::Result<::std::sync::Arc<dyn $crate::Read>>);
    };
    ($self:ident, $below:expr, flush) => {
        $crate::__forward!(@ $self, $below, flush() -> $crate::Result<()>);
    };
    ($self:ident, $below:expr, compact) => {
        $crate::__forward!(@ $self, $below, compact() -> $crate::Result<()>);
    };
    ($self:ident, $below:expr, usage) => {
        $crate::__forward!(@ $self, $below, usage() -> $crate::Result<$crate::Usage>);
    };
    ($self:ident, $below:expr, count) => {
        $crate::__forward!(@ $self, $below, count<'b>(prefix: &'b [u8]) -> $crate::Result<Option<u64>>);
    };
    ($self:ident, $below:expr, close) => {
        $crate::__forward!(@ $self, $below, close() -> $crate::Result<()>);
    };
    ($self:ident, $below:expr, profile) => {
        fn profile(&$self) -> $crate::Profile {
            $below.profile()
        }
    };
    ($self:ident, $below:expr, identity) => {
        fn identity(&$self) -> Option<$crate::Identity> {
            $below.identity()
        }
    };
    (@ $self:ident, $below:expr, $method:ident $(<$life:lifetime>)? ($($arg:ident: $type:ty)?) -> $answer:ty) => {
        fn $method<'a, $($life,)? 'answer>(
            &'a $self
            $(, $arg: $type)?
        ) -> ::std::pin::Pin<Box<dyn ::std::future::Future<Output = $answer> + Send + 'answer>>
        where
            'a: 'answer,
            $($life: 'answer,)?
            Self: 'answer,
        {
            $below.$method($($arg)?)
        }
    };
}
