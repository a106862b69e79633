//! `tierstack demo`: the main job on real input, with real figures.

mod counters;
mod files;
mod setup;
mod steps;
mod story;

pub(crate) use self::story::run;
