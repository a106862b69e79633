//! A process that can be reached: `tierstack inspect` shows what its cache keeps, `tierstack cache invalidate`
//! makes it forget.
//!
//! Reads a key through the stack for each line that it is given, and prints the value and how it came. In
//! one terminal
//!
//! ```sh
//! cargo run --release --features full --example control -- tierstack.yaml
//! ```
//!
//! with a config that has `control: ./orders.sock` and a `cache`, and in another `tierstack inspect user:1`.

use std::process::ExitCode;

use tierstack::config::{Config, Registry};
use tierstack::control::Control;
use tierstack::{OpenOptions, Reply, Result, Stack};

#[tokio::main]
async fn main() -> ExitCode {
    let Some(config) = std::env::args().nth(1) else {
        eprintln!("usage: control CONFIG");
        return ExitCode::from(2);
    };
    match run(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &str) -> Result<()> {
    let config = Config::load(config)?;
    let options = OpenOptions::service();
    let stack = Stack::open(&config, None, &Registry::standard(), &options).await?;
    // One call. The socket is there until this is dropped.
    let _control = Control::of(&config, [&stack])?;
    // The lines are waited for in a thread of their own, so that the runtime goes on.
    let (send, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        std::io::stdin()
            .lines()
            .map_while(std::io::Result::ok)
            .all(|line| send.blocking_send(line).is_ok())
    });
    while let Some(key) = lines.recv().await {
        let reply = stack.get(key.as_bytes());
        let how = if matches!(reply, Reply::Now(_)) { "from memory" } else { "from below" };
        match reply.await {
            Ok(Some(value)) => println!("{} ({how})", value.bytes.escape_ascii()),
            Ok(None) => println!("no such key ({how})"),
            Err(error) => println!("{error}"),
        }
    }
    stack.close().await
}
