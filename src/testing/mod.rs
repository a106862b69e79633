//! The conformance suite, the model test and the fault store.
