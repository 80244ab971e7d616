//! The description of the admin API: a document of its own, behind the admin token like the rest.

use std::sync::LazyLock;

use actix_web::{HttpResponse, web};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        PathItem,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{actors, live, nodes};
use crate::http::{error::ApiError, openapi::Problem};

/// Where the description is.
pub const ADMIN_SPEC_PATH: &str = "/admin/v1/openapi.json";

struct Security;

impl Modify for Security {
    fn modify(&self, doc: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        doc.components
            .get_or_insert_default()
            .add_security_scheme("admin", scheme);
    }
}

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
    modifiers(&Security),
)]
pub struct AdminDoc;

/// This description.
#[utoipa::path(get, path = "/admin/v1/openapi.json", tag = "actors", security(("admin" = [])),
    responses((status = 200, description = "OpenAPI 3.1"),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem)))]
async fn spec() -> Result<HttpResponse, ApiError> {
    let text = AdminDoc::openapi().to_json().map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .body(text))
}

/// The methods of a route's pattern as an `Allow` header lists them.
#[must_use]
pub fn allowed_methods(pattern: &str) -> Option<String> {
    static DOC: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(AdminDoc::openapi);
    let doc = &*DOC;
    let PathItem { get, post, .. } = doc.paths.paths.get(pattern)?;
    let methods = [("GET", get), ("POST", post)];
    let methods: Vec<_> = methods
        .iter()
        .filter(|(_, operation)| operation.is_some())
        .map(|(name, _)| *name)
        .collect();
    (!methods.is_empty()).then(|| methods.join(", "))
}

/// Registers the route.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/openapi.json").route(web::get().to(spec)));
}
