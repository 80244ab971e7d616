//! The description of the API, made from the handlers, and the page to browse it.
//!
//! A handler joins by its `#[utoipa::path]` and a line in `paths(…)`; a test compares the two. The
//! page is in the binary: nothing is fetched from elsewhere.

use std::sync::LazyLock;

use actix_web::web;
use serde_json::{Map, Value};
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::{
        PathItem,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    admin::AdminDoc, health, history, identity, internal::InternalDoc, library, player,
    playlist_songs, playlists, public_playlists, snapshot, sync, ws,
};
use crate::domain::{error::FieldError, library::SnapshotHead};

/// Where the description is.
pub const SPEC_PATH: &str = "/v1/openapi.json";
/// Where the page is.
pub const DOCS_PATH: &str = "/v1/docs/";

/// Every error's body (RFC 9457).
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what ApiError writes")]
pub struct Problem {
    /// A URI that stands for the code.
    r#type: String,
    /// One line for people, the same for every occurrence.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: String,
    /// The stable name of what went wrong.
    #[schema(example = "invalid_request")]
    code: String,
    /// The id of the request, to ask about it.
    request_id: String,
    /// The fields that cannot be taken, with invalid input.
    #[serde(default)]
    errors: Vec<FieldError>,
    /// More members, by code.
    #[serde(flatten)]
    extensions: Map<String, Value>,
}

/// Callers of an API prove who they are by a token, which is named so, and may have a known form.
pub(super) struct Bearer(pub &'static str, pub Option<&'static str>);

impl Modify for Bearer {
    fn modify(&self, doc: &mut utoipa::openapi::OpenApi) {
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.bearer_format = self.1.map(str::to_owned);
        doc.components
            .get_or_insert_default()
            .add_security_scheme(self.0, SecurityScheme::Http(bearer));
    }
}

static SECURITY: Bearer = Bearer("bearer", Some("JWT"));

/// The description.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Listen Stream",
        description = "Keeps a user's devices in step. Errors are `application/problem+json` \
            with a stable `code`; unknown fields are refused by name.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        health::health,
        health::ready,
        identity::request_code,
        identity::log_in,
        identity::refresh,
        identity::log_out,
        identity::me,
        identity::devices,
        identity::remove_device,
        library::list,
        library::put,
        library::remove,
        library::restore,
        player::get,
        player::transfer,
        snapshot::get,
        history::list,
        history::add,
        history::remove,
        history::clear,
        playlists::create,
        playlists::playlists,
        playlists::playlist,
        playlists::update,
        playlists::delete,
        playlists::restore_playlist,
        playlist_songs::songs,
        playlist_songs::add_songs,
        playlist_songs::replace_songs,
        playlist_songs::remove_songs,
        playlist_songs::move_songs,
        public_playlists::public_playlist,
        public_playlists::public_songs,
        sync::presence,
        sync::changes,
        sync::ack,
        sync::ticket,
        ws::connect,
    ),
    components(schemas(Problem, SnapshotHead)),
    modifiers(&SECURITY),
)]
pub struct ApiDoc;

/// Registers the description and the page.
pub fn routes(cfg: &mut web::ServiceConfig) {
    // Without "none" the page would ask a validator on the internet.
    let config = Config::new([SPEC_PATH]).validator_url("none");
    cfg.service(web::redirect("/v1/docs", DOCS_PATH)).service(
        SwaggerUi::new("/v1/docs/{_:.*}")
            .url(SPEC_PATH, ApiDoc::openapi())
            .config(config),
    );
}

/// The methods of a route's pattern as an `Allow` header lists them, of any of the APIs.
#[must_use]
pub fn allowed_methods(pattern: &str) -> Option<String> {
    static DOCS: LazyLock<[utoipa::openapi::OpenApi; 3]> = LazyLock::new(|| {
        [
            ApiDoc::openapi(),
            AdminDoc::openapi(),
            InternalDoc::openapi(),
        ]
    });
    let PathItem {
        get,
        put,
        post,
        delete,
        patch,
        ..
    } = DOCS.iter().find_map(|doc| doc.paths.paths.get(pattern))?;
    let methods: Vec<&str> = [
        ("GET", get),
        ("PUT", put),
        ("POST", post),
        ("DELETE", delete),
        ("PATCH", patch),
    ]
    .into_iter()
    .filter_map(|(name, operation)| operation.as_ref().map(|_| name))
    .collect();
    (!methods.is_empty()).then(|| methods.join(", "))
}

#[cfg(test)]
mod tests;
