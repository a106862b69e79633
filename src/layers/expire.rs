//! `expire`: entries with a deadline.
