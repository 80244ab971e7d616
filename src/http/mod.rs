//! The HTTP surface: parses, checks who is calling, asks once, and maps the answer.
//!
//! Imports the domain, the actors' handles and the metrics; never the store.

pub mod error;
pub mod headers;
pub mod health;
pub mod json;
pub mod limit;
pub mod openapi;
pub mod request_id;
pub mod stack;

#[cfg(test)]
pub(crate) mod testing;
