//! The description of the admin API: a document of its own, behind the admin token like the rest.

use actix_web::web;
use utoipa::OpenApi;

use super::{actors, live, nodes};
use crate::http::openapi::{Bearer, Problem};

/// Where the description is.
pub const ADMIN_SPEC_PATH: &str = "/admin/v1/openapi.json";

static SECURITY: Bearer = Bearer("admin", None);

/// The description.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Listen Stream, administration",
        description = "Shows the actors of this node, and ends their lives; lists the nodes. On the admin listener, \
            with the admin token. Errors are `application/problem+json` with a stable `code`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(actors::list, actors::show, actors::stop, actors::restart, live::live, nodes::list, spec),
    components(schemas(Problem)),
    modifiers(&SECURITY),
)]
pub struct AdminDoc;

/// This description.
#[utoipa::path(get, path = "/admin/v1/openapi.json", tag = "actors", security(("admin" = [])),
    responses((status = 200, description = "OpenAPI 3.1"),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem)))]
async fn spec() -> web::Json<utoipa::openapi::OpenApi> {
    web::Json(AdminDoc::openapi())
}

/// Registers the route.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/openapi.json").route(web::get().to(spec)));
}
