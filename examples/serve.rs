//! A program that serves stores of its own: those of a config, or any other.
//!
//! ```sh
//! cargo run --release --features full --example serve -- tierstack.yaml 127.0.0.1:9187
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tierstack::config::{Config, Registry, ServeConfig};
use tierstack::serve::{Server, Stores};
use tierstack::{OpenOptions, Result, Stacks, StoreErrors};

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(config), Some(Ok(address))) = (args.next(), args.next().map(|text| text.parse()))
    else {
        eprintln!("usage: serve CONFIG IP:PORT");
        return ExitCode::from(2);
    };
    match run(&config, address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &str, address: std::net::SocketAddr) -> Result<()> {
    let config = Config::load(config)?;
    // From here on it answers; requests for stores with 503 until they are open.
    let server = Server::listen(&ServeConfig::at(address), config.folder()).await?;
    let options = OpenOptions::service();
    let stacks = Arc::new(Stacks::open_all(&config, &Registry::standard(), &options).await?);
    server.open(Stores::of(&stacks));
    println!("serving at http://{address}, until ctrl-C");
    // Without signals it serves on.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    let left = server.drain(tokio::time::sleep(Duration::from_secs(30))).await;
    println!("{} requests were cut off", left.requests);
    // Once nothing asks for them any more.
    stacks.close_all().await.map_err(StoreErrors::into_error)
}
