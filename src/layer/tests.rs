use super::*;

#[test]
fn the_order_of_the_design_is_accepted() {
    let layers = [
        ("cache", Zone::Cache),
        ("retry", Zone::Guard),
        ("compress", Zone::Compress),
        ("encrypt", Zone::Encrypt),
        ("expire", Zone::Expire),
        ("write_back", Zone::WriteBack),
        ("backup", Zone::Backup),
    ];
    let mut trade_offs = Vec::new();
    check_order(&layers, |trade_off| trade_offs.push(trade_off)).unwrap();
    assert!(trade_offs.is_empty(), "{trade_offs:?}");
}

#[test]
fn a_wrong_order_names_both_layers_and_the_reason() {
    let error = check_order(&[("encrypt", Zone::Encrypt), ("compress", Zone::Compress)], |_| ())
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("'encrypt'")
            && text.contains("'compress'")
            && text.contains("do not compress"),
        "{text}"
    );
}

#[test]
fn a_cache_inside_compress_is_allowed_and_its_cost_is_told() {
    let mut trade_offs = Vec::new();
    let layers = [("compress", Zone::Compress), ("cache", Zone::Cache)];
    check_order(&layers, |trade_off| trade_offs.push(trade_off)).unwrap();
    assert_eq!(trade_offs.len(), 1);
}

/// Every pair of zones: what it costs, or why it cannot be.
#[test]
fn each_order_of_two_layers_has_its_words() {
    use Zone::{Backup, Cache, Compress, Encrypt, Expire, Guard, WriteBack};
    const SEALED: &str = "sealed bytes do not compress";
    const RECORDS: &str = "a backup records what the backend holds, so that it restores without any layer and is sealed like the backend";
    const ON_THEIR_WAY: &str = "a backup records what the backend holds, so writes still on their way to it would be missing";
    const THROUGH: &str = "a backup is next to the backend and must not read through a cache";
    const HEADER: &str =
        "the expiry of an entry is in a header that the store must read without decoding the value";
    const ANSWERS: &str =
        "a cache answers before the layers below it are asked, so it is outside them";
    const CARRIES: &str = "what is written back must carry its expiry";
    let refused = [
        (Encrypt, Compress, SEALED),
        (Backup, WriteBack, ON_THEIR_WAY),
        (Backup, Cache, THROUGH),
        (Backup, Compress, RECORDS),
        (Backup, Encrypt, RECORDS),
        (Backup, Expire, RECORDS),
        (Expire, Compress, HEADER),
        (Expire, Encrypt, HEADER),
        (Expire, Cache, ANSWERS),
        (WriteBack, Cache, ANSWERS),
        (WriteBack, Expire, CARRIES),
    ];
    let with_trade_off = [
        (
            Compress,
            Cache,
            "'b' is inside 'a': it holds more, as compressed bytes, and each hit pays for decoding.",
        ),
        (
            Encrypt,
            Cache,
            "'b' is inside 'a': only sealed bytes are in its memory, and each hit pays for opening them.",
        ),
        (
            WriteBack,
            Compress,
            "'a' is outside 'b': it acknowledges sooner, and its journal holds what 'b' has not yet encoded.",
        ),
        (
            WriteBack,
            Encrypt,
            "'a' is outside 'b': it acknowledges sooner, and its journal holds what 'b' has not yet encoded.",
        ),
    ];
    for outer in [Guard, Cache, Compress, Encrypt, Expire, WriteBack, Backup] {
        for inner in [Guard, Cache, Compress, Encrypt, Expire, WriteBack, Backup] {
            let mut trade_offs = Vec::new();
            let checked =
                check_order(&[("a", outer), ("b", inner)], |trade_off| trade_offs.push(trade_off));
            let of_these = |(one, two, _): &&(Zone, Zone, &str)| (*one, *two) == (outer, inner);
            let why = refused.iter().find(of_these).map(|(.., why)| {
                format!("config: 'a' is outside 'b', but {why}; put 'b' before 'a'")
            });
            assert_eq!(checked.map_err(|error| error.to_string()).err(), why);
            let trade_off: Vec<_> =
                with_trade_off.iter().filter(of_these).map(|(.., trade_off)| *trade_off).collect();
            assert_eq!(trade_offs, trade_off, "{outer:?}, {inner:?}");
        }
    }
    let text =
        check_order(&[("timeout", Guard), ("retry", Guard)], |_| ()).unwrap_err().to_string();
    assert!(
        text.contains(
            "but its deadline would cut off the attempts of the retry; put 'retry' before 'timeout'"
        ),
        "{text}"
    );
    check_order(&[("retry", Guard), ("timeout", Guard)], |_| ()).unwrap();
}
