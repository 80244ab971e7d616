//! Who is calling. A handler that takes an [`Authed`] cannot be reached without a good token.
//!
//! Reads the published snapshots (keys, revocations) and the limiters; never the store.

use std::{
    cell::RefCell,
    future::{Ready, ready},
    sync::{Arc, atomic::Ordering},
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header, web};

use super::{error::ApiError, limit::Limits};
use crate::{
    actors::{
        Failure, Graph,
        kernel::{Ask, CallError, Deadline, Serve},
        session::UserSession,
    },
    domain::{
        error::ErrorCode,
        identity::{Caller, TokenError, VerifiedTokens},
        ids::UserId,
    },
};

thread_local! {
    /// Tokens that this worker found good.
    static KNOWN: RefCell<VerifiedTokens> = RefCell::new(VerifiedTokens::new());
}

/// The graph, for handlers.
pub type Actors = web::Data<Graph>;

/// How long a handler waits for an actor's answer.
const BUDGET: std::time::Duration = std::time::Duration::from_secs(10);

/// When a request that begins now gives up waiting.
pub(super) fn deadline(graph: &Graph) -> Deadline {
    graph.world.instant() + BUDGET
}

/// What the session of `user` answers.
pub(super) async fn ask_session<M, T>(graph: &Graph, user: &UserId, msg: M) -> Result<T, ApiError>
where
    M: Ask<Reply = Result<T, Failure>>,
    UserSession: Serve<M>,
{
    Ok(graph.sessions.ask(user, msg, deadline(graph)).await??)
}

/// A caller with a good access token, within their rate.
#[derive(Debug)]
pub struct Authed(pub Arc<Caller>);

impl FromRequest for Authed {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authenticate(req).map(Self))
    }
}

/// So that what the sessions have in hand can end, they are asked nothing more.
pub(super) fn refuse_when_draining(graph: &Graph) -> Result<(), ApiError> {
    if graph.draining.load(Ordering::Relaxed) {
        return Err(ErrorCode::ShuttingDown.into());
    }
    Ok(())
}

/// A token that was revoked elsewhere would pass while this node does not hear of it; whether it may is for
/// the operator to say.
pub(super) fn refuse_when_in_doubt(graph: &Graph) -> Result<(), ApiError> {
    if graph.trust.holds(graph.world.instant()) {
        return Ok(());
    }
    let error = ApiError::new(ErrorCode::StoreUnavailable);
    Err(error.detail("whether the token was revoked is not known now"))
}

/// The caller that the `Authorization` header proves.
pub(super) fn authenticate(req: &HttpRequest) -> Result<Arc<Caller>, ApiError> {
    let graph = app_data::<Graph>(req)?;
    refuse_when_draining(graph)?;
    let header = req
        .headers()
        .get(header::AUTHORIZATION)
        .ok_or(ErrorCode::Unauthenticated)?;
    let token = header
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| {
            ApiError::new(ErrorCode::Unauthenticated).detail("expected Authorization: Bearer …")
        })?;
    let caller = KNOWN
        .with_borrow_mut(|known| known.check(&graph.secrets, token, graph.world.now()))
        .map_err(|e| match e {
            TokenError::Invalid => ErrorCode::TokenInvalid,
            TokenError::Expired => ErrorCode::TokenExpired,
        })?;
    if graph.revocations.refusal(&caller).is_some() {
        return Err(ErrorCode::TokenRevoked.into());
    }
    refuse_when_in_doubt(graph)?;
    app_data::<Limits>(req)?.check_user(req, caller.user)?;
    Ok(caller)
}

fn app_data<T: 'static>(req: &HttpRequest) -> Result<&web::Data<T>, ApiError> {
    req.app_data::<web::Data<T>>()
        .ok_or_else(|| ApiError::new(ErrorCode::Internal).detail("application data is missing"))
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let error = Self::new(failure.code());
        match failure {
            Failure::Quarantined { retry_after } => error.retry_after(retry_after.as_secs().max(1)),
            _ => error,
        }
        .source(failure)
    }
}

impl From<CallError> for ApiError {
    fn from(e: CallError) -> Self {
        Failure::from(e).into()
    }
}
