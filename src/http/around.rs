//! A layer that looks at a request before the rest, and at its answer after.
//!
//! Owns the one future that such layers need: it lies inside that of whoever is further out, so that
//! a layer costs no memory of its own on each request, as `middleware::from_fn` does.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    Error,
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
};
use futures_util::future;
use pin_project_lite::pin_project;

/// What a layer keeps of a request until its answer is there. Dropped when there will be none.
pub trait Mark {
    /// Looks at the answer, and may change its head.
    fn leave<B>(self, res: &mut ServiceResponse<B>);
}

/// The layer that makes a mark of each request.
#[derive(Debug, Clone, Copy)]
pub struct Around<M>(pub fn(&ServiceRequest) -> M);

impl<S, B, M> Transform<S, ServiceRequest> for Around<M>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    M: Mark,
{
    type Response = ServiceResponse<B>;
    type Error = Error;
    type Transform = AroundService<S, M>;
    type InitError = ();
    type Future = future::Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        future::ok(AroundService {
            service,
            enter: self.0,
        })
    }
}

/// What [`Around`] makes of a service.
#[derive(Debug)]
pub struct AroundService<S, M> {
    service: S,
    enter: fn(&ServiceRequest) -> M,
}

impl<S, B, M> Service<ServiceRequest> for AroundService<S, M>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    M: Mark,
{
    type Response = ServiceResponse<B>;
    type Error = Error;
    type Future = Answer<S::Future, M>;

    forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let mark = Some((self.enter)(&req));
        Answer {
            mark,
            answer: self.service.call(req),
        }
    }
}

pin_project! {
    /// The answer, as the layer leaves it.
    #[derive(Debug)]
    pub struct Answer<F, M> {
        #[pin]
        answer: F,
        mark: Option<M>,
    }
}

impl<F, B, M> Future for Answer<F, M>
where
    F: Future<Output = Result<ServiceResponse<B>, Error>>,
    M: Mark,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(task));
        let mark = this.mark.take();
        if let (Ok(res), Some(mark)) = (&mut answer, mark) {
            mark.leave(res);
        }
        Poll::Ready(answer)
    }
}
