//! How often one address and one user may ask.
//!
//! Owns the buckets of this process, in front of those that all nodes share ([`SharedBuckets`]): what is
//! refused here costs no question there. An address is the client's (`client.rs`); an IPv6 caller owns a
//! whole /64, so that is what counts. Buckets that are full again are forgotten, by
//! [`Limits::sweep`] each minute and whenever [`SWEEP_EVERY`] checks have passed, so that memory
//! follows the callers of the last moments and not all that ever were.

mod bucket;

use std::{
    future::Future,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{
    HttpMessage, HttpRequest,
    body::{EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    http::{
        Method, Version,
        header::{self, HeaderMap},
    },
};
use futures_util::future::{self, Either};
use governor::Quota;
use pin_project_lite::pin_project;

use self::bucket::{Limiter, Policy, Snapshot, ceil_secs};
use super::{client, error::ApiError, json::MAX_BODY};
use crate::domain::{
    clock::World,
    forwarded::TrustedProxies,
    ids::UserId,
    limit::{LimitKey, Rate, Verdict},
};

/// So many checks may pass before a limiter forgets full buckets by itself.
pub const SWEEP_EVERY: u32 = 65_536;
const AUTH_PREFIX: &str = "/v1/auth/";
/// So much of a body costs a user as much as another request.
const BYTES_A_TOKEN: usize = 8 * 1024;

/// Rates and bursts; zero counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitConfig {
    /// Requests a second of one address, in the long run.
    pub ip_per_second: u32,
    /// Requests at once of one address.
    pub ip_burst: u32,
    /// Requests a second of one user, in the long run.
    pub user_per_second: u32,
    /// Requests at once of one user.
    pub user_burst: u32,
    /// Requests a minute of one address under `/v1/auth/`, in the long run.
    pub auth_per_minute: u32,
    /// Requests at once of one address under `/v1/auth/`.
    pub auth_burst: u32,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            ip_per_second: 500,
            ip_burst: 1000,
            user_per_second: 200,
            user_burst: 400,
            auth_per_minute: 120,
            auth_burst: 60,
        }
    }
}

/// The buckets that all nodes share. Asking them waits for nothing.
pub trait SharedBuckets: std::fmt::Debug + Send + Sync {
    /// What becomes of a request of so many tokens that this node would let in; none while limits count per
    /// node.
    fn take(&self, key: LimitKey, rate: Rate, cost: u32) -> Option<Verdict>;
    /// Forgets callers who were not heard of lately.
    fn sweep(&self);
}

#[derive(Debug)]
struct Shared {
    ip: Limiter<IpAddr>,
    auth: Limiter<IpAddr>,
    user: Limiter<UserId>,
}

impl Shared {
    fn set_headers(&self, Snapshot { of, remaining }: Snapshot, headers: &mut HeaderMap) {
        match of {
            Policy::Ip => self.ip.set_headers(remaining, headers),
            Policy::Auth => self.auth.set_headers(remaining, headers),
            Policy::User => self.user.set_headers(remaining, headers),
        }
    }
}

/// The limiters of a process; clones share the buckets. Also the middleware for addresses.
#[derive(Debug, Clone)]
pub struct Limits {
    shared: Arc<Shared>,
    /// Beyond this node, if there is anything.
    together: Option<Arc<dyn SharedBuckets>>,
    /// In front of those who call.
    proxies: TrustedProxies,
}

impl Limits {
    /// Makes empty buckets; time is `world`'s. No proxy is trusted.
    #[must_use]
    pub fn new(config: &LimitConfig, world: &World) -> Self {
        let c = config;
        let second = |rate, burst| Quota::per_second(at_least_one(rate)).allow_burst(burst);
        let minute = |rate, burst| Quota::per_minute(at_least_one(rate)).allow_burst(burst);
        let shared = Shared {
            ip: Limiter::new(
                Policy::Ip,
                second(c.ip_per_second, at_least_one(c.ip_burst)),
                world,
            ),
            auth: Limiter::new(
                Policy::Auth,
                minute(c.auth_per_minute, at_least_one(c.auth_burst)),
                world,
            ),
            user: Limiter::new(
                Policy::User,
                second(c.user_per_second, at_least_one(c.user_burst)),
                world,
            ),
        };
        Self {
            shared: Arc::new(shared),
            together: None,
            proxies: TrustedProxies::none(),
        }
    }

    /// The same buckets, in front of those that all nodes share.
    #[must_use]
    pub fn together(self, together: Option<Arc<dyn SharedBuckets>>) -> Self {
        Self { together, ..self }
    }

    /// The same buckets, with what `proxies` say of addresses.
    #[must_use]
    pub fn behind(self, proxies: TrustedProxies) -> Self {
        Self { proxies, ..self }
    }

    /// Counts a request of `user`, by its size, and leaves what is left in `req` for the answer's
    /// headers.
    ///
    /// # Errors
    /// `rate_limited` when the user is over the rate.
    pub fn check_user(&self, req: &HttpRequest, user: UserId) -> Result<(), ApiError> {
        let key = LimitKey::User(user);
        let (snapshot, outcome) = self.check(&self.shared.user, &user, key, cost(req));
        req.extensions_mut().insert(snapshot);
        outcome.map_err(|wait| refusal("user", wait))
    }

