//! x
mod files;
mod replay;
use crate::failure::{Failure, Outcome};
pub(crate) async fn run(_: crate::args::Demo, _: &crate::stop::Stop) -> Outcome { Err(Failure::failed("x")) }
