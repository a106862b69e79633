//! The live page in a browser.

#![cfg(feature = "serve")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tierstack::config::{Config, Registry};
use tierstack::serve::{Server, Stores};
use tierstack::{OpenOptions, Read, Stacks, StoreExt};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::Browser;

/// A name that would be a script if it were markup.
const EVIL: &str = "<img src=x onerror=\"document.title='taken'\">";

/// This process serves, on the same port after a restart.
struct Service {
    folder: TempDir,
    port: u16,
    runtime: Runtime,
    running: Option<(Server, Arc<Stacks>, JoinHandle<()>)>,
}

const STORES: &str = r#"
stores:
  orders:
    layers: [ cache: { capacity: 1MiB, ttl: 10m }, compress, backup: { to: ./backups, base: daily } ]
    backend: memory
  users: { backend: memory }
default: orders
"#;

impl Service {
    /// Serves the stores, with that listener.
    fn start(listener: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{STORES}\nserve:\n  listeners:\n    - {listener}\n");
        std::fs::write(folder.path().join("tierstack.yaml"), text).unwrap();
        std::fs::write(folder.path().join("token"), "a-token-of-forty-three-characters-0123456789")
            .unwrap();
        let runtime = Runtime::new().unwrap();
        let mut service = Self { folder, port: 0, runtime, running: None };
        service.resume();
        service
    }

