//! The section `serve`: what is taken, and what is refused with which words.

use crate::folder::Folder;

const STORES: &str =
    "stores: { orders: { backend: memory }, archive: { backend: memory } }\ndefault: orders\n";

fn check(serve: &str) -> crate::folder::Ran {
    Folder::new(&format!("{STORES}serve: {serve}\n")).run(&["check"])
}

#[test]
fn what_is_right_is_taken() {
    for serve in [
        "{ listeners: [ { listen: '127.0.0.1:9187', stores: write } ] }",
        "{ listeners: [ { listen: '[::1]:0', stores: { orders: admin } } ], drain: 5s, log: info }",
        "{ listeners: [ { listen: '127.8.8.8:1', stores: {} }, { unix: s.sock, mode: '0660', stores: read } ] }",
        "{ listeners: [ { listen: '0.0.0.0:1', stores: write, plain_text: true, tokens: [ { name: a, env: A } ] } ] }",
        "{ listeners: [ { listen: '[::]:1', stores: { orders: write }, tls: { cert: c, key: k }, tokens: [ { name: a, file: a, stores: { orders: read } } ] } ] }",
        "{ listeners: [ { listen: '127.0.0.1:0', stores: read, limits: { connections: 9, body: 1KiB, idle: 5s } }, { listen: '127.0.0.1:0', stores: read } ] }",
    ] {
        check(serve).ok();
    }
}

