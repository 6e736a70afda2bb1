//! Shared parts of the reference binaries.
