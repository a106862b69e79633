//! `tierstack demo`: the main job on real input, with real figures.

mod counters;
mod files;
mod report;
mod setup;
mod steps;

pub(crate) use self::report::run;
