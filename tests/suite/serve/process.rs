//! The process: what it opens, how it ends, what it takes over, and what it logs.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;
use crate::folder::{Folder, PLAIN};

const TOKEN: &str = "0123456789abcdef-s3cr3t";

#[test]
fn it_serves_until_it_is_stopped() {
    let folder = Folder::new(PLAIN);
    let service = Service::open(&folder);
    assert_eq!(get(service.address(), "/healthz").text(), "ok\n");
    assert_eq!(get(service.address(), "/readyz").text(), "ready\n");
    let err = service.stop();
    assert!(err.contains("shutting down gracefully; once more is faster"), "{err}");
    // The store is closed: it can be opened again.
    folder.run(&["put", "k", "v"]).ok();
}

#[test]
fn an_address_in_use_ends_the_command_before_a_store_is_opened() {
    let folder = Folder::new(PLAIN);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = folder.run(&["serve", "--listen", &address]).fails();
    ran.says(&format!("{address}: another process listens there already"));
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}

#[test]
fn an_address_for_metrics_in_use_ends_the_command_before_a_store_is_opened() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = Folder::new(&format!("{PLAIN}telemetry: {{ listen: '{address}' }}\n"));
    let ran = folder.run(&["serve", "--listen", "127.0.0.1:0"]).fails();
    ran.says(&format!("telemetry.listen {address} is taken"));
    assert_eq!(folder.names(), ["tierstack.yaml"]);
}

#[test]
fn a_store_that_fails_to_open_stands_beside_one_that_opens() {
    let folder = Folder::new(
        "stores: { good: { backend: memory }, bad: { backend: { sqlite: { path: file.db, create: false } } } }\ndefault: good\n",
    );
    let mut service = Service::open(&folder);
    service.says("the store 'bad' was not opened, and is answered with 503");
    let ready = get(service.address(), "/readyz");
    assert_eq!((ready.status, get(service.address(), "/healthz").status), (503, 200));
    assert!(ready.text().contains("1 of 2 stores could not be opened"), "{}", ready.text());
    service.stop();
    // Where none opens, there is nothing to serve.
    folder.write(
        "tierstack.yaml",
        "stores: { bad: { backend: { sqlite: { path: file.db, create: false } } } }\n",
    );
    folder
        .run(&["serve", "--listen", "127.0.0.1:0"])
        .refused()
        .says("the store 'bad' was not opened");
}

#[test]
fn no_connection_holds_up_the_end() {
    let folder = Folder::new(PLAIN);
    let service = Service::open(&folder);
    let _silent = connect(service.address());
    let mut kept = connect(service.address());
    let head = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", service.address());
    kept.write_all(head.as_bytes()).unwrap();
    kept.read_exact(&mut [0; 15]).unwrap();
    service.stop();
}

/// The first half of a request; the other never comes.
#[test]
fn a_second_signal_does_not_wait() {
    let folder = Folder::new(
        "stores: { main: { backend: { rocksdb: { path: data } } } }\nserve: { listeners: [ { listen: '127.0.0.1:0', stores: write } ], drain: 1h }\n",
    );
    let mut service = Service::start(&folder, &[], |_| ());
    let mut half = connect(service.address());
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost").unwrap();
    // So that it has been read.
    assert_eq!(get(service.address(), "/healthz").status, 200);
    service.signal("-TERM");
    service.says("once more is faster");
    service.signal("-TERM");
    let (status, err) = service.end();
    // No request was complete, so none was cut off.
    assert_eq!(status.code(), Some(0), "{err}");
    folder.run(&["put", "k", "v"]).ok();
}