    /// Forgets the buckets that are full again, and gives their memory back.
    pub fn sweep(&self) {
        self.shared.ip.sweep();
        self.shared.auth.sweep();
        self.shared.user.sweep();
        self.together.iter().for_each(|it| it.sweep());
    }

    /// How many buckets are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.ip.len() + self.shared.auth.len() + self.shared.user.len()
    }

    /// Whether no bucket is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// First by this node's own bucket, then by the one that all share.
    fn check<K: Hash + Eq + Clone>(
        &self,
        limiter: &Limiter<K>,
        caller: &K,
        key: LimitKey,
        cost: NonZeroU32,
    ) -> (Snapshot, Result<(), Duration>) {
        let (mut snapshot, outcome) = limiter.check(caller, cost);
        if let (Ok(()), Some(together)) = (outcome, &self.together) {
            match together.take(key, limiter.rate, cost.get()) {
                Some(Verdict::Pass(more)) => snapshot.remaining = snapshot.remaining.min(more),
                Some(Verdict::Refuse(wait)) => {
                    snapshot.remaining = 0;
                    return (snapshot, Err(wait));
                }
                None => {}
            }
        }
        (snapshot, outcome)
    }

    fn check_peer(&self, req: &ServiceRequest) -> (Snapshot, Result<(), ApiError>) {
        let ip = network(client::address(req.head(), &self.proxies));
        let (snapshot, outcome) =
            self.check(&self.shared.ip, &ip, LimitKey::Ip(ip), NonZeroU32::MIN);
        if let Err(wait) = outcome {
            return (snapshot, Err(refusal("ip", wait)));
        }
        // The path that routing sees: `/v1/%61uth/` leads there too.
        if !req.match_info().as_str().starts_with(AUTH_PREFIX) {
            return (snapshot, Ok(()));
        }
        let (snapshot, outcome) =
            self.check(&self.shared.auth, &ip, LimitKey::Auth(ip), NonZeroU32::MIN);
        (snapshot, outcome.map_err(|wait| refusal("auth", wait)))
    }
}

/// What a request costs its user: one, and more for a large body, which is more work behind. A body
/// that does not say its length may be the largest.
fn cost(req: &HttpRequest) -> NonZeroU32 {
    let headers = req.headers();
    let said = headers.get(header::CONTENT_LENGTH);
    let length = match said.and_then(|v| v.to_str().ok()?.parse::<usize>().ok()) {
        Some(length) => length.min(MAX_BODY),
        None if may_have_body(req) => MAX_BODY,
        None => 0,
    };
    at_least_one(u32::try_from(1 + length / BYTES_A_TOKEN).unwrap_or(u32::MAX))
}

/// Whether a request that says no length may have a body that is read. Before HTTP/2 one has none unless
/// it says that it comes in pieces; from then on what has a body is told by its method.
fn may_have_body(req: &HttpRequest) -> bool {
    if req.version() < Version::HTTP_2 {
        return req.headers().contains_key(header::TRANSFER_ENCODING);
    }
    let reads = [Method::POST, Method::PUT, Method::PATCH].contains(req.method());
    reads && req.headers().contains_key(header::CONTENT_TYPE)
}

fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

fn refusal(policy: &'static str, wait: Duration) -> ApiError {
    ApiError::over(policy).retry_after(ceil_secs(wait).max(1))
}

/// What counts as one caller. Peers without an address (Unix sockets) are one caller together.
pub(super) fn network(ip: Option<IpAddr>) -> IpAddr {
    match ip.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        Some(v4) => v4,
        None => Ipv4Addr::UNSPECIFIED.into(),
    }
}

impl<S, B> Transform<S, ServiceRequest> for Limits
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = LimitService<S>;
    type InitError = ();
    type Future = future::Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        future::ok(LimitService {
            service,
            limits: self.clone(),
        })
    }
}

/// What [`Limits`] makes of a service.
#[derive(Debug)]
pub struct LimitService<S> {
    service: S,
    limits: Limits,
}

impl<S, B> Service<ServiceRequest> for LimitService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Either<Limited<S::Future>, future::Ready<Result<Self::Response, Self::Error>>>;

    forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let (snapshot, outcome) = self.limits.check_peer(&req);
        if let Err(e) = outcome {
            let mut res = req.error_response(e).map_into_right_body();
            self.limits.shared.set_headers(snapshot, res.headers_mut());
            return Either::Right(future::ok(res));
        }
        Either::Left(Limited {
            snapshot,
            shared: Arc::clone(&self.limits.shared),
            answer: self.service.call(req),
        })
    }
}

pin_project! {
    /// The answer of a request that was within the limits of its address.
    #[derive(Debug)]
    pub struct Limited<F> {
        #[pin]
        answer: F,
        snapshot: Snapshot,
        shared: Arc<Shared>,
    }
}

impl<F, B> Future for Limited<F>
where
    F: Future<Output = Result<ServiceResponse<B>, actix_web::Error>>,
{
    type Output = Result<ServiceResponse<EitherBody<B>>, actix_web::Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut res = ready!(this.answer.poll(task))?;
        let user = res.request().extensions().get::<Snapshot>().copied();
        let snapshot = user.unwrap_or(*this.snapshot);
        this.shared.set_headers(snapshot, res.headers_mut());
        Poll::Ready(Ok(res.map_into_left_body()))
    }
}

#[cfg(test)]
mod tests;
