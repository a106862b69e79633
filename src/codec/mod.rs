//! Bytes in, bytes out: frames, compression, sealing, key rings.
