//! The examples of `docs/services.md`, played.
