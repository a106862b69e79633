//! `retry`: another attempt where it can help.
