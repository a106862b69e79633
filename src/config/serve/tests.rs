use super::{ListenerConfig, ServeConfig};
use crate::config::{Config, Format};

fn parse(serve: &str) -> Result<ServeConfig, String> {
    let text = format!("{{ stores: {{ orders: {{ backend: memory }} }}, serve: {serve} }}");
    let config = Config::parse(&text, Format::Yaml, "tierstack.yaml");
    config.map(|config| config.serve.unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_list_of_listeners_and_settings_with_it_are_the_same() {
    let listener = "{ listen: '127.0.0.1:9187', http: true, stores: { orders: write } }";
    let list = parse(&format!("[{listener}]")).unwrap();
    assert_eq!(list, parse(&format!("{{ listeners: [{listener}] }}")).unwrap());
    let found: Vec<&ListenerConfig> = list.listeners.iter().collect();
    assert_eq!(found.len(), 1);
    let longer = parse(&format!("{{ drain: 5s, listeners: [{listener}] }}")).unwrap();
    assert_eq!(longer.listeners, list.listeners);
    assert_ne!(longer.drain, list.drain);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, place, what) in [
        ("[{ listen: here, stores: read }]", "serve[0].listen", "IP:PORT"),
        (
            "[{ listen: '127.0.0.1:1', http: false, stores: read }]",
            "serve[0]",
            "without a protocol",
        ),
        ("[{ listen: '127.0.0.1:1', stores: wirte }]", "serve[0].stores", "read, write, admin"),
        ("{ listeners: [{ listen: here, stores: read }] }", "serve.listeners[0].listen", "IP:PORT"),
        ("{ listener: [] }", "serve", "listeners"),
        ("yes", "serve", "a list of listeners"),
        ("[]", "serve", "one"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(place) && error.contains(what), "{text}: {error}");
    }
}
