//! Files that are not what was written.

use super::*;

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = Folder::new();
    std::fs::write(folder.path(), vec![b'x'; 10_000]).unwrap();
    let error = refusal(folder.config()).await;
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error:?}");
    assert!(error.message().contains("not a SQLite database"), "{error}");
    assert_eq!(std::fs::read(folder.path()).unwrap(), vec![b'x'; 10_000], "it was touched");
}

/// A database of some pages, with nothing in its log.
async fn filled() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let store = open(folder.config()).await;
    let put = |n: u32| Op::Put(n.to_be_bytes().to_vec().into(), vec![7; 200].into());
    let _ = store.write((0..1000).map(put).collect()).await.unwrap();
    store.integrity_check().await.unwrap();
    store.close().await.unwrap();
    let image = std::fs::read(folder.path()).unwrap();
    (folder, image)
}

/// Opens, reads everything, and writes: what fails first.
async fn use_all(config: SqliteConfig) -> Result<()> {
    let store = Sqlite::open(config).await?;
    let used = async {
        store.collect(Scan::all()).await?;
        store.collect(Scan::all().reverse()).await?;
        for n in 0..1000u32 {
            store.get(&n.to_be_bytes()).await?;
        }
        let _ = store.put(500u32.to_be_bytes().to_vec(), "new").await?;
        Ok(())
    };
    let used = used.await;
    let _ = store.close().await;
    used
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_are_corruption_and_never_a_panic() {
    let (folder, image) = filled().await;
    let mut found = 0;
    for page in 0..image.len() / 4096 {
        let mut damaged = image.clone();
        // The header of a page, and a few of its cells.
        let from = page * 4096 + if page == 0 { 100 } else { 0 };
        for byte in &mut damaged[from..from + 24] {
            *byte ^= 0xa5;
        }
        std::fs::write(folder.path(), &damaged).unwrap();
        for end in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(folder.path().with_extension(end));
        }
        let checked = Sqlite::open(SqliteConfig { check_on_open: true, ..folder.config() }).await;
        let checked = checked.map(|store| drop(store.profile()));
        match (use_all(folder.config()).await, checked) {
            (Err(error), Err(check)) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "page {page}: {error:?}");
                assert_eq!(check.kind(), ErrorKind::Corruption, "page {page}: {check:?}");
                found += 1;
            }
            // A page that no entry needs: unused, of the index of expiries, or of SQLite's own.
            (Ok(()), Err(check)) => assert_eq!(check.kind(), ErrorKind::Corruption, "{check:?}"),
            (used, checked) => panic!("page {page}: {used:?}, but the check says {checked:?}"),
        }
    }
    assert!(found > 40, "only {found} damaged pages were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_is_corruption() {
    let (folder, image) = filled().await;
    for length in [4096, image.len() / 2, image.len() - 4096] {
        std::fs::write(folder.path(), &image[..length]).unwrap();
        let error = use_all(folder.config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{length} bytes: {error:?}");
    }
}
