//! Transactions: money moves between two accounts of a store, concurrently with other processes that move it too.
//!
//! ```sh
//! tierstack put ada 100; tierstack put bob 100
//! cargo run --release --features full --example transfer -- tierstack.yaml ada bob 30
//! ```

use std::process::ExitCode;

use tierstack::config::{Config, Registry};
use tierstack::{Error, Isolation, OpenOptions, Read, Result, Stack, StoreExt, Transaction};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, from, to, amount] = arguments.as_slice() else {
        eprintln!("usage: transfer CONFIG FROM TO AMOUNT");
        return ExitCode::from(2);
    };
    let Ok(amount) = amount.parse() else {
        eprintln!("the amount is not a number, such as 30");
        return ExitCode::from(2);
    };
    match transfer(config, from, to, amount).await {
        Ok(left) => {
            println!("{from} has {left} left");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn transfer(config: &str, from: &str, to: &str, amount: u64) -> Result<u64> {
    let config = Config::load(config)?;
    let options = OpenOptions::default();
    let stack = Stack::open(&config, None, &Registry::standard(), &options).await?;
    // Runs again if another process was first, so it does nothing but read and write the transaction.
    let steps = |mut tx: Transaction| async move {
        let left = balance(&tx, from)
            .await?
            .checked_sub(amount)
            .ok_or_else(|| Error::invalid("there is not that much in the account"))?;
        tx.put(from.to_owned(), left.to_string())?;
        // Read after the first write, which it sees: `from` and `to` may be the same.
        let gets = balance(&tx, to).await? + amount;
        tx.put(to.to_owned(), gets.to_string())?;
        Ok((tx, left))
    };
    let (left, commit) = stack.store().transact(Isolation::Serializable, steps).await?;
    commit.durable().await?;
    stack.close().await?;
    Ok(left)
}

async fn balance(tx: &Transaction, account: &str) -> Result<u64> {
    let value = tx.get(account.as_bytes()).await?;
    let value = value.ok_or_else(|| Error::invalid("there is no such account"))?;
    let text = std::str::from_utf8(&value.bytes).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::invalid("an account holds no number"))
}
