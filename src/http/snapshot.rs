//! Everything that a user keeps, as lines of JSON: where a new device or one that must load anew
//! starts from.

use std::io;

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, BufMut, Bytes, BytesMut},
};
use futures_util::stream;

use super::{
    error::ApiError,
    extract::{Actors, Authed, ask_session},
    openapi::Problem,
};
use crate::{
    actors::session::{GetSnapshot, SnapshotOutcome},
    domain::{error::ErrorCode, library::SnapshotLine},
};

/// The media type: a JSON value in each line.
const NDJSON: &str = "application/x-ndjson";

/// The whole library at one position of the log. Each line is JSON: the first names the position, the
/// others have one member each, and the last is `end`. An answer that ends without it was cut off.
#[utoipa::path(get, path = "/v1/me/snapshot", tag = "sync", security(("bearer" = [])),
    responses((status = 200, description = "A `SnapshotHead`, then one `SnapshotLine` in each line",
        body = SnapshotLine, content_type = "application/x-ndjson"),
        (status = 409, description = "`snapshot_replaced`: ended before its first line", body = Problem)))]
pub(super) async fn get(graph: Actors, Authed(caller): Authed) -> Result<HttpResponse, ApiError> {
    let snapshot = match ask_session(&graph, &caller.user, GetSnapshot).await? {
        SnapshotOutcome::Begun(snapshot) => snapshot,
        SnapshotOutcome::Replaced => return Err(ErrorCode::SnapshotReplaced.into()),
        SnapshotOutcome::NoUser => return Err(ErrorCode::TokenRevoked.into()),
    };
    let mut first = BytesMut::new();
    write(&snapshot.head, &mut first).map_err(ApiError::internal)?;
    let rest = stream::unfold(Some(snapshot.lines), |going| async {
        let mut lines = going?;
        let mut text = BytesMut::new();
        let Some(batch) = lines.recv().await else {
            // The client must not take what it has for the whole: the answer ends without its end.
            return Some((Err(io::Error::other("the snapshot was cut off")), None));
        };
        let mut done = false;
        for line in &batch.lines {
            done = matches!(line, SnapshotLine::End(_));
            if let Err(e) = write(line, &mut text) {
                return Some((Err(e.into()), None));
            }
        }
        Some((Ok(text.freeze()), (!done).then_some(lines)))
    });
    let first = stream::once(async { Ok::<Bytes, io::Error>(first.freeze()) });
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        .content_type(NDJSON)
        .streaming(futures_util::StreamExt::chain(first, rest)))
}

fn write<T: serde::Serialize>(line: &T, text: &mut BytesMut) -> serde_json::Result<()> {
    serde_json::to_writer(text.writer(), line)?;
    text.put_u8(b'\n');
    Ok(())
}

/// Registers the route.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/v1/me/snapshot").route(web::get().to(get)));
}
