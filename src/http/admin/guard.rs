//! Who may use the admin API: who has the admin token.
//!
//! Owns the token's digest, which is compared in constant time, and who presented a wrong one lately: a
//! network with too many is told to wait until a minute is over. Who has the token is let in in any
//! case: nobody's wrong ones keep the operator out.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use actix_web::{
    Error, FromRequest as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use subtle::ConstantTimeEq as _;

use crate::{
    domain::{clock::World, error::ErrorCode, identity::Secrets},
    http::{
        client::ClientAddress,
        error::ApiError,
        limit::network,
        tries::{Tries, bearer},
    },
};

/// What the admin API counts.
#[derive(Debug, Clone, Default)]
pub struct AdminMetrics {
    refused: Counter,
}

impl AdminMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register(
            "admin_refused",
            "Calls of the admin API without the admin token",
            it.refused.clone(),
        );
        it
    }
}

/// Who may use the admin API.
#[derive(Debug)]
pub struct AdminAccess {
    /// Of the token; none where none is set.
    digest: Option<String>,
    world: World,
    metrics: AdminMetrics,
    tries: Mutex<Tries>,
}

impl AdminAccess {
    /// Who presents `token`; nobody without one.
    #[must_use]
    pub fn new(token: Option<&str>, world: World, metrics: AdminMetrics) -> Self {
        Self {
            digest: token.map(Secrets::sha256),
            world,
            metrics,
            tries: Mutex::default(),
        }
    }

    fn check(&self, presented: Option<&str>, client: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(digest) = &self.digest else {
            return Err(ApiError::new(ErrorCode::AdminOff).detail(
                "the admin API is off: set admin.token or admin.token_file (at least 32 characters)",
            ));
        };
        // Digests have one length, so that nothing tells how long the token is.
        let good = presented.is_some_and(|presented| {
            let presented = Secrets::sha256(presented);
            presented.as_bytes().ct_eq(digest.as_bytes()).into()
        });
        if good {
            return Ok(());
        }
        self.metrics.refused.inc();
        let (now, network) = (self.world.instant(), network(client));
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = tries.refused_for(network, now) {
            return Err(ApiError::new(ErrorCode::RateLimited)
                .detail("too many wrong admin tokens")
                .retry_after(wait.as_secs() + 1));
        }
        if presented.is_some() {
            tries.failed(network, now);
        }
        Err(ErrorCode::AdminTokenInvalid.into())
    }
}

/// The middleware: nothing below it is reached without the token.
pub(super) async fn admit<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let access = req
        .app_data::<web::Data<AdminAccess>>()
        .ok_or_else(|| ApiError::internal("the admin token is not there"))?;
    let presented = bearer(req.headers());
    let ClientAddress(client) = ClientAddress::extract(req.request()).await?;
    let checked = access.check(presented, client);
    match checked {
        Ok(()) => next
            .call(req)
            .await
            .map(ServiceResponse::map_into_left_body),
        // As an answer: an error would pass by the layers around.
        Err(e) => Ok(req.error_response(e).map_into_right_body()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use prometheus_client::registry::Registry;

    use super::*;

    const TOKEN: &str = "an-admin-token-of-32-characters-";

    fn access(token: Option<&str>) -> AdminAccess {
        let metrics = AdminMetrics::register(&mut Registry::default());
        AdminAccess::new(token, World::system(), metrics)
    }

    #[test]
    fn only_the_token_opens() {
        let with = access(Some(TOKEN));
        let status = |access: &AdminAccess, presented| match access.check(presented, None) {
            Ok(()) => 200,
            Err(e) => e.status_code().as_u16(),
        };
        assert_eq!(status(&with, Some(TOKEN)), 200);
        for wrong in [None, Some(""), Some("an-admin-token"), Some(&TOKEN[1..])] {
            assert_eq!(status(&with, wrong), 401, "{wrong:?}");
        }
        assert_eq!(status(&access(None), Some(TOKEN)), 403);
        assert_eq!(status(&access(None), Some("")), 403);
        assert_eq!(with.metrics.refused.get(), 4);
        // Whoever guesses is told to wait, and keeps nobody out who has the token.
        for _ in 0..Tries::MOST {
            status(&with, Some("a guess"));
        }
        assert_eq!(status(&with, Some("a guess")), 429);
        assert_eq!(status(&with, Some(TOKEN)), 200);
    }
}
