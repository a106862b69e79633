//! x
use crate::failure::{Failure, Outcome};
pub(crate) async fn run(_: crate::args::Backup, _: &crate::stop::Stop) -> Outcome { Err(Failure::failed("x")) }
