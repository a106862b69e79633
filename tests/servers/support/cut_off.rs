//! Ways in which the data of a store become unreachable.

use std::sync::Arc;

use tierstack::testing::conformance::Fixture;

use super::Proxy;

/// The store of a server behind a proxy, which cuts it off.
pub(crate) fn by_proxy(fixture: Fixture, proxy: Proxy) -> Fixture {
    let proxy = Arc::new(proxy);
    fixture.cut_off_by(move |reachable| {
        let proxy = Arc::clone(&proxy);
        async move {
            if reachable {
                proxy.heal().await;
            } else {
                proxy.cut().await;
            }
            Ok(())
        }
    })
}

/// The store of files in a folder, which is moved away. What takes its place meanwhile is not it.
pub(crate) fn moved_away(fixture: Fixture, folder: &std::path::Path) -> Fixture {
    let folder = folder.to_owned();
    let aside = folder.with_extension("aside");
    fixture.cut_off_by(move |reachable| {
        if reachable {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::rename(&aside, &folder).unwrap();
        } else {
            std::fs::rename(&folder, &aside).unwrap();
            std::fs::create_dir(&folder).unwrap();
        }
        async { Ok(()) }
    })
}
