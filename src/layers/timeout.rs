//! `timeout`: a deadline for every operation.
