//! The layers that every request passes, in the one order in which they work together.
//!
//! From outside: the mark that the connection is in use; the request's id, span, log line and the final form of errors; the security
//! headers; CORS, outside the limiter so that a page can read its 429; the address limiter (public
//! listener only); compression; the routes.

use actix_web::{
    App, Error,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    middleware::{Compress, Condition},
    web,
};

use super::{
    around::Around,
    connection, error,
    headers::{self, Origins},
    limit::{LimitConfig, Limits},
    request_id::RequestIds,
};
use crate::{
    domain::{clock::World, forwarded::TrustedProxies},
    telemetry::metrics::Metrics,
};

/// What the layers need.
#[derive(Debug, Clone)]
pub struct Surface {
    /// Time, and randomness for request ids.
    pub world: World,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// The pages that may call.
    pub origins: Origins,
    /// The limiters; none on the admin and the internal listener.
    pub limits: Option<Limits>,
    /// Who is believed about whose requests they are.
    pub proxies: TrustedProxies,
}

/// An application with every layer and the 404 and 405 answers; the caller adds data and routes.
///
/// The metrics, the origins, the limits and the trusted proxies are in its data, as [`web::Data`] each.
pub fn app(
    surface: &Surface,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + use<>>,
        Error = Error,
        InitError = (),
    > + use<>,
> {
    let limits = surface.limits.clone();
    let limited = limits.is_some();
    let limits = limits.unwrap_or_else(|| Limits::new(&LimitConfig::default(), &surface.world));
    let limits = limits.behind(surface.proxies.clone());
    let app = App::new()
        .app_data(web::Data::new(surface.proxies.clone()))
        .app_data(web::Data::new(surface.metrics.clone()))
        .app_data(web::Data::new(surface.origins.clone()))
        .app_data(web::Data::new(limits.clone()));
    app.default_service(web::to(error::fallback))
        .wrap(Compress::default())
        .wrap(Condition::new(limited, limits))
        .wrap(surface.origins.cors())
        .wrap(Around(headers::secure))
        .wrap(RequestIds::new(
            surface.world.clone(),
            surface.metrics.http.clone(),
        ))
        .wrap(Around(connection::busy))
}
