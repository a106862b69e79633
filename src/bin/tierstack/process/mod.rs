//! A running process that is asked what its stores do: on its control socket, or over HTTP.

#[cfg(feature = "serve")]
mod http;

use tierstack::config::Config;
use tierstack::control::Client;
use tierstack::status::Facts;

use crate::args::ProcessArgs;
use crate::failure::{Failure, Outcome};

/// How a process is asked, and for which store.
pub(crate) struct Process {
    asked: Asked,
    store: Option<String>,
}

enum Asked {
    Control(Client),
    #[cfg(feature = "serve")]
    Http(Box<http::Address>),
}

impl Process {
    /// Finds the way to the process.
    pub(crate) async fn reach(args: &ProcessArgs) -> Outcome<Self> {
        let asked = match &args.url {
            Some(url) => over_http(url, args).await?,
            None => on_socket(args).await?,
        };
        Ok(Self { asked, store: args.store.clone() })
    }

    /// What its stores do now.
    pub(crate) async fn facts(&mut self) -> Outcome<Facts> {
        let facts = match &mut self.asked {
            Asked::Control(client) => client.status().await?,
            #[cfg(feature = "serve")]
            Asked::Http(address) => address.facts().await?,
        };
        let Some(store) = &self.store else { return Ok(facts) };
        let names: Vec<_> = facts.stacks.iter().map(|stack| stack.name.clone()).collect();
        if !names.contains(store) {
            let what = format!("the process has no store '{store}'; it has {}", names.join(", "));
            return Err(Failure::usage(what));
        }
        Ok(facts.only(|name| name == store))
    }
}

async fn on_socket(args: &ProcessArgs) -> Outcome<Asked> {
    let config = Config::load(&args.config)?;
    let Some(path) = config.control() else {
        let what = format!(
            "{}: there is no `control`, so no process of it can be asked",
            args.config.display()
        );
        return Err(Failure::usage(what)
            .next("add `control: ./tierstack.sock`, and start the process again; or ask its server with --url"));
    };
    match Client::connect(&path).await? {
        Some(client) => Ok(Asked::Control(client)),
        None => Err(Failure::failed(format!("no process listens on {}", path.display()))
            .next("start the process that runs the stores")),
    }
}

#[cfg(feature = "serve")]
async fn over_http(url: &str, args: &ProcessArgs) -> Outcome<Asked> {
    let token = match &args.token {
        Some(token) => Some(token.load().await?),
        None => None,
    };
    Ok(Asked::Http(Box::new(http::Address::parse(url, token)?)))
}

#[cfg(not(feature = "serve"))]
async fn over_http(_: &str, _: &ProcessArgs) -> Outcome<Asked> {
    Err(Failure::usage("this build asks no server; build tierstack with the cargo feature 'serve'"))
}
