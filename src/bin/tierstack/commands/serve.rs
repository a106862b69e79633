//! `tierstack serve`: the stores of a config, open and served until somebody asks for the end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tierstack::config::{Config, Registry, ServeConfig};
use tierstack::control::Control;
use tierstack::serve::{Left, Server, Stores};
use tierstack::{OpenOptions, Stack, Stacks};
use tokio::time::sleep;

use super::reload::{self, Hangups};
use super::serve_section::section;
use crate::args::Serve;
use crate::failure::{Failure, Outcome};
use crate::output::{self, say};
use crate::shutdown::Shutdown;
use crate::{log, supervisor};

/// How long stores may still take to open when the command is to end.
const OPENING: Duration = Duration::from_secs(3);
/// How long stores may take to close.
const CLOSING: Duration = Duration::from_secs(60);

/// `tierstack serve`
pub(crate) async fn run(args: Serve, stop: &Shutdown) -> Outcome {
    let mut hangups = Hangups::listen();
    let mut config = Config::load(&args.config)?;
    // What is bound from here on is released in an orderly way.
    stop.hear();
    let serve = section(&config, args.listen)?;
    let registry = Registry::standard();
    // Before anything is bound: what is wrong in the file ends with 2.
    Stack::check_all(&config, &registry)?;
    log::set_level(serve.log.as_str());
    config.listen()?;
    raise_file_limit();
    let server = Server::listen(&serve, config.folder()).await?;
    for (listener, address) in serve.listeners.iter().zip(server.addresses()) {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        match address {
            Some(address) => output::line(format!("listening on {scheme}://{address}"))?,
            None => output::line(format!("listening on {}", listener.place))?,
        }
    }
    supervisor::status("opening the stores");
    let Some(stacks) = open(&config, &registry, stop).await? else {
        server.drain(std::future::ready(())).await;
        return Err(Failure::stopped("the stores were not open yet, and nothing was served"));
    };
    let stacks = Arc::new(stacks);
    let served =
        serve_until_stopped(&args, &mut config, &serve, server, &stacks, &mut hangups, stop);
    let served = served.await;
    let closed = close(&stacks).await;
    match (served, closed) {
        (served, Ok(())) => served,
        (Ok(()), Err(closing)) => Err(closing),
        (Err(failure), Err(closing)) => Err(failure.also(closing)),
    }
}

/// Opens the stores that can be opened. `None`: the end was asked for before.
async fn open(config: &Config, registry: &Registry, stop: &Shutdown) -> Outcome<Option<Stacks>> {
    let options = OpenOptions::service();
    let mut opening = pin!(Stacks::open_each(config, None, registry, &options));
    let stacks = tokio::select! {
        biased;
        stacks = &mut opening => stacks?,
        () = stop.wait() => {
            // An engine is opened by a thread of its own, which the end of the process would tear apart.
            if let Ok(Ok(stacks)) = tokio::time::timeout(OPENING, opening).await {
                close(&stacks).await?;
            }
            return Ok(None);
        }
    };
    let Some(failed) = stacks.failed() else { return Ok(Some(stacks)) };
    if stacks.iter().next().is_none() {
        return Err(failed.into_error().into());
    }
    for (name, error) in failed.by_store() {
        say(format!("the store '{name}' was not opened, and is answered with 503: {error}"));
    }
    Ok(Some(stacks))
}

async fn serve_until_stopped(
    args: &Serve,
    config: &mut Config,
    serve: &ServeConfig,
    server: Server,
    stacks: &Arc<Stacks>,
    hangups: &mut Hangups,
    stop: &Shutdown,
) -> Outcome {
    let control = Control::of(config, stacks.iter());
    let control = match control {
        Ok(control) => control,
        Err(error) => {
            server.drain(std::future::ready(())).await;
            return Err(error.into());
        }
    };
    server.open(Stores::of(stacks));
    let names: Vec<_> = stacks.iter().map(Stack::name).collect();
    let serving = format!("serving {}", names.join(", "));
    output::line(&serving)?;
    supervisor::ready(&serving);
    let mut drain = serve.drain.0;
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => break,
            () = hangups.next() => {
                supervisor::reloading();
                match reload::run(args, config, &server, stacks).await {
                    Ok(serve) => drain = serve.drain.0,
                    Err(failure) => say(format!("nothing was taken over: {failure}")),
                }
                supervisor::ready(&serving);
            }
            () = supervisor::watch() => {}
        }
    }
    supervisor::stopping();
    // It would go on to answer, of stores that are about to close.
    drop(control);
    let cut = async {
        tokio::select! {
            () = sleep(drain) => {}
            () = stop.hurry() => {}
        }
    };
    match server.drain(cut).await {
        Left { requests: 0, .. } => Ok(()),
        Left { requests, .. } => {
            let what = output::counted(requests as u64, "request was", "requests were");
            Err(Failure::failed(format!("{what} cut off before the answer was sent"))
                .next("a write among them may or may not have taken effect; `serve.drain` is how long they may take"))
        }
    }
}

/// Closes the stores, within a time.
async fn close(stacks: &Stacks) -> Outcome {
    supervisor::extend(CLOSING);
    let closing = stacks.close_all();
    match tokio::time::timeout(CLOSING, closing).await {
        Ok(closed) => closed.map_err(|errors| errors.into_error().into()),
        Err(_) => Err(Failure::failed(format!("the stores were not closed within {CLOSING:?}"))
            .next("what was acknowledged as durable is kept; the rest is as after a crash")),
    }
}

/// Each connection is an open file, and so is each file of an engine: as many as the system allows, not as few as it
/// begins with.
#[cfg(unix)]
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // It stays as it is where the system refuses.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(not(unix))]
fn raise_file_limit() {}
