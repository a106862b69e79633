//! `read_only`: writes refused.
