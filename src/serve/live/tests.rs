//! The page and its policy; what is asked about a key. The browser's side is in `tests/servers/live`.

use super::inspect::key;
use super::page::{PAGE, hash, inside};

#[test]
fn the_page_is_small_and_whole() {
    assert!(PAGE.len() <= 40 << 10, "{} bytes", PAGE.len());
    for part in ["script", "style"] {
        assert_eq!(PAGE.matches(&format!("<{part}")).count(), 1, "the policy names one {part}");
        assert!(inside(part).len() > 1000);
    }
}

/// What would need a policy that lets others in.
#[test]
fn the_page_asks_nobody_else_and_sets_no_markup() {
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "setAttribute(\"style\"",
        " style=",
        "javascript:",
        "data:image",
        "@import",
        "url(",
        "localStorage",
        "sessionStorage",
        "document.cookie",
    ];
    for word in forbidden {
        assert!(!PAGE.contains(word), "{word}");
    }
    let elsewhere = PAGE.replace("http://www.w3.org/2000/svg", "");
    assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"));
    // Handlers as attributes, such as onclick=.
    let markup = PAGE.split("<script>").next().unwrap();
    assert!(!markup.split_whitespace().any(|word| word.starts_with("on") && word.contains("=\"")));
}

#[test]
fn the_hash_is_that_of_policies() {
    // `printf abc | openssl dgst -sha256 -binary | base64`
    assert_eq!(hash("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
}

#[test]
fn a_key_is_text_or_base64_and_nothing_else() {
    assert_eq!(key(br#"{"key":"user:1"}"#).unwrap(), b"user:1");
    assert_eq!(key(br#"{"key64":"AP8"}"#).unwrap(), [0, 255]);
    let bad: [&[u8]; 7] = [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        br#"{"key":1}"#,
        br#"{"key":"secret","key64":""}"#,
        br#"{"key64":"secret!"}"#,
    ];
    for body in bad {
        let problem = format!("{:?}", key(body).unwrap_err());
        assert!(problem.contains("write {") && !problem.contains("secret"), "{problem}");
    }
    assert!(key(br#"{"key":"a","more":1}"#).is_err());
}
