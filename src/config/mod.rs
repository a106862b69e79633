//! The config file as types.
