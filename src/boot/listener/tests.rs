use std::net::Ipv4Addr;

use actix_web::{HttpResponse, http::StatusCode, web};
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    domain::forwarded::TrustedProxies,
    http::{stack, testing},
};

const IDLE: Duration = Duration::from_millis(200);

/// Says something long after the connection had its last request.
fn late(status: StatusCode, payload: web::Payload) -> HttpResponse {
    let body = stream::once(async move {
        sleep(5 * IDLE).await;
        // What the client says is read to the end, as by an actor.
        drop(payload);
        Ok::<_, Error>(web::Bytes::from_static(b"late"))
    });
    HttpResponse::build(status)
        .upgrade("websocket")
        .streaming(body)
}

async fn answer(address: SocketAddr, path: &str) -> String {
    let mut io = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // The end, or all there will be.
    let _ = timeout(10 * IDLE, io.read_to_end(&mut all)).await;
    String::from_utf8(all).unwrap()
}

/// A live feed is a connection without requests.
#[actix_web::test]
async fn a_connection_that_became_something_else_than_http_is_not_idle() {
    let surface = testing::server(|_| {}).surface;
    let plan = Plan {
        name: "test",
        workers: 1,
        connections: 8,
        door: Door {
            encryption: None,
            places: None,
            proxies: TrustedProxies::none(),
        },
        idle: IDLE,
        shutdown_secs: 0,
    };
    let at = open((Ipv4Addr::LOCALHOST, 0).into(), Duration::from_secs(5)).unwrap();
    let app = move || {
        stack::app(&surface)
            .route(
                "/feed",
                web::get().to(async |it| late(StatusCode::SWITCHING_PROTOCOLS, it)),
            )
            .route("/slow", web::get().to(async |it| late(StatusCode::OK, it)))
    };
    let listener = plan
        .serve(at, move |http| http.builder().finish(service(app())))
        .unwrap();
    let (address, handle) = (listener.address, listener.handle);
    let asking = async {
        let feed = answer(address, "/feed").await;
        assert!(
            feed.starts_with("HTTP/1.1 101 ") && feed.ends_with("\r\n\r\nlate"),
            "{feed}"
        );
        let slow = answer(address, "/slow").await;
        assert!(
            slow.starts_with("HTTP/1.1 200 ") && !slow.contains("late"),
            "{slow}"
        );
        handle.stop(false).await;
    };
    let (ended, ()) = tokio::join!(listener.server, asking);
    ended.unwrap();
}
