//! Tuple keys that sort as their parts do.
