//! Which service is calling. A handler that takes a [`Service`] cannot be reached without a key that has
//! its scope.
//!
//! Reads the published snapshot of keys; never the store. Owns who presented a wrong key lately.

use std::{
    fmt::Debug,
    marker::PhantomData,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use futures_util::future::{self, Ready};

use crate::{
    actors::Graph,
    domain::{
        clock::World,
        error::ErrorCode,
        forwarded::TrustedProxies,
        services::{ApiKey, KeyRefusal, Scope},
    },
    http::{
        client,
        error::ApiError,
        extract::refuse_when_draining,
        limit::network,
        tries::{Tries, bearer},
    },
};

/// A scope as a type.
pub(super) trait Needs: 'static {
    /// The scope.
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Needs for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )+};
}

needs! {
    /// To append events to a user's log.
    EventsAppend;
    /// To append an event to many users' logs.
    EventsBroadcast;
    /// To read what devices have not acknowledged.
    OfflineRead;
}

/// A service with a key that has the scope `S`.
#[derive(Debug)]
pub(super) struct Service<S> {
    /// Its key.
    pub key: Arc<ApiKey>,
    scope: PhantomData<S>,
}

/// Who presented a wrong key lately.
#[derive(Debug)]
pub struct ServiceAccess {
    world: World,
    tries: Mutex<Tries>,
}

impl ServiceAccess {
    /// Nobody has.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            tries: Mutex::default(),
        }
    }

    /// The key that is presented, if it has the scope.
    fn check(
        &self,
        graph: &Graph,
        presented: Option<&str>,
        scope: Scope,
        client: Option<IpAddr>,
    ) -> Result<Arc<ApiKey>, ApiError> {
        let (metrics, now) = (&graph.services.metrics, self.world.instant());
        let Some(presented) = presented else {
            metrics.refused("missing");
            return Err(ErrorCode::ApiKeyInvalid.into());
        };
        match graph.services.keys.check(presented, now) {
            Ok(key) if key.has(scope) => Ok(key),
            Ok(_) => {
                metrics.refused("scope");
                let detail = format!("the key needs the scope {}", scope.as_str());
                Err(ApiError::new(ErrorCode::ScopeMissing).detail(detail))
            }
            Err(KeyRefusal::Stale) => {
                metrics.refused("stale");
                let detail = "which keys are in force cannot be read; nothing was changed";
                Err(ApiError::new(ErrorCode::StoreUnavailable).detail(detail))
            }
            Err(KeyRefusal::Invalid) => {
                metrics.refused("invalid");
                let network = network(client);
                let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(wait) = tries.refused_for(network, now) {
                    return Err(ApiError::new(ErrorCode::RateLimited)
                        .detail("too many wrong API keys")
                        .retry_after(wait.as_secs() + 1));
                }
                tries.failed(network, now);
                Err(ErrorCode::ApiKeyInvalid.into())
            }
        }
    }
}

impl<S: Needs> FromRequest for Service<S> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        future::ready(authenticate(req, S::SCOPE).map(|key| Self {
            key,
            scope: PhantomData,
        }))
    }
}

fn authenticate(req: &HttpRequest, scope: Scope) -> Result<Arc<ApiKey>, ApiError> {
    let missing = || ApiError::internal("application data is missing");
    let graph = req.app_data::<web::Data<Graph>>().ok_or_else(missing)?;
    let access = req.app_data::<web::Data<ServiceAccess>>();
    let proxies = req.app_data::<web::Data<TrustedProxies>>();
    refuse_when_draining(graph)?;
    let client = client::address(req.head(), proxies.ok_or_else(missing)?);
    let presented = bearer(req.headers());
    access
        .ok_or_else(missing)?
        .check(graph, presented, scope, client)
}