/// What was acknowledged is there afterwards; what was cut off is told.
#[test]
fn a_second_signal_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new(
        "stores: { main: { layers: [ cache: {} ], backend: { rocksdb: { path: data } } } }\nserve: { listeners: [ { listen: '127.0.0.1:0', stores: write } ], drain: 1h }\n",
    );
    let mut service = Service::start(&folder, &[], |_| ());
    let address = service.address();
    for n in 0..50 {
        let put = format!("PUT /v1/stores/main/kv/{n}");
        assert_eq!(ask(address, &put, &[], format!("value {n}")).status, 204);
    }
    let mut half = connect(address);
    let head = "PUT /v1/stores/main/kv/half HTTP/1.1\r\ncontent-length: 9\r\n";
    half.write_all(format!("{head}host: {address}\r\n\r\nhalf").as_bytes()).unwrap();
    // Until it is under way: the half comes on top of what is there.
    let came = || {
        let text = get(address, "/metrics").text();
        let is_it = |line: &&str| {
            line.starts_with("tierstack_serve_bytes_total") && line.contains("direction=\"in\"")
        };
        text.lines().find(is_it).unwrap().rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()
    };
    let whole: usize = (0..50).map(|n| format!("value {n}").len()).sum();
    while came() < whole + "half".len() {}
    service.signal("-TERM");
    service.says("once more is faster");
    service.signal("-TERM");
    let (status, err) = service.end();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("1 request was cut off before the answer was sent"), "{err}");
    for n in 0..50 {
        folder.run(&["get", &n.to_string()]).ok().prints(&format!("value {n}"));
    }
    folder.run(&["get", "half"]).fails();
}

/// As systemd has it with `Type=notify-reload` and `WatchdogSec=`.
#[test]
fn systemd_is_told_how_far_the_service_is() {
    let folder = Folder::new(PLAIN);
    let told = std::os::unix::net::UnixDatagram::bind(folder.path("notify")).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let until = |words: &str| {
        let mut all = String::new();
        let mut bytes = [0; 4096];
        while !all.contains(words) {
            let read = told.recv(&mut bytes).unwrap_or_else(|_| panic!("no {words} in {all}"));
            all.push_str(&String::from_utf8_lossy(&bytes[..read]));
            all.push('\n');
        }
        all
    };
    let service = Service::start(&folder, &["--listen", "127.0.0.1:0"], |command| {
        command.env("NOTIFY_SOCKET", folder.path("notify")).env("WATCHDOG_USEC", "200000");
    });
    let said = until("READY=1");
    assert!(said.contains("STATUS=opening the stores") && said.contains("STATUS=serving main"));
    until("WATCHDOG=1");
    service.signal("-HUP");
    let said = until("RELOADING=1");
    assert!(said.contains("MONOTONIC_USEC="), "{said}");
    until("READY=1");
    service.signal("-TERM");
    until("STOPPING=1");
    // The close of the stores may take longer than systemd waits by itself.
    until("EXTEND_TIMEOUT_USEC=60000000");
    let (status, err) = service.end();
    assert_eq!(status.code(), Some(0), "{err}");
}

fn with_token(more: &str) -> String {
    format!(
        "stores: {{ main: {{ backend: memory }} }}\nserve: {{ listeners: [ {{ listen: '127.0.0.1:0', stores: read, tokens: [ {{ name: app, file: app.token }} ] }} ]{more} }}\n"
    )
}

#[test]
fn a_hangup_takes_over_what_may_change_and_names_the_rest() {
    let folder = Folder::new(&with_token(""));
    folder.write("app.token", TOKEN);
    let mut service = Service::start(&folder, &[], |_| ());
    let address = service.address();
    let status = |token: &str| {
        ask(address, "GET /nothing", &[&format!("authorization: Bearer {token}")], "").status
    };
    assert_eq!((status(TOKEN), status("0123456789abcdef-other")), (404, 401));
    folder.write("app.token", "0123456789abcdef-other");
    folder.write(
        "tierstack.yaml",
        with_token(", log: info")
            .replace("backend: memory", "layers: [ metrics ], backend: memory")
            + "control: ./c.sock\n",
    );
    service.signal("-HUP");
    let said = service.says("by a restart only");
    assert!(said.contains("read again"), "{said}");
    assert!(said.contains("restart only: stores.main, control\n"), "{said}");
    assert_eq!((status(TOKEN), status("0123456789abcdef-other")), (401, 404));
    // What is wrong changes nothing.
    folder.write("tierstack.yaml", "stores: {}\n");
    service.signal("-HUP");
    service.says("nothing was taken over: error: tierstack.yaml: stores: the map is empty");
    folder.write("tierstack.yaml", with_token(""));
    folder.write("app.token", "short");
    service.signal("-HUP");
    service.says("nothing was taken over: error: serve.listeners[0]: the token 'app': it has 5");
    assert_eq!(status("0123456789abcdef-other"), 404);
    service.stop();
}

