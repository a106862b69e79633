//! `metrics`: every operation counted and timed.
