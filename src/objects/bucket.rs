//! Opening a bucket with its provider's client, by the environment and the options.

use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use super::connection::Connection;
#[cfg(feature = "object")]
use super::wire::Wire;
use crate::error::{Error, Result};

/// A client from the environment and the options.
macro_rules! client {
    ($builder:ty, $key:ty, [$($endpoint:ident),+], $connection:expr) => {{
        let connection: &Connection = $connection;
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: connection.retries,
            retry_timeout: connection.retry_for,
        };
        let timeout = <$key>::Client(ClientConfigKey::Timeout);
        let mut builder = <$builder>::from_env()
            .with_config(timeout, format!("{}ms", connection.timeout.as_millis()))
            .with_retry(retry);
        for (name, value) in &connection.options {
            let key: $key = name.to_ascii_lowercase().parse().map_err(|_| {
                Error::config(format!(
                    "`options.{name}` is not known; options are named as in `object_store`, such as endpoint, region, allow_http"
                ))
            })?;
            builder = builder.with_config(key, value.expose());
        }
        check_http(
            &[$(builder.get_config_value(&<$key>::$endpoint)),+],
            builder.get_config_value(&<$key>::Client(ClientConfigKey::AllowHttp)),
        )?;
        builder
    }};
}

/// The client would only say that it cannot build a request, again and again.
fn check_http(endpoints: &[Option<String>], allowed: Option<String>) -> Result<()> {
    let is_plain =
        endpoints.iter().flatten().any(|url| url.to_ascii_lowercase().starts_with("http://"));
    let allowed = allowed.is_some_and(|value| {
        matches!(&*value.to_ascii_lowercase(), "1" | "true" | "on" | "yes" | "y")
    });
    if is_plain && !allowed {
        return Err(Error::config(
            "the endpoint begins with http://, so that nothing on the way to it is encrypted; write https://, or allow it by the option `allow_http: true` (in the environment, AWS_ALLOW_HTTP=true)",
        ));
    }
    Ok(())
}

pub(super) fn open(
    scheme: &str,
    bucket: &str,
    path: &str,
    connection: &Connection,
) -> Result<Arc<dyn ObjectStore>> {
    // The client's words may quote an option, so they are not kept.
    let wrong = |_: object_store::Error| {
        Error::config(format!(
            "{scheme}://{bucket} cannot be opened with these options and this environment"
        ))
    };
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => {
            let builder =
                client!(AmazonS3Builder, AmazonS3ConfigKey, [Endpoint, S3Endpoint], connection);
            let builder = builder.with_bucket_name(bucket);
            Arc::new(open_s3(builder, connection).map_err(wrong)?)
        }
        "gs" => {
            let builder =
                client!(GoogleCloudStorageBuilder, GoogleConfigKey, [BaseUrl], connection);
            #[cfg(feature = "object")]
            let builder = builder.with_http_connector(Wire::default());
            Arc::new(builder.with_bucket_name(bucket).build().map_err(wrong)?)
        }
        _ => {
            let builder = client!(MicrosoftAzureBuilder, AzureConfigKey, [Endpoint], connection);
            #[cfg(feature = "object")]
            let builder = builder.with_http_connector(Wire::default());
            Arc::new(builder.with_container_name(bucket).build().map_err(wrong)?)
        }
    };
    let path = Path::parse(path).map_err(|error| {
        Error::config(format!("'{path}' cannot be a path in a bucket")).with_source(error)
    })?;
    Ok(Arc::new(PrefixStore::new(store, path)))
}

#[cfg(not(feature = "object"))]
fn open_s3(builder: AmazonS3Builder, _: &Connection) -> object_store::Result<AmazonS3> {
    builder.build()
}

#[cfg(feature = "object")]
fn open_s3(builder: AmazonS3Builder, connection: &Connection) -> object_store::Result<AmazonS3> {
    let wire = Wire::default();
    let signer = Arc::clone(&wire.signer);
    let builder = builder.with_http_connector(wire);
    let client = if connection.foreign {
        // In a list of names to remove, they would not be as they are.
        builder.with_disable_bulk_delete(true).build()?
    } else {
        builder.build()?
    };
    let _ = signer.set(Arc::clone(client.credentials()));
    Ok(client)
}
