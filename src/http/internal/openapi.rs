//! The description of what other services may ask: a document of its own, on the internal listener.

use actix_web::web;
use utoipa::OpenApi;

use super::{broadcasts, events, offline};
use crate::http::openapi::{Bearer, Problem};

/// Where the description is.
pub const INTERNAL_SPEC_PATH: &str = "/internal/v1/openapi.json";

static SECURITY: Bearer = Bearer("key", None);

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
    modifiers(&SECURITY),
)]
pub struct InternalDoc;

/// This description.
#[utoipa::path(get, path = "/internal/v1/openapi.json", tag = "description",
    responses((status = 200, description = "OpenAPI 3.1")))]
async fn spec() -> web::Json<utoipa::openapi::OpenApi> {
    web::Json(InternalDoc::openapi())
}

/// Registers the route.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource(INTERNAL_SPEC_PATH).route(web::get().to(spec)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{internal::routes, openapi::allowed_methods, testing::server};

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
