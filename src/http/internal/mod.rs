//! What other services of the operator's ask: to append events to logs, and what devices lack.
//!
//! On the internal listener only, under `/internal/v1`. Each handler names the scope that it needs by the
//! type of its caller (`access.rs`): one that forgets to does not compile.

mod access;
mod broadcasts;
mod events;
mod offline;
mod openapi;

use actix_web::web;

pub use access::ServiceAccess;
pub use openapi::{INTERNAL_SPEC_PATH, InternalDoc};

/// Registers everything under `/internal/v1`; needs `Data<Graph>` and `Data<ServiceAccess>`.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.configure(events::routes)
        .configure(broadcasts::routes)
        .configure(offline::routes)
        .configure(openapi::routes);
}