#[test]
fn what_is_wrong_is_refused_with_words_that_help() {
    let listener = |settings: &str| format!("{{ listeners: [ {{ {settings} }} ] }}");
    let open = "listen: '0.0.0.0:9187', stores: { orders: write }";
    let token = "tokens: [ { name: app, env: APP } ]";
    for (serve, words) in [
        (listener(open), "serve.listeners[0]: 0.0.0.0:9187 is reached from other machines, and any client there could write its stores; add `tokens:"),
        (listener("listen: '[::]:1', stores: read"), "could read its stores"),
        (listener("listen: '10.0.0.1:1', stores: {}"), "could see its metrics"),
        (listener(&format!("{open}, tls: {{ cert: c, key: k }}")), "add `tokens:"),
        (listener(&format!("{open}, plain_text: true")), "add `tokens:"),
        (listener(&format!("{open}, {token}")), "would cross the network in plain text; add `tls:"),
        ("{ listeners: [] }".to_owned(), "serve.listeners: the list is empty; write at least one"),
        ("{}".to_owned(), "serve: the setting 'listeners' is missing"),
        ("".to_owned(), "serve: expected a list of listeners such as"),
        (listener("stores: read"), "serve.listeners[0]: a listener has one place: write `listen:"),
        (listener("listen: '127.0.0.1:1', unix: s, stores: read"), "a listener has one place"),
        (listener("listen: '127.0.0.1:1', mode: '0660', stores: read"), "`mode` is of a socket's file"),
        (listener("unix: s, mode: '0999', stores: read"), "three octal digits"),
        (listener("unix: s, mode: '77', stores: read"), "three octal digits"),
        (listener("unix: s, stores: read, tls: { cert: c, key: k }"), "`tls` is for `listen`"),
        (listener("listen: '127.0.0.1:1'"), "serve.listeners[0]: the setting 'stores' is missing"),
        (listener("listen: localhost, stores: read"), "serve.listeners[0].listen: this is not an address; write IP:PORT"),
        (listener("listen: '127.0.0.1:1', stores: wrte"), "serve.listeners[0].stores: unknown value 'wrte'; did you mean 'write'? Allowed: read, write, admin"),
        (listener("listen: '127.0.0.1:1', stores: [ orders ]"), "serve.listeners[0].stores: expected `read`, `write` or `admin` for every store"),
        (listener("listen: '127.0.0.1:1', stores: { order: read }"), "serve.listeners[0].stores: unknown store 'order'; did you mean 'orders'? Allowed: archive, orders"),
        (listener("listen: '127.0.0.1:1', stores: { orders: rea }"), "serve.listeners[0].stores.orders: unknown value 'rea'"),
        (listener("listen: '127.0.0.1:1', store: read, stores: read"), "unknown setting 'store'; did you mean 'stores'?"),
        (listener("listen: '127.0.0.1:1', stores: read, tokens: [ { name: a } ]"), "serve.listeners[0].tokens[0]: a token must not be in the config"),
        (listener("listen: '127.0.0.1:1', stores: read, tokens: [ { name: a, env: A, file: b } ]"), "say where it is"),
        (listener("listen: '127.0.0.1:1', stores: read, tokens: [ { name: a, env: 'hunter2!' } ]"), "not the name of an environment variable"),
        (listener("listen: '127.0.0.1:1', stores: read, tokens: [ { name: 'a b', env: A } ]"), "serve.listeners[0].tokens[0].name: use 1 to 64"),
        (listener("listen: '127.0.0.1:1', stores: read, tokens: [ { name: a, env: A }, { name: a, env: B } ]"), "tokens[1].name: another token of this listener is called 'a'"),
        (listener("listen: '127.0.0.1:1', stores: read, tokens: [ { name: a, env: A, stores: write } ]"), "tokens[0].stores: no store is served here for more than `read`"),
        (listener("listen: '127.0.0.1:1', stores: { orders: read }, tokens: [ { name: a, env: A, stores: { orders: write } } ]"), "'orders' is served here for `read` at most"),
        (listener("listen: '127.0.0.1:1', stores: { orders: read }, tokens: [ { name: a, env: A, stores: { archive: read } } ]"), "'archive' is not served here"),
        (listener("listen: '127.0.0.1:1', stores: read, limits: { connections: 0 }"), "serve.listeners[0].limits.connections: 0 is outside 1 to 100000"),
        (listener("listen: '127.0.0.1:1', stores: read, limits: { idle: 10ms }"), "serve.listeners[0].limits.idle: 10ms is outside 1s to 1h"),
        ("{ listeners: [ { listen: '127.0.0.1:1', stores: read }, { listen: '127.0.0.1:1', stores: write } ] }".to_owned(), "serve.listeners[1]: another listener has 127.0.0.1:1 already"),
        ("{ listeners: [ { listen: '127.0.0.1:1', stores: read } ], drain: 2h }".to_owned(), "serve.drain: at most 1h"),
        ("{ listeners: [ { listen: '127.0.0.1:1', stores: read } ], log: inf }".to_owned(), "serve.log: unknown value 'inf'; did you mean 'info'?"),
    ] {
        let ran = check(&serve).refused().says(words);
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
    let both = "{ listeners: [ { listen: '127.0.0.1:9187', stores: read } ] }\ntelemetry: { listen: '127.0.0.1:9187' }";
    check(both).refused().says("telemetry.listen: a listener of `serve` has this address");
}

#[test]
fn the_command_needs_to_know_where() {
    let folder = Folder::new(STORES);
    folder
        .run(&["serve"])
        .refused()
        .says("there is no section `serve`; write one, or name an address");
    folder.run(&["serve", "--listen", "localhost"]).refused().says("invalid");
    let beyond = folder.run(&["serve", "--listen", "0.0.0.0:0"]);
    beyond.refused().says("is reached from other machines");
    let two = "serve: { listeners: [ { listen: '127.0.0.1:0', stores: read }, { unix: s, stores: read } ] }\n";
    folder.write("tierstack.yaml", format!("{STORES}{two}"));
    let several = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    several.refused().says("has 2 listeners, and --listen names the address of a single one");
    folder.write(
        "tierstack.yaml",
        format!("{STORES}serve: {{ listeners: [ {{ listen: '127.0.0.1:0', stores: read, tokens: [ {{ name: app, env: NO_SUCH_TOKEN }} ] }} ] }}\n"),
    );
    let missing = folder.run(&["serve"]).refused();
    missing.says("serve.listeners[0]: the token 'app'").says("NO_SUCH_TOKEN, which is not set");
}
