//! Actors: their kinds, lists of them, one of them, and the end of a life.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    actors::{
        inspector::{
            ActorPage, ActorView, HaltActor, HaltedView, Kinds, ListActors, ListKinds, ListQuery,
            NotHalted, Place, ShowActor, Sort, THE_ONE,
        },
        kernel::Halt,
    },
    domain::error::{ErrorCode, FieldError},
    http::{
        error::ApiError,
        extract::{Actors, deadline},
        json::{Path, Query},
        openapi::Problem,
        page::page_limit,
    },
};

/// Longest part of a key that may be looked for.
const MAX_PART: usize = 64;

/// Which actors; without any parameter the kinds are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ActorList {
    /// Actors of this kind.
    kind: Option<String>,
    /// Only those whose key has this in it: the beginning of a user's id, for example.
    q: Option<String>,
    /// The `next_cursor` of the page before, with the same `kind`, `q` and `sort`.
    cursor: Option<String>,
    /// 1 to 200; 50 when left out.
    limit: Option<u32>,
    /// `id` when left out. The others begin with the highest.
    sort: Option<Sort>,
}

/// An actor.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ActorId {
    /// Kind and key, such as `user_session:01920000-0000-7000-8000-000000000000`.
    id: String,
}

impl ActorId {
    /// Its kind and its key.
    fn parts(&self) -> Result<(String, String), ApiError> {
        let parts = self.id.split_once(':');
        let parts = parts.filter(|(kind, key)| !kind.is_empty() && !key.is_empty());
        parts
            .map(|(kind, key)| (kind.to_owned(), key.to_owned()))
            .ok_or_else(|| FieldError::new("id", "kind:key, as lists name it").into())
    }
}

/// The kinds of actors with their rates; or, with `kind`, a page of the actors of that kind.
///
/// Rates are of the last seconds. Where nobody has looked for ten seconds the answer takes a second: the
/// one of which it tells.
#[utoipa::path(get, path = "/admin/v1/actors", tag = "actors",
    params(ActorList), security(("admin" = [])),
    responses((status = 200, description = "The kinds (`Kinds`), or with `kind` a page (`ActorPage`)",
               content((Kinds = "application/json"), (ActorPage = "application/json"))),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem),
              (status = 422, description = "An unknown or wrong parameter, by its name", body = Problem)))]
pub(super) async fn list(
    graph: Actors,
    Query(query): Query<ActorList>,
) -> Result<HttpResponse, ApiError> {
    let ActorList {
        kind,
        q,
        cursor,
        limit,
        sort,
    } = query;
    let Some(kind) = kind else {
        for (name, given) in [
            ("q", q.is_some()),
            ("cursor", cursor.is_some()),
            ("limit", limit.is_some()),
            ("sort", sort.is_some()),
        ] {
            if given {
                return Err(FieldError::new(name, "only with kind").into());
            }
        }
        let inspectors = &graph.inspectors;
        let kinds = inspectors
            .ask(&THE_ONE, ListKinds, deadline(&graph))
            .await?;
        return Ok(HttpResponse::Ok().json(kinds));
    };
    let sort = sort.unwrap_or_default();
    let part = q.unwrap_or_default().to_ascii_lowercase();
    if part.len() > MAX_PART {
        return Err(FieldError::new("q", format!("at most {MAX_PART} characters")).into());
    }
    let after = match cursor {
        None => None,
        Some(text) => Some(Place::decode(&text, sort).ok_or_else(|| {
            FieldError::new("cursor", "the next_cursor of a page of the same list")
        })?),
    };
    let query = ListQuery {
        kind,
        part,
        sort,
        after,
        limit: page_limit(limit)? as usize,
    };
    let ask = ListActors(query);
    let page = graph
        .inspectors
        .ask(&THE_ONE, ask, deadline(&graph))
        .await?;
    let page = page.ok_or_else(|| {
        let kinds = graph.directory.kinds();
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        FieldError::new("kind", format!("one of {}", names.join(", ")))
    })?;
    Ok(HttpResponse::Ok().json(page))
}

