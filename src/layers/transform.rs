//! What `compress` and `encrypt` share: a store whose values are encoded below and decoded above.
