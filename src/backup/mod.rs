//! Backups: consistent bases in object storage, verified and restored without any layer.
