//! `compress`: values made smaller.
