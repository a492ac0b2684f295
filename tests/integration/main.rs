//! The integration tests: everything here goes through the public API and the stored bytes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test cannot go on without fails it")]

mod format;
mod invariants;
