//! Whose request it is: the address that counts, in limits and in what is kept of a login.
//!
//! Owns where the rule of `domain/forwarded.rs` gets its input. Each request has its own client, also
//! on a connection that a proxy uses for many.

use std::net::IpAddr;

use actix_web::{
    FromRequest, HttpRequest,
    dev::{Payload, RequestHead},
    http::header::HeaderValue,
    web,
};
use futures_util::future;

use super::error::ApiError;
use crate::domain::forwarded::TrustedProxies;

/// The address that a request counts for; none where its peer has none, as on a Unix socket.
#[must_use]
pub fn address(head: &RequestHead, proxies: &TrustedProxies) -> Option<IpAddr> {
    let peer = head.peer_addr?.ip();
    if !proxies.trusts(peer) {
        // Most servers have no proxy in front: no header is looked for.
        return Some(peer.to_canonical());
    }
    let lines = head.headers().get_all(proxies.header().name());
    Some(proxies.client(peer, lines.map(HeaderValue::as_bytes)))
}

/// The client's address; an extractor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

impl FromRequest for ClientAddress {
    type Error = ApiError;
    type Future = future::Ready<Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let proxies = req.app_data::<web::Data<TrustedProxies>>();
        future::ready(match proxies {
            Some(proxies) => Ok(Self(address(req.head(), proxies))),
            None => Err(ApiError::internal("the trusted proxies are not there")),
        })
    }
}
