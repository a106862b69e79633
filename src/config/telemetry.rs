//! The section `telemetry`: where metrics are served.

use std::net::SocketAddr;

use serde::Deserialize;

use super::setting::address;

/// Telemetry of the process.
///
/// ```
/// use tierstack::config::{Config, Format};
///
/// let text = r#"{"stores": {"main": {"backend": "memory"}}, "telemetry": {"listen": "[::1]:9187"}}"#;
/// let config = Config::parse(text, Format::Json, "tierstack.json")?;
/// assert_eq!(config.telemetry.unwrap().listen.port(), 9187);
///
/// let refused = Config::parse(&text.replace("::1", "::"), Format::Json, "tierstack.json").unwrap_err();
/// assert!(refused.to_string().contains("`anyone: true`"));
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct TelemetryConfig {
    /// The address and port on which Prometheus text is served, such as `127.0.0.1:9187`.
    pub listen: SocketAddr,
    /// Whether an address that other machines reach may be listened on. There is no token: any client there reads
    /// the names of the stores and how much they are used, and no keys and no values.
    pub anyone: bool,
}

/// As it is in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(deserialize_with = "address")]
    listen: SocketAddr,
    #[serde(default)]
    anyone: bool,
}

impl TryFrom<Written> for TelemetryConfig {
    type Error = String;

    fn try_from(Written { listen, anyone }: Written) -> Result<Self, String> {
        if !anyone && !listen.ip().to_canonical().is_loopback() {
            return Err(format!(
                "{listen} is reached from other machines, and any client there can read the metrics; listen on 127.0.0.1, or add `anyone: true` where that is meant"
            ));
        }
        Ok(Self { listen, anyone })
    }
}
