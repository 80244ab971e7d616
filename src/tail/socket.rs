//! The WebSocket itself: making it, reading and writing one frame, closing it.
//!
//! Turns what the library says into the inputs of the rules; knows nothing of what they mean.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{
    api::{Api, problem, retry_after},
    error::chain,
    steps::{Input, Position},
    wire::{ClientFrame, Secret, ServerFrame},
};

const SUBPROTOCOL: &str = "listen-stream.v1";
const SEND_WITHIN: Duration = Duration::from_secs(10);
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// The protocol's frames are much smaller.
const FRAME_MOST: usize = 1024 * 1024;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) async fn dial(
    api: &Api,
    token: Option<&Secret>,
    position: &Position,
) -> Result<Socket, tungstenite::Error> {
    let mut request = api.socket_url(position).as_str().into_client_request()?;
    let headers = request.headers_mut();
    if let Some(Secret(token)) = token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_MOST))
        .max_frame_size(Some(FRAME_MOST));
    let tls = Connector::Rustls(api.tls.clone());
    let (socket, _) = connect_async_tls_with_config(request, Some(config), true, Some(tls)).await?;
    Ok(socket)
}

pub(super) fn not_dialed(error: &tungstenite::Error) -> Input {
    match error {
        tungstenite::Error::Http(response) => {
            let retry_after = retry_after(response.headers().get(header::RETRY_AFTER));
            let body = response.body().as_deref().unwrap_or_default();
            let problem = problem(response.status().as_u16(), retry_after, body);
            Input::Refused {
                status: problem.status,
                why: format!("the server answered {} {}", problem.status, problem.code),
                retry_after,
            }
        }
        error => Input::Lost { why: chain(error) },
    }
}

pub(super) fn read(frame: Option<Result<Message, tungstenite::Error>>) -> Input {
    match frame {
        Some(Ok(Message::Text(text))) => {
            ServerFrame::parse(&text).map_or(Input::Unreadable, Input::Frame)
        }
        Some(Ok(Message::Binary(_))) => Input::Unreadable,
        Some(Ok(Message::Close(frame))) => Input::Closed {
            code: frame.as_ref().map(|frame| frame.code.into()),
            reason: frame.map_or_else(String::new, |frame| frame.reason.to_string()),
        },
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Input::Heard,
        Some(Err(error)) => Input::Lost { why: chain(&error) },
        None => Input::Lost {
            why: "the connection ended".to_owned(),
        },
    }
}

pub(super) async fn send(
    socket: &mut Option<&mut Socket>,
    frame: &ClientFrame,
) -> Result<(), String> {
    let Some(socket) = socket else {
        return Ok(());
    };
    let text = serde_json::to_string(frame).map_err(|e| e.to_string())?;
    match timeout(SEND_WITHIN, socket.send(Message::text(text))).await {
        Ok(sent) => sent.map_err(|e| chain(&e)),
        Err(_) => Err("the server does not read".to_owned()),
    }
}

/// Says goodbye and gives the server a moment to say it too.
pub(super) async fn close(socket: &mut Option<&mut Socket>, code: u16) {
    if let Some(open) = socket {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        let _ = timeout(CLOSE_WITHIN, WebSocketStream::close(open, Some(frame))).await;
    }
    drain(socket).await;
}

/// Lets the closing handshake finish. What still comes is not acknowledged, so it comes again.
pub(super) async fn drain(socket: &mut Option<&mut Socket>) {
    if let Some(socket) = socket {
        let rest = async { while let Some(Ok(_)) = socket.next().await {} };
        let _ = timeout(CLOSE_WITHIN, rest).await;
    }
}
