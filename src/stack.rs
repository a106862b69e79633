//! From a config to a checked, running stack.