    fn resume(&mut self) {
        let path = self.folder.path().join("tierstack.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", self.port)))
            .unwrap();
        let opened = self.runtime.block_on(async {
            let config = Config::load(&path).unwrap();
            let options = OpenOptions::default();
            let stacks = Stacks::open_all(&config, &Registry::standard(), &options).await;
            let stacks = Arc::new(stacks.unwrap());
            let server =
                Server::listen(config.serve.as_ref().unwrap(), config.folder()).await.unwrap();
            server.open(Stores::of(&stacks));
            let orders = stacks["orders"].store();
            orders.put("user:1", "Ada").await.unwrap();
            // More reads than writes, as caches meet them.
            let load = tokio::spawn(async move {
                for round in 0_u64.. {
                    let value = round.to_string();
                    orders.put(format!("key {}", round % 100), value).await.unwrap();
                    for key in 0..20 {
                        orders.get(format!("key {}", key % 7).as_bytes()).await.unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            (server, stacks, load)
        });
        self.port = opened.0.addresses().next().unwrap().unwrap().port();
        self.running = Some(opened);
    }

    fn end(&mut self) {
        let Some((server, stacks, load)) = self.running.take() else { return };
        load.abort();
        self.runtime.block_on(async {
            server.drain(tokio::time::sleep(Duration::from_secs(20))).await;
            stacks.close_all().await.unwrap();
        });
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Begins to read the stream, and gives the head of the answer.
    fn stream(&self) -> (TcpStream, String) {
        let mut line = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        line.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(line, "GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", self.port).unwrap();
        let mut head = String::new();
        while !head.contains("\r\n\r\n") {
            let mut byte = [0];
            line.read_exact(&mut byte).unwrap();
            head.push(char::from(byte[0]));
        }
        (line, head)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

const OPEN: &str = "{ listen: \"127.0.0.1:0\", stores: admin }";
/// The text of what the page says of its connection.
const LIVE: &str =
    "document.getElementById('state').textContent === 'live' && document.querySelector('.layer')";

fn label(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('.layer')].find(e => e.getAttribute('aria-label') === {name:?})"
    )
}

#[test]
fn the_page_is_drawn_moves_and_asks_nobody_else() {
    let Some(mut browser) = Browser::start() else { return };
    let service = Service::start(OPEN);
    browser.open(&service.url());
    browser.wait(LIVE);
    let cache = label("layer cache");
    // Rates, a hit ratio, a p99: they come with the second event.
    for (at, unit) in [(0, ""), (1, "%"), (3, "s")] {
        browser.wait(&format!(
            "{cache}.querySelectorAll('dd')[{at}].textContent.match(/[0-9].*{unit}$/)"
        ));
    }
    let first = browser.js(&format!("{cache}.querySelectorAll('dd')[0].textContent"));
    browser.wait(&format!("{cache}.querySelectorAll('dd')[0].textContent !== {first}"));
    browser.wait(&format!(
        "{cache}.querySelector('.spark path:nth-child(2)').getAttribute('d').match(/M.*L.*L/)"
    ));
    browser.wait("document.body.innerText.includes('A batch is applied wholly or not at all.')");
    browser.wait("document.body.innerText.includes('There is none yet.')");
    let nested =
        "[...document.querySelectorAll('.layer')].map(e => e.querySelector('.name').textContent)";
    assert_eq!(
        browser.js(nested),
        serde_json::json!(["cache", "compress", "backup", "memory", "memory"])
    );
    assert_eq!(
        browser.js("document.querySelector('.layer .layer .layer .layer .name').textContent"),
        "memory"
    );

    // The inspector, by keyboard.
    browser.js("document.getElementById('key').focus()");
    browser.write("user:1");
    browser.press("Enter");
    browser.wait("document.querySelectorAll('#seen tbody tr').length >= 2");
    browser.wait("document.getElementById('seen').innerText.includes('memory')");
    assert!(browser.asked().iter().all(|url| !url.contains("user")), "no key in an address");

    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        browser.width(1280, 900);
        browser.picture(&format!("page-{scheme}"), 1280);
        // Text that is read against its ground: 4.5 to 1.
        let worst = browser.js(CONTRAST);
        assert!(worst["ratio"].as_f64().unwrap() >= 4.5, "{scheme}: {worst}");
    }
    browser.width(360, 740);
    browser.picture("page-narrow", 360);
    browser.width(360, 740);
    let scroll = browser.js("document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(scroll, true, "nothing is wider than a small phone");

    assert_eq!(browser.problems(), Vec::<String>::new());
    let elsewhere: Vec<_> =
        browser.asked().into_iter().filter(|url| !url.starts_with(&service.url())).collect();
    assert_eq!(elsewhere, ["about:blank"; 0], "nothing is asked of others");
}

/// The lowest contrast of a text with what is behind it, and of which text.
const CONTRAST: &str = r#"(() => {
  const parse = colour => { const n = (colour.match(/[\d.]+/g) || []).map(Number); const f = colour.startsWith("color(") ? 255 : 1; return [n[0] * f, n[1] * f, n[2] * f, n[3] === undefined ? 1 : n[3]]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const ground = e => { const all = []; for (; e; e = e.parentElement) all.push(parse(getComputedStyle(e).backgroundColor)); return all.reverse().reduce((b, a) => a[3] ? over(a, b) : b, [255, 255, 255, 1]); };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  let worst = { ratio: 99 };
  for (const e of document.querySelectorAll("main *, header *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("svg")) continue;
    const back = ground(e), front = over(parse(getComputedStyle(e).color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < worst.ratio) worst = { ratio, text: e.textContent.slice(0, 40), front, back };
  }
  return worst;
})()"#;

/// The name of a store comes from a config, that of a layer and the text of an error from a program.
#[test]
fn a_name_is_text_and_no_markup() {
    let Some(mut browser) = Browser::start() else { return };
    let service = Service::start(OPEN);
    browser.open(&service.url());
    browser.wait(LIVE);
    let evil = serde_json::json!(EVIL);
    browser.js(&format!(
        r#"fetch("/v1/status").then(answer => answer.json()).then(facts => {{
            const evil = {evil}, stack = facts.stacks.find(stack => stack.name === "orders");
            stack.shape = stack.error = evil;
            Object.assign(stack.layers[0], {{ name: evil, notes: [evil], changes: [{{ about: evil, text: evil }}], errors_by_kind: {{ [evil]: 1 }} }});
            Object.assign(stack.backups, {{ error: evil, bases: [{{ id: evil, time: 1, entries: 1, bytes: 1 }}] }});
            stack.guarantees = [{{ about: evil, text: evil }}];
            facts.process.version = evil;
            facts.alerts = [{{ severity: evil, name: evil, stack: evil, layer: evil, text: evil }}];
            facts.listeners = [{{ address: evil, tls: false, tokens: 0, stores: {{ [evil]: evil }} }}];
            show(facts);
            document.querySelectorAll(".name").forEach(button => button.click());
        }})"#
    ));
    let shown = browser.js("document.body.textContent.split('<img').length - 1").as_u64().unwrap();
    assert!(shown > 15, "all of them are there, {shown} times");
    assert_eq!(browser.js("document.querySelectorAll('img').length"), 0);
    assert_eq!(browser.js("document.title"), "tierstack");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn the_page_is_used_by_keyboard_and_heard() {
    let Some(mut browser) = Browser::start() else { return };
    let service = Service::start(OPEN);
    browser.open(&service.url());
    browser.wait(LIVE);
    // The order of the stack, then the rest.
    let mut walked = Vec::new();
    while walked.len() < 14 {
        browser.press("Tab");
        let focus = "(e => e.id || e.textContent.trim())(document.activeElement)";
        walked.push(browser.js(focus).as_str().unwrap().to_owned());
        if walked.last().is_some_and(|at| at == "compress") {
            browser.press("Enter");
            assert_eq!(browser.js("document.activeElement.getAttribute('aria-expanded')"), "true");
            browser.wait(&format!(
                "{}.querySelector('.more').checkVisibility()",
                label("layer compress")
            ));
            let outlined = browser.js("getComputedStyle(document.activeElement).outlineStyle");
            assert_eq!(outlined, "solid", "where the focus is, is seen");
        }
    }
    let expected = [
        "theme",
        "cache",
        "compress",
        "backup",
        "memory",
        "All backups as a table",
        "memory",
        "store",
        "key",
        "as",
        "Inspect",
        "/metrics",
        "/v1/status",
    ];
    assert_eq!(walked[..expected.len()], expected);

    // What a screen reader is told: every group, picture, control and table has a name.
    let tree = browser.ask("Accessibility.getFullAXTree", serde_json::json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let mut names = Vec::new();
    for node in nodes.iter().filter(|node| node["ignored"] == false) {
        let (role, name) = (
            node["role"]["value"].as_str().unwrap_or(""),
            node["name"]["value"].as_str().unwrap_or(""),
        );
        if ["group", "image", "img", "button", "textbox", "combobox", "link", "region", "dialog"]
            .contains(&role)
        {
            assert!(!name.is_empty(), "a {role} without a name: {node}");
            names.push(format!("{role} {name}"));
        }
    }
    assert!(names.contains(&"group layer cache".to_owned()), "{names:?}");
    assert!(names.contains(&"textbox Key".to_owned()), "{names:?}");
    assert!(
        names.iter().any(|name| name.contains("operations a second in the last 5 minutes")),
        "{names:?}"
    );
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn the_page_outlives_a_restart_of_the_server() {
    let Some(mut browser) = Browser::start() else { return };
    let mut service = Service::start(OPEN);
    browser.open(&service.url());
    browser.wait(LIVE);
    browser.wait("document.getElementById('banner').hidden");
    browser.js("window.card = document.querySelector('.card'); 0");
    service.end();
    browser.wait("!document.getElementById('banner').hidden");
    browser
        .wait("document.getElementById('banner').textContent.startsWith('Connection lost since ')");
    service.resume();
    browser.wait(LIVE);
    browser.wait("document.getElementById('banner').hidden");
    browser.wait("document.getElementById('hear').textContent.includes('restarted') || document.querySelector('.card') !== window.card");
    browser.wait(&format!(
        "{}.querySelectorAll('dd')[0].textContent.match(/[0-9]/)",
        label("layer cache")
    ));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn a_tab_has_one_stream_and_none_while_it_is_hidden() {
    let Some(mut browser) = Browser::start() else { return };
    let service = Service::start(OPEN);
    browser.open(&service.url());
    browser.wait(LIVE);
    let others: Vec<_> = (0..15).map(|_| service.stream()).collect();
    for (_, head) in &others {
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let head = head.to_lowercase();
        for header in
            ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"]
        {
            assert!(head.contains(header), "{head}");
        }
    }
    let (_, head) = service.stream();
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.to_lowercase().contains("retry-after: "),
        "{head}"
    );

    // Hidden, it lets go of its own, which another may have.
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); document.dispatchEvent(new Event('visibilitychange')); 0"
        )
    };
    browser.js(&hide(true));
    let taken = (0..1000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Some(service.stream()).filter(|(_, head)| head.starts_with("HTTP/1.1 200 "))
    });
    assert!(taken.is_some(), "a hidden tab keeps its stream");
    // None is left for the page, which asks now and then.
    browser.js(&hide(false));
    browser.wait("document.getElementById('state').textContent === 'asking every 3 s'");
    browser.wait("document.getElementById('banner').hidden");
    drop((taken, others));
    browser.wait(LIVE);
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn a_token_is_asked_for_once_and_kept_nowhere() {
    let Some(mut browser) = Browser::start() else { return };
    let service = Service::start(
        "{ listen: \"127.0.0.1:0\", stores: admin, tokens: [ { name: ada, file: ./token } ] }",
    );
    browser.open(&service.url());
    browser.wait("document.getElementById('login').open && document.activeElement.id === 'token'");
    assert_eq!(browser.js("document.querySelectorAll('.layer').length"), 0);
    browser.write("a-wrong-token");
    browser.press("Enter");
    browser.wait(
        "document.getElementById('why').textContent.startsWith('This token is not valid here.')",
    );
    let token = std::fs::read_to_string(service.folder.path().join("token")).unwrap();
    browser.write(&token);
    browser.press("Enter");
    browser.wait(LIVE);
    assert_eq!(browser.js("document.getElementById('login').open"), false);
    assert_eq!(
        browser.js(
            "[location.href.length, localStorage.length, sessionStorage.length, document.cookie]"
        ),
        serde_json::json!([service.url().len(), 0, 0, ""])
    );
    assert_eq!(browser.js("document.getElementById('token').value"), "");
    assert!(browser.asked().iter().all(|url| !url.contains("token")));
    assert_eq!(browser.problems(), Vec::<String>::new());
}
