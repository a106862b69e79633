//! `tierstack keys`: entries of the key ring that `encrypt` reads.

use serde::Serialize;

use tierstack::codec::KeyRing;

use crate::args::Keys;
use crate::failure::Outcome;
use crate::output;

#[derive(Serialize)]
struct Generated<'a> {
    entry: &'a str,
}

/// `tierstack keys generate`: the whole output is a valid key ring, its last line the entry.
pub(crate) fn run(args: &Keys) -> Outcome {
    let Keys::Generate(args) = args;
    let entry = KeyRing::generate()?;
    output::fact(args.json, &Generated { entry: entry.expose() }, || {
        format!(
            "# A key for `encrypt: {{ keys: {{ env: NAME }} }}` or `{{ file: PATH }}`. To rotate, put it\n\
             # before the entries that are there, and run `tierstack rewrite`.\n\
             # Keep a copy away from the store: what is sealed with it, older backups too, is lost\n\
             # without it.\n{}",
            entry.expose()
        )
    })
}
