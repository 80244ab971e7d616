//! What an operator asks: which actors there are, what they do, and to end their lives; which nodes there
//! are.
//!
//! On the admin listener only, under `/admin/v1`, behind the admin token (`guard.rs`). Each handler asks
//! the inspector, or the node keeper, once; nothing here looks at an actor itself.

mod actors;
mod guard;
mod live;
mod nodes;
mod openapi;
mod socket;

use actix_web::{middleware::from_fn, web};

pub use guard::{AdminAccess, AdminMetrics};
pub use openapi::{ADMIN_SPEC_PATH, AdminDoc};

/// Registers everything under `/admin/v1`; needs `Data<Graph>` and `Data<AdminAccess>`.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::scope("/admin/v1")
            .wrap(from_fn(guard::admit))
            .configure(actors::routes)
            .configure(live::routes)
            .configure(nodes::routes)
            .configure(openapi::routes)
            .default_service(web::to(super::error::fallback)),
    );
}
