//! `limit`: a bound on concurrent operations.