/// One actor: its meters, how its lives ended, and what it shows of itself. An actor that does not
/// answer within a second is shown without its view.
#[utoipa::path(get, path = "/admin/v1/actors/{id}", tag = "actors",
    params(ActorId), security(("admin" = [])),
    responses((status = 200, description = "The actor", body = ActorView),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem),
              (status = 404, description = "`actor_not_found`", body = Problem)))]
pub(super) async fn show(
    graph: Actors,
    Path(id): Path<ActorId>,
) -> Result<web::Json<ActorView>, ApiError> {
    let (kind, key) = id.parts()?;
    let ask = ShowActor { kind, key };
    let view = graph
        .inspectors
        .ask(&THE_ONE, ask, deadline(&graph))
        .await?;
    view.map(web::Json)
        .ok_or_else(|| ErrorCode::ActorNotFound.into())
}

/// End an actor. What it has in hand is finished first; its sockets are told when to come again, and the
/// next life begins when somebody asks for it.
#[utoipa::path(post, path = "/admin/v1/actors/{id}/stop", tag = "actors",
    params(ActorId), security(("admin" = [])),
    responses((status = 200, description = "It ended", body = HaltedView),
              (status = 202, description = "It will, once what it has in hand is finished", body = HaltedView),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem),
              (status = 404, description = "`actor_not_found`", body = Problem),
              (status = 409, description = "`actor_not_stoppable`: the node needs it", body = Problem)))]
pub(super) async fn stop(graph: Actors, id: Path<ActorId>) -> Result<HttpResponse, ApiError> {
    halt(&graph, id, Halt::Stop, ErrorCode::ActorNotStoppable).await
}

/// Make an actor anew, from what is stored. What it has in hand is finished first, and what comes
/// meanwhile waits for the next life; sockets stay. It also ends a quarantine.
#[utoipa::path(post, path = "/admin/v1/actors/{id}/restart", tag = "actors",
    params(ActorId), security(("admin" = [])),
    responses((status = 200, description = "Its next life has begun", body = HaltedView),
              (status = 202, description = "It will, once what it has in hand is finished", body = HaltedView),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem),
              (status = 404, description = "`actor_not_found`", body = Problem),
              (status = 409, description = "`actor_not_restartable`: a connection, which its client makes anew", body = Problem)))]
pub(super) async fn restart(graph: Actors, id: Path<ActorId>) -> Result<HttpResponse, ApiError> {
    halt(&graph, id, Halt::Restart, ErrorCode::ActorNotRestartable).await
}

async fn halt(
    graph: &Actors,
    Path(id): Path<ActorId>,
    how: Halt,
    refusal: ErrorCode,
) -> Result<HttpResponse, ApiError> {
    let (kind, key) = id.parts()?;
    let ask = HaltActor { kind, key, how };
    let halted = graph.inspectors.ask(&THE_ONE, ask, deadline(graph)).await?;
    let halted: HaltedView = halted.map_err(|e| match e {
        NotHalted::Unknown => ErrorCode::ActorNotFound,
        NotHalted::NotAllowed => refusal,
    })?;
    // The request's span has its id.
    tracing::warn!(
        who = "admin token",
        actor = id.id,
        action = ?how,
        done = halted.done,
        "an operator ended an actor's life"
    );
    let mut answer = if halted.done {
        HttpResponse::Ok()
    } else {
        HttpResponse::Accepted()
    };
    Ok(answer.json(halted))
}

/// Registers the routes.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/actors").route(web::get().to(list)))
        .service(web::resource("/actors/{id}").route(web::get().to(show)))
        .service(web::resource("/actors/{id}/stop").route(web::post().to(stop)))
        .service(web::resource("/actors/{id}/restart").route(web::post().to(restart)));
}
