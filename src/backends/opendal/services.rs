//! What each service guarantees. A profile is known before anything is opened, so it cannot ask OpenDAL;
//! opening compares the two.

use ::opendal::services as theirs;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

use crate::objects::{MAX_VALUE_BYTES, Naming};
use crate::types::Durability;

pub(super) struct Service {
    pub(super) scheme: &'static str,
    /// How keys become names, unless they are plain.
    pub(super) naming: Naming,
    /// Whether all names are listed, in their order.
    pub(super) ordered: bool,
    /// Whether a write can depend on the object being absent.
    pub(super) conditional: bool,
    pub(super) name_bytes: usize,
    /// The most bytes of a part between `/`.
    pub(super) segment_bytes: usize,
    pub(super) value_bytes: u64,
    pub(super) durability: Durability,
    /// The most that `durability` may be set to.
    pub(super) most: Durability,
    pub(super) place: Option<&'static str>,
    /// Whether a request that is dropped in the middle leaves nothing behind.
    pub(super) whole: bool,
    /// Whether a file that is being written is seen before it is whole.
    pub(super) in_place: bool,
    /// The options that OpenDAL knows.
    pub(super) options: fn() -> &'static [&'static str],
}

/// Buckets: names are flat, and listed in order.
const fn bucket(scheme: &'static str, conditional: bool, options: Known) -> Service {
    Service {
        scheme,
        naming: Naming::Ordered,
        ordered: true,
        conditional,
        name_bytes: 1024,
        segment_bytes: 1024,
        value_bytes: MAX_VALUE_BYTES,
        durability: Durability::PowerCut,
        most: Durability::MachineLoss,
        place: Some("bucket"),
        whole: true,
        in_place: false,
        options,
    }
}

/// Files: a name cannot be a file and a folder, may have no case, and is listed in no order.
const fn files(scheme: &'static str, options: Known) -> Service {
    Service {
        scheme,
        naming: Naming::Flat,
        ordered: false,
        conditional: false,
        name_bytes: 240,
        segment_bytes: 240,
        value_bytes: MAX_VALUE_BYTES,
        durability: Durability::ProcessCrash,
        most: Durability::MachineLoss,
        place: Some("folder"),
        whole: false,
        in_place: false,
        options,
    }
}

const SERVICES: [Service; 18] = [
    bucket("azblob", true, known::<theirs::AzblobConfig>),
    Service { in_place: true, ..files("azdls", known::<theirs::AzdlsConfig>) },
    Service {
        in_place: true,
        value_bytes: 4 << 20,
        ..files("azfile", known::<theirs::AzfileConfig>)
    },
    Service { segment_bytes: 250, ..bucket("b2", false, known::<theirs::B2Config>) },
    Service {
        name_bytes: 850,
        segment_bytes: 850,
        ..bucket("cos", true, known::<theirs::CosConfig>)
    },
    files("dropbox", known::<theirs::DropboxConfig>),
    Service { most: Durability::ProcessCrash, ..files("fs", known::<theirs::FsConfig>) },
    bucket("gcs", true, known::<theirs::GcsConfig>),
    files("gdrive", known::<theirs::GdriveConfig>),
    Service {
        ordered: false,
        // The protocol has 250 for keys, and OpenDAL escapes each `%` again, so that a byte takes five instead of
        // four; the server's usual limit on items.
        name_bytes: 200,
        segment_bytes: 200,
        value_bytes: 1_000_000,
        durability: Durability::Nothing,
        most: Durability::Nothing,
        place: Some("server's memory"),
        // OpenDAL gives the connection back to its pool, and the next request gets the answer to this one.
        whole: false,
        ..bucket("memcached", false, known::<theirs::MemcachedConfig>)
    },
    Service {
        durability: Durability::Nothing,
        most: Durability::Nothing,
        place: None,
        ..bucket("memory", false, known::<theirs::MemoryConfig>)
    },
    bucket("obs", false, known::<theirs::ObsConfig>),
    files("onedrive", known::<theirs::OnedriveConfig>),
    Service {
        name_bytes: 1023,
        segment_bytes: 1023,
        ..bucket("oss", true, known::<theirs::OssConfig>)
    },
    bucket("s3", true, known::<theirs::S3Config>),
    bucket("swift", false, known::<theirs::SwiftConfig>),
    Service { in_place: true, ..files("webdav", known::<theirs::WebdavConfig>) },
    Service { in_place: true, ..files("webhdfs", known::<theirs::WebhdfsConfig>) },
];

pub(super) fn find(scheme: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|service| service.scheme == scheme)
}

pub(super) fn names() -> String {
    SERVICES.map(|service| service.scheme).join(", ")
}

type Known = fn() -> &'static [&'static str];

/// The fields of a config, other names for them among them. OpenDAL ignores what it does not know, so that
/// a slip of the pen would go unnoticed.
fn known<C: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It asks for its fields, and gets an error in place of them.
    let _ = C::deserialize(Asked(&mut fields));
    fields
}

struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("only asked"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The length of a name as OpenDAL escapes it for memcached, at most.
pub(super) fn memcached_bytes(name: &str) -> usize {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.!~*'()".contains(byte);
    name.bytes().map(|byte| if plain(&byte) { 1 } else { 3 }).sum()
}
