//! The nodes that serve on one database.

use actix_web::web;

use crate::{
    actors::nodes::{ListNodes, NodesView},
    http::{
        error::ApiError,
        extract::{Actors, deadline},
        openapi::Problem,
    },
};

/// The nodes, as this one knows them: those that beat, and for a minute those that do not any more.
#[utoipa::path(get, path = "/admin/v1/nodes", tag = "nodes", security(("admin" = [])),
    responses((status = 200, description = "The nodes", body = NodesView),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem)))]
pub(super) async fn list(graph: Actors) -> Result<web::Json<NodesView>, ApiError> {
    let nodes = graph.nodes.ask(ListNodes, deadline(&graph)).await?;
    Ok(web::Json(nodes))
}

/// Registers the route.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/nodes").route(web::get().to(list)));
}
