//! Sockets where the server may be away, or die at any moment: nothing here fails a test.

use std::{sync::atomic::AtomicBool, time::Duration};

use futures_util::SinkExt as _;
use tokio::{net::TcpSocket, time::timeout};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::HeaderValue},
};

use super::{Arc, Incoming, Mute, PROTOCOL, Socket, Value};
use crate::support::{Answer, Device, PATIENCE};

/// Why a socket did not open.
#[derive(Debug)]
pub enum Unopened {
    /// The upgrade was answered with something else.
    Refused(Box<Answer>),
    /// No answer came, or the connection ended before the welcome; with the close code if one came.
    Gone(Option<u16>),
}

impl Socket {
    /// Connects with the access token and a query such as `?since=3&epoch=…`, and reads the welcome.
    pub async fn try_open(device: &Device, query: &str) -> Result<Self, Unopened> {
        Self::attempt(device, query, None).await
    }

    /// The same with a receive buffer of about so many bytes: what the server can send to a client
    /// that does not read is then little.
    pub async fn open_narrow(device: &Device, bytes: u32) -> Self {
        let opened = Self::attempt(device, "", Some(bytes)).await;
        opened.unwrap_or_else(|why| panic!("the socket did not open: {why:?}"))
    }

    async fn attempt(device: &Device, query: &str, buffer: Option<u32>) -> Result<Self, Unopened> {
        let gone = |_: std::io::Error| Unopened::Gone(None);
        let socket = TcpSocket::new_v4().map_err(gone)?;
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes).map_err(gone)?;
        }
        let address = device.api.address().parse().unwrap();
        let connecting = timeout(PATIENCE, socket.connect(address)).await;
        let stream = connecting
            .map_err(|_| Unopened::Gone(None))?
            .map_err(gone)?;
        stream.set_nodelay(true).map_err(gone)?;
        let url = format!("ws://{address}/v1/sync{query}");
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {}", device.access);
        for (name, value) in [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", PROTOCOL),
        ] {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(name, value);
        }
        let muted = Arc::new(AtomicBool::new(false));
        let stream = Mute {
            stream,
            muted: muted.clone(),
        };
        let stream = match timeout(PATIENCE, client_async(request, stream)).await {
            Ok(Ok((stream, _))) => stream,
            Ok(Err(Error::Http(response))) => {
                let (parts, body) = response.into_parts();
                let body = body.unwrap_or_default();
                let answer = Answer::new(parts.status.as_u16(), parts.headers, &body);
                return Err(Unopened::Refused(Box::new(answer)));
            }
            _ => return Err(Unopened::Gone(None)),
        };
        let mut socket = Self {
            stream,
            muted,
            pings: 0,
            hears_presence: false,
            welcome: Value::Null,
        };
        match socket.heard(PATIENCE).await {
            Some(Incoming::Frame(frame)) if frame["type"] == "welcome" => {
                socket.welcome = frame;
                Ok(socket)
            }
            Some(Incoming::Close(code)) => Err(Unopened::Gone(Some(code))),
            Some(Incoming::Frame(frame)) => panic!("not a welcome: {frame:#}"),
            _ => Err(Unopened::Gone(None)),
        }
    }

    /// What comes within `limit`, if anything does.
    pub async fn heard(&mut self, limit: Duration) -> Option<Incoming> {
        timeout(limit, self.read()).await.ok()
    }

    /// Sends, and says whether the connection took it.
    pub async fn try_send(&mut self, frame: &Value) -> bool {
        let message = Message::text(frame.to_string());
        let sent = timeout(PATIENCE, self.stream.send(message)).await;
        matches!(sent, Ok(Ok(())))
    }
}
