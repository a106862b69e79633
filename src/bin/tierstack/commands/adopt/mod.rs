//! `adopt`: what a store is that is there already, and a config that opens it as it is. It changes nothing.

mod candidates;
mod target;
mod text;
mod trial;

use tierstack::survey::Part;

use crate::args::Adopt;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::shutdown::Shutdown;

use self::target::Target;
use self::text::Store;

/// Tables for which settings are looked for.
const MOST: usize = 50;

/// `tierstack adopt`.
pub(crate) async fn run(args: &Adopt, stop: &Shutdown) -> Outcome {
    let (target, survey) = tokio::select! {
        biased;
        found = Target::look(args) => found?,
        () = stop.wait() => return Err(Failure::stopped("nothing was changed")),
    };
    let (mut stores, mut refused) = (Vec::new(), Vec::new());
    for part in survey.parts.iter().take(MOST) {
        let opened = tokio::select! {
            biased;
            opened = first_that_opens(&target, part, &stores) => opened,
            () = stop.wait() => return Err(Failure::stopped("nothing was changed")),
        };
        match opened {
            Ok(store) => stores.push(store),
            Err(why) => refused.push((part, why)),
        }
    }
    let left = survey.parts.len().saturating_sub(MOST);
    output::text(&text::report(&args.target, &target, &survey, &stores, &refused, left))?;
    if stores.is_empty() {
        return Err(Failure::failed("nothing of it opens as it is")
            .next("see the reasons above; what they name can be changed by its owner"));
    }
    Ok(())
}

/// The first settings by which the part opens, or why the likely ones do not.
async fn first_that_opens(target: &Target, part: &Part, others: &[Store]) -> Result<Store, String> {
    let mut why = None;
    for candidate in candidates::candidates(target.backend, part) {
        let store = Store::new(target, part, candidate, others);
        match trial::opens(target, &store).await {
            Ok(()) => return Ok(store),
            Err(error) => why = why.or(Some(error.message().to_owned())),
        }
    }
    Err(why.unwrap_or_else(|| candidates::NO_KEY.to_owned()))
}