#[test]
fn no_token_is_ever_in_the_log() {
    let folder = Folder::new(&with_token(""));
    folder.write("app.token", TOKEN);
    let service = Service::start(&folder, &[], |command| {
        command.env("RUST_LOG", "trace");
    });
    let wrong = TOKEN.to_uppercase();
    for token in [TOKEN, &wrong] {
        let bearer = format!("authorization: Bearer {token}");
        for line in ["GET /nothing", "POST /nothing", &format!("GET /nothing?token={token}")] {
            ask(service.address(), line, &[&bearer], "");
        }
        let mut stream = connect(service.address());
        stream.write_all(format!("{bearer}\r\n\r\n").as_bytes()).unwrap();
        answer(stream);
    }
    service.signal("-HUP");
    ask(service.address(), "GET /nothing", &[&format!("authorization: Bearer {TOKEN}")], "");
    let err = service.stop();
    assert!(err.contains("DEBUG") || err.contains("TRACE"), "it logs: {err}");
    assert!(!err.to_lowercase().contains("s3cr3t"), "{err}");
}

/// Memory of the process, in bytes.
fn memory(service: &Service) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Of 10,000 connections that send nothing, or part of a head, no more than allowed are held, and they cost little.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_idle_connections_keep_memory_flat() {
    let folder = Folder::new("stores: { main: { backend: memory } }\n");
    let service = Service::open(&folder);
    get(service.address(), "/healthz");
    let before = memory(&service);
    let mut held = std::collections::VecDeque::new();
    for n in 0..10_000 {
        let mut stream = connect(service.address());
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nx-long: ");
        }
        held.push_back(stream);
        // This process has fewer open files than connections come.
        if held.len() > 800 {
            held.pop_front();
        }
        // Once this is accepted, all before are: a queue that is full would be asked again after a second.
        if n % 200 == 0 {
            get(service.address(), "/healthz");
        }
    }
    let grown = memory(&service).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    drop(held);
    while get(service.address(), "/healthz").status != 200 {}
    service.stop();
}

/// Values and scans whose callers take nothing of them hold no more than `limits.bodies`.
#[cfg(target_os = "linux")]
#[test]
fn slow_readers_of_large_answers_keep_memory_flat() {
    const VALUE: usize = 24 << 20;
    let folder = Folder::new(
        "stores: { main: { backend: { sqlite: { path: data.db } } } }
serve: [ { listen: '127.0.0.1:0', stores: write, limits: { bodies: 64MiB } } ]
",
    );
    let service = Service::start(&folder, &[], |_| ());
    let address = service.address();
    let put = ask(address, "PUT /v1/stores/main/kv/k", &[], vec![b'x'; VALUE]);
    assert_eq!(put.status, 204, "{}", put.text());
    assert_eq!(get(address, "/v1/stores/main/kv/k").body.len(), VALUE);
    let before = memory(&service);
    let mut held = Vec::new();
    let mut begun = 0;
    for n in 0..32 {
        let path = if n % 2 == 0 { "kv/k" } else { "kv" };
        let mut stream = connect(address);
        let request = format!("GET /v1/stores/main/{path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        match &status {
            b"HTTP/1.1 200" => begun += 1,
            refused => assert_eq!(refused, b"HTTP/1.1 503"),
        }
        held.push(stream);
    }
    // Without the limit it would be 768 MiB and more.
    let grown = memory(&service).saturating_sub(before);
    assert!((1..8).contains(&begun) && grown < 256 << 20, "{begun} answers, {grown} bytes more");
    assert_eq!(get(address, "/readyz").status, 200);
    drop(held);
    while get(address, "/v1/stores/main/kv/k").status != 200 {}
    service.stop();
}

