//! What each service promises. A profile is known before anything is opened, so it cannot ask OpenDAL;
//! opening compares the two.

use crate::objects::Naming;
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
    pub(super) value_bytes: u64,
    pub(super) durability: Durability,
    /// The most that `durability` may be set to.
    pub(super) most: Durability,
    pub(super) place: Option<&'static str>,
}

/// 5 GiB: a value is in memory as a whole.
const VALUE_BYTES: u64 = 5 << 30;

/// Buckets: names are flat, and listed in order.
const fn bucket(scheme: &'static str, conditional: bool) -> Service {
    Service {
        scheme,
        naming: Naming::Ordered,
        ordered: true,
        conditional,
        name_bytes: 1024,
        value_bytes: VALUE_BYTES,
        durability: Durability::PowerCut,
        most: Durability::MachineLoss,
        place: Some("bucket"),
    }
}

/// Files: a name cannot be a file and a folder, may have no case, and is listed in no order.
const fn files(scheme: &'static str) -> Service {
    Service {
        scheme,
        naming: Naming::Flat,
        ordered: false,
        conditional: false,
        name_bytes: 240,
        value_bytes: VALUE_BYTES,
        durability: Durability::ProcessCrash,
        most: Durability::MachineLoss,
        place: Some("folder"),
    }
}

const SERVICES: [Service; 18] = [
    bucket("azblob", true),
    files("azdls"),
    Service { value_bytes: 4 << 20, ..files("azfile") },
    bucket("b2", false),
    bucket("cos", true),
    files("dropbox"),
    Service { most: Durability::ProcessCrash, ..files("fs") },
    bucket("gcs", true),
    files("gdrive"),
    Service {
        ordered: false,
        // The protocol has 250 for keys, and OpenDAL escapes each `%` again; the server's usual limit on items.
        name_bytes: 200,
        value_bytes: 1_000_000,
        durability: Durability::Nothing,
        most: Durability::Nothing,
        place: Some("server's memory"),
        ..bucket("memcached", false)
    },
    Service {
        durability: Durability::Nothing,
        most: Durability::Nothing,
        place: None,
        ..bucket("memory", false)
    },
    bucket("obs", false),
    files("onedrive"),
    bucket("oss", true),
    bucket("s3", true),
    bucket("swift", false),
    files("webdav"),
    files("webhdfs"),
];

pub(super) fn find(scheme: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|service| service.scheme == scheme)
}

pub(super) fn names() -> String {
    SERVICES.map(|service| service.scheme).join(", ")
}
