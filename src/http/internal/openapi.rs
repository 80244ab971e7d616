//! The description of what other services may ask: a document of its own, on the internal listener.

use std::sync::LazyLock;

use actix_web::{HttpResponse, web};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        PathItem,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{broadcasts, events, offline};
use crate::http::{error::ApiError, openapi::Problem};

/// Where the description is.
pub const INTERNAL_SPEC_PATH: &str = "/internal/v1/openapi.json";

struct Security;

impl Modify for Security {
    fn modify(&self, doc: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        doc.components
            .get_or_insert_default()
            .add_security_scheme("key", scheme);
    }
}

/// The description.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Listen Stream, for other services",
        description = "Appends events to users' logs, and shows what devices have not acknowledged. On the \
            internal listener, with an API key (`listen-stream keys create`). Errors are \
            `application/problem+json` with a stable `code`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        events::append,
        events::broadcast,
        broadcasts::list,
        broadcasts::show,
        broadcasts::cancel,
        offline::offline,
        spec,
    ),
    components(schemas(Problem)),
    modifiers(&Security),
)]
pub struct InternalDoc;

/// This description.
#[utoipa::path(get, path = "/internal/v1/openapi.json", tag = "description",
    responses((status = 200, description = "OpenAPI 3.1")))]
async fn spec() -> Result<HttpResponse, ApiError> {
    let text = InternalDoc::openapi()
        .to_json()
        .map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .body(text))
}

/// The methods of a route's pattern as an `Allow` header lists them.
#[must_use]
pub fn allowed_methods(pattern: &str) -> Option<String> {
    static DOC: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(InternalDoc::openapi);
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
    cfg.service(web::resource(INTERNAL_SPEC_PATH).route(web::get().to(spec)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{internal::routes, testing::server};

    #[actix_web::test]
    async fn every_route_is_described_and_says_what_it_takes() {
        let server = server(routes);
        let answer = server.get(INTERNAL_SPEC_PATH).await;
        assert_eq!(answer.status, 200);
        let doc: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let mut paths: Vec<_> = doc["paths"].as_object().unwrap().keys().collect();
        paths.sort();
        assert_eq!(
            paths,
            [
                "/internal/v1/broadcasts",
                "/internal/v1/broadcasts/{id}",
                "/internal/v1/broadcasts/{id}:cancel",
                "/internal/v1/events:broadcast",
                "/internal/v1/openapi.json",
                "/internal/v1/users/{id}/events",
                "/internal/v1/users/{id}/offline",
            ]
        );
        for (path, item) in doc["paths"].as_object().unwrap() {
            let (method, operation) = item.as_object().unwrap().iter().next().unwrap();
            assert_eq!(allowed_methods(path), Some(method.to_uppercase()));
            let is_open = path == INTERNAL_SPEC_PATH;
            assert_eq!(operation.get("security").is_none(), is_open, "{path}");
            // A path of each pattern is taken, by that method alone.
            let path = path.replace("{id}", "01920000-0000-7000-8000-000000000000");
            let got = server.get(&path).await;
            let taken = got.status != 405 && got.status != 404;
            assert_eq!(taken, method == "get", "{method} {path}: {}", got.status);
        }
    }
}
