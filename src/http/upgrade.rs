//! Where a connection stops being HTTP: requests for a WebSocket, and `CONNECT`.
//!
//! The HTTP server below hands such requests over with the bare bytes, past every layer. So this
//! service has an application of its own, the same as the one for other requests, and asks it: each
//! upgrade passes the same layers, in the same order. An accepted one becomes a device's connection;
//! whatever else the application answers is written, and the connection ends. Nothing of HTTP, its
//! buffers least of all, outlives the handshake.

use std::{io, pin::pin, rc::Rc, time::Duration};

use actix_codec::{AsyncRead, AsyncWrite, Encoder as _, Framed};
use actix_http::{
    ConnectionType, HttpMessage as _, Request, Response,
    body::{BodySize, MessageBody},
    h1::{Codec, Message},
};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::{
    Error,
    dev::{AppConfig, ServiceResponse},
    http::StatusCode,
    web::BytesMut,
};
use futures_util::future::{LocalBoxFuture, poll_fn};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{socket::Admitted, transport::Transport};

/// How long a client may take to take an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a client that was refused may go on sending: what it sent and nobody read would make
/// the system take the answer back.
const LINGER: Duration = Duration::from_secs(1);

/// Among a request's extensions: an answer of 101 is carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct HandedOver;

/// Makes the service for each worker.
#[derive(Debug)]
pub struct Upgrades<F>(F);

impl<F> Upgrades<F> {
    /// Asks the application that `app` makes.
    pub fn new<I>(app: I) -> Self
    where
        I: IntoServiceFactory<F, Request>,
        F: ServiceFactory<Request, Config = AppConfig>,
    {
        Self(app.into_factory())
    }
}

impl<F, B, T> ServiceFactory<(Request, Framed<T, Codec>)> for Upgrades<F>
where
    F: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        >,
    F::Service: 'static,
    F::Future: 'static,
    B: MessageBody + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Into<Transport> + 'static,
{
    type Response = ();
    type Error = Error;
    type Config = ();
    type Service = UpgradeService<F::Service>;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Self::Service, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let app = self.0.new_service(AppConfig::default());
        Box::pin(async move {
            let app = Rc::new(app.await?);
            Ok(UpgradeService { app })
        })
    }
}

/// The service of one worker.
#[derive(Debug)]
pub struct UpgradeService<S> {
    app: Rc<S>,
}

impl<S, B, T> Service<(Request, Framed<T, Codec>)> for UpgradeService<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Into<Transport> + 'static,
{
    type Response = ();
    type Error = Error;
    // Boxed, and so gone when the connection has its actor: it is the HTTP server's task that ends.
    type Future = LocalBoxFuture<'static, Result<(), Error>>;

    actix_service::forward_ready!(app);

    fn call(&self, (req, framed): (Request, Framed<T, Codec>)) -> Self::Future {
        let app = Rc::clone(&self.app);
        Box::pin(async move {
            req.extensions_mut().insert(HandedOver);
            let answer = app.call(req).await;
            let parts = framed.into_parts();
            let (io, codec, mut out) = (parts.io, parts.codec, parts.write_buf);
            let mut answer: Response<B> = match answer {
                Ok(answer) => answer.into(),
                Err(e) => {
                    let answer = e.error_response().into();
                    let _ = timeout(ANSWER, refuse(io, codec, answer, out)).await;
                    return Ok(());
                }
            };
            let admitted = answer.extensions_mut().remove::<Admitted>();
            match admitted {
                Some(admitted) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    head(codec, answer, &mut out)?;
                    admitted.start(io.into(), &parts.read_buf, out);
                }
                _ => {
                    // A client that does not take its answer gets no other.
                    let _ = timeout(ANSWER, refuse(io, codec, answer, out)).await;
                }
            }
            Ok(())
        })
    }
}

fn head<B: MessageBody>(
    mut codec: Codec,
    answer: Response<B>,
    to: &mut BytesMut,
) -> io::Result<()> {
    let (head, _) = answer.into_parts();
    codec.encode(Message::Item((head, BodySize::None)), to)
}

async fn refuse<T, B>(
    mut io: T,
    mut codec: Codec,
    mut answer: Response<B>,
    mut out: BytesMut,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: MessageBody,
{
    answer.head_mut().set_connection_type(ConnectionType::Close);
    // The end of the connection ends a body of unknown length.
    answer.head_mut().no_chunking(true);
    let (head, body) = answer.into_parts();
    codec.encode(Message::Item((head, body.size())), &mut out)?;
    let mut body = pin!(body);
    while let Some(chunk) = poll_fn(|task| body.as_mut().poll_next(task)).await {
        let chunk = chunk.map_err(|e| io::Error::other(e.into().to_string()))?;
        codec.encode(Message::Chunk(Some(chunk)), &mut out)?;
        io.write_all(&out).await?;
        out.clear();
    }
    codec.encode(Message::Chunk(None), &mut out)?;
    io.write_all(&out).await?;
    io.shutdown().await?;
    let mut ignored = [0; 4096];
    let _ = timeout(LINGER, async {
        while io.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    Ok(())
}