#[test]
fn a_socket_that_was_handed_over_is_used() {
    // Without systemd, a shell hands over its third file.
    let Ok(python) = Command::new("python3").arg("--version").output() else {
        println!("left out: this needs python3");
        return;
    };
    assert!(python.status.success());
    let folder = Folder::new("stores: { main: { backend: memory } }\n");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hand_over = "import os, socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.environ['LISTEN_FDS'] = '1'; os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])";
    let start = |listen: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", hand_over, &free.port().to_string(), env!("CARGO_BIN_EXE_tierstack")]);
        command.args(["serve", "--listen", listen]).current_dir(folder.path("."));
        let piped = std::process::Stdio::piped;
        command.stdin(std::process::Stdio::null()).stdout(piped()).stderr(piped()).spawn().unwrap()
    };
    let mut child = start(&free.to_string());
    let out = BufReader::new(child.stdout.take().unwrap());
    let err = child.stderr.take();
    let mut service = Service { child, out, err, addresses: Vec::new() };
    service.until("serving ");
    assert_eq!(service.address(), free);
    assert_eq!(get(free, "/healthz").text(), "ok\n");
    service.stop();
    // One that no listener has.
    let output = start("127.0.0.1:0").wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("has handed over a socket at 127.0.0.1:"), "{err}");
}

