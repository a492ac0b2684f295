//! Forged bytes.
