//! `cache`: a fast answer that is never an old one.
