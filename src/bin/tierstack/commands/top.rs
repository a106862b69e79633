//! `top`: the layers of a running process, painted again each second.

use std::io::Read;
use std::time::Duration;

use tokio::sync::oneshot;

use tierstack::{Clock, SystemClock};

use super::status::numbers;
use crate::args::ProcessArgs;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::process::Process;
use crate::shutdown::Shutdown;
use crate::terminal::Screen;

const SECOND: Duration = Duration::from_secs(1);

/// `tierstack top`: in a terminal until it is ended, elsewhere once.
pub(crate) async fn run(args: &ProcessArgs, stop: &Shutdown) -> Outcome {
    let mut process = stop.or(Process::reach(args)).await?;
    // What is wrong from the start is told where it stays readable.
    let first = numbers(&stop.or(process.facts()).await?);
    let Some(screen) = Screen::open().map_err(Failure::output)? else {
        return output::text(&first);
    };
    let paint = |text: &str, below: &str| {
        screen.paint(&format!("{text}\n{below}")).map_err(Failure::output)
    };
    paint(&first, "q quits")?;
    tokio::select! {
        biased;
        // To end is what a person came to do at last: no failure.
        () = stop.wait() => Ok(()),
        () = quit() => Ok(()),
        failed = watch(args, process, first, &paint) => failed,
    }
}

/// Goes on when the process goes away, as it may come back.
async fn watch(
    args: &ProcessArgs,
    process: Process,
    mut text: String,
    paint: &impl Fn(&str, &str) -> Outcome,
) -> Outcome {
    let mut process = Some(process);
    loop {
        SystemClock.sleep(SECOND).await;
        let asked = async {
            let mut now = match process.take() {
                Some(process) => process,
                None => Process::reach(args).await?,
            };
            let facts = now.facts().await?;
            process = Some(now);
            Ok::<_, Failure>(facts)
        };
        match asked.await {
            Ok(facts) => {
                text = numbers(&facts);
                paint(&text, "q quits")?;
            }
            Err(failure) => {
                let why = failure.to_string();
                let why = why.lines().next().unwrap_or_default().trim_start_matches("error: ");
                paint(&text, &format!("NO CONNECTION, the numbers are old: {why}\nq quits"))?;
            }
        }
    }
}

/// Returns when `q` is pressed. Without a keyboard, never.
async fn quit() {
    let (tell, pressed) = oneshot::channel();
    // A read of standard input cannot be given up; the thread ends with the command.
    std::thread::spawn(move || {
        let mut keys = std::io::stdin().lock().bytes().map_while(std::io::Result::ok);
        if keys.any(|key| key.eq_ignore_ascii_case(&b'q')) {
            // The command may be over.
            let _ = tell.send(());
        }
    });
    if pressed.await.is_err() {
        std::future::pending().await
    }
}