/// What a cache holds, by its own account.
fn bytes_of_the_cache(address: SocketAddr) -> u64 {
    let text = get(address, "/metrics").text();
    let line = text.lines().find(|line| line.starts_with("tierstack_cache_bytes{")).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_hangup_changes_the_capacity_of_a_cache_where_the_engine_can() {
    let config = |capacity: &str, other: &str| {
        format!(
            "stores:\n  main: {{ layers: [ cache: {{ {capacity} on_write: keep }} ], backend: memory }}\n  other: {{ layers: [ cache: {{ capacity: {other}, policy: tiny_lfu }} ], backend: {{ memory: {{}} }} }}\ndefault: main\nserve: [ {{ listen: '127.0.0.1:0', stores: write }} ]\n"
        )
    };
    let folder = Folder::new(&config("capacity: 1MiB,", "1MiB"));
    let mut service = Service::start(&folder, &[], |_| ());
    let address = service.address();
    let fill = || {
        for n in 0..40 {
            let line = format!("PUT /v1/stores/main/kv/{n}");
            assert_eq!(ask(address, &line, &[], vec![b'x'; 10_000]).status, 204);
            assert_eq!(get(address, &format!("/v1/stores/main/kv/{n}")).status, 200);
        }
        bytes_of_the_cache(address)
    };
    assert!(fill() > 300_000);
    folder.write("tierstack.yaml", config("capacity: 128KiB,", "2MiB"));
    service.signal("-HUP");
    let said = service.says("restart only");
    assert!(said.contains("the capacities of caches are taken over\n"), "{said}");
    assert!(said.contains("restart only: stores.other\n"), "{said}");
    assert!(bytes_of_the_cache(address) <= 128 << 10);
    assert!(fill() <= 128 << 10);
    // The capacity of a cache that does not say one, and the one from before once more.
    for capacity in ["", "capacity: 1MiB,"] {
        folder.write("tierstack.yaml", config("capacity: 128KiB,", "1MiB"));
        service.signal("-HUP");
        service.says("are taken over");
        folder.write("tierstack.yaml", config(capacity, "1MiB"));
        service.signal("-HUP");
        service.says("are taken over");
        assert!(fill() > 300_000, "{capacity}");
    }
    folder.write("tierstack.yaml", config("capacity: 1KiB,", "1MiB"));
    service.signal("-HUP");
    let said = service.says("nothing was taken over");
    assert!(said.contains("must be at least 64KiB"), "{said}");
    service.stop();
}

#[test]
fn with_the_level_debug_an_answer_is_a_line_that_names_the_token() {
    let folder = Folder::new(&with_token(", log: debug"));
    folder.write("app.token", TOKEN);
    let service = Service::start(&folder, &[], |_| ());
    let bearer = format!("authorization: Bearer {TOKEN}");
    let line = "GET /v1/stores/main/kv/a-secret-key";
    assert_eq!(ask(service.address(), line, &[&bearer], "").status, 404);
    let err = service.stop();
    let line = err.lines().find(|line| line.contains("answered")).unwrap();
    for words in ["app", "GET", "404"] {
        assert!(line.contains(words), "{line}");
    }
    assert!(!err.contains("a-secret-key") && !err.contains(TOKEN), "{err}");
}

/// And not since the first look at it.
#[test]
fn a_status_says_since_when_the_process_serves() {
    let folder = Folder::new(PLAIN);
    let service = Service::open(&folder);
    for _ in 0..3 {
        get(service.address(), "/healthz");
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let status = get(service.address(), "/v1/status").text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["process"]["started_at"].as_u64().unwrap() < now, "{status}");
    service.stop();
}

/// What `check` predicts is what Prometheus finds.
#[test]
fn as_many_series_are_scraped_as_check_predicts() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let folder = Folder::new(&format!(
        "stores:
  main: {{ layers: [cache: {{}}, compress: {{}}], backend: {{ sqlite: {{ path: data.db }} }} }}
  side: {{ backend: memory }}
default: main
serve:
  - {{ listen: '127.0.0.1:0', stores: write }}
  - listen: 127.0.0.1:0
    stores: {{ side: read }}
    tls: {{ cert: '{files}/first.pem', key: '{files}/first.key' }}
"
    ));
    let predicted = folder.run(&["check", "--json"]).ok().json()["series"].as_u64().unwrap();
    let service = Service::start(&folder, &[], |_| ());
    let address = service.address();
    for path in ["/v1/stores/main/kv/k", "/v1/stores/side/kv", "/", "/v1/status", "/nowhere"] {
        get(address, path);
    }
    let text = get(address, "/metrics").text();
    let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(series.len() as u64, predicted, "{text}");
    service.stop();
}

#[test]
fn status_is_asked_over_tls_with_a_token() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let tls = format!("tls: {{ cert: '{files}/first.pem', key: '{files}/first.key' }}, tokens:");
    let folder = Folder::new(&with_token("").replace("tokens:", &tls));
    folder.write("app.token", TOKEN);
    folder.write("other.token", "0123456789abcdef-other");
    let service = Service::start(&folder, &[], |_| ());
    let url = format!("https://{}", service.address());
    let ask = |token: &[&str], trusted: &str| {
        let mut command = folder.command(&[&["status", "--json", "--url", &*url], token].concat());
        let output = command.env("SSL_CERT_FILE", format!("{files}/{trusted}")).output().unwrap();
        let (out, err) = (output.stdout, output.stderr);
        (output.status.code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let token = ["--token", "file:app.token"];
    let (code, out, err) = ask(&token, "first.pem");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\"main\"") && !out.contains(TOKEN), "{out}");
    for (token, trusted, words) in [
        (&[][..], "first.pem", "asks for a token"),
        (&["--token", "file:other.token"], "first.pem", "does not know the token"),
        (&token, "second.pem", "cannot be reached"),
    ] {
        let (code, out, err) = ask(token, trusted);
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(err.contains(words) && !err.contains("0123456789abcdef"), "{err}");
    }
    service.stop();
}
