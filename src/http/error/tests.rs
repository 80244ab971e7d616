use std::io;

use actix_web::{
    test::TestRequest,
    web::{self, ServiceConfig},
};
use serde_json::json;

use super::*;
use crate::http::testing::{ok, server};

fn routes(cfg: &mut ServiceConfig) {
    async fn failing(code: web::Path<String>) -> Result<&'static str, ApiError> {
        let code = ErrorCode::ALL.iter().find(|c| c.code() == *code).unwrap();
        Err(ApiError::new(*code))
    }
    async fn internal() -> Result<&'static str, ApiError> {
        let cause = io::Error::other("disk 7 is on fire");
        Err(ApiError::internal(cause).detail("secret detail"))
    }
    async fn full() -> Result<&'static str, ApiError> {
        Err(ApiError::new(ErrorCode::DeviceLimitReached)
            .detail("five of five")
            .extension("devices", json!([{"id": "d1"}]))
            .extension("code", "not_this"))
    }
    async fn busy() -> Result<&'static str, ApiError> {
        Err(ApiError::new(ErrorCode::SmsCooldown).retry_after(42))
    }
    async fn fields() -> Result<&'static str, ApiError> {
        Err(vec![
            FieldError::new("phone", "expected +"),
            FieldError::new("code", "expected 6 digits"),
        ]
        .into())
    }
    async fn socket(req: HttpRequest) -> Result<HttpResponse, actix_web::Error> {
        actix_http::ws::handshake(req.head())?;
        Ok(HttpResponse::SwitchingProtocols().finish())
    }
    cfg.route("/fail/{code}", web::get().to(failing))
        .route("/internal", web::get().to(internal))
        .route("/full", web::get().to(full))
        .route("/busy", web::get().to(busy))
        .route("/fields", web::get().to(fields))
        .route("/builtin", web::post().to(async |_: web::Json<u8>| "ok"))
        .route(
            "/plain",
            web::get().to(|| async { HttpResponse::BadGateway().body("oops") }),
        )
        .route("/socket", web::get().to(socket))
        .service(web::resource("/both").get(ok).put(ok))
        .service(
            web::resource("/health")
                .guard(actix_web::guard::Get())
                .to(ok),
        );
}

#[actix_web::test]
async fn every_code_becomes_its_problem() {
    let server = server(routes);
    for code in ErrorCode::ALL {
        let answer = server.get(&format!("/fail/{code}")).await;
        answer.is_problem(*code, code.title(), &json!({}));
        let retries = matches!(code.status(), 429 | 503);
        assert_eq!(
            answer.header("retry-after"),
            retries.then_some("1"),
            "{code}"
        );
        let challenge = (code.status() == 401).then_some("Bearer");
        assert_eq!(answer.header("www-authenticate"), challenge, "{code}");
        let upgrade = (code.status() == 426).then_some("websocket");
        assert_eq!(answer.header("upgrade"), upgrade, "{code}");
    }
}

#[actix_web::test]
async fn a_problem_carries_members_fields_and_its_own_retry() {
    let server = server(routes);
    server.get("/full").await.is_problem(
        ErrorCode::DeviceLimitReached,
        "five of five",
        &json!({"devices": [{"id": "d1"}]}),
    );
    server.get("/fields").await.is_problem(
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest.title(),
        &json!({"errors": [
            {"field": "phone", "detail": "expected +"},
            {"field": "code", "detail": "expected 6 digits"},
        ]}),
    );
    let busy = server.get("/busy").await;
    assert_eq!(busy.header("retry-after"), Some("42"));
}

#[actix_web::test]
async fn a_failure_of_ours_is_opaque() {
    let answer = server(routes).get("/internal").await;
    answer.is_problem(ErrorCode::Internal, ErrorCode::Internal.title(), &json!({}));
}

#[actix_web::test]
async fn the_frameworks_own_errors_become_problems() {
    let server = server(routes);
    let wrong = TestRequest::post().uri("/builtin").set_payload("[");
    let wrong = server.call(wrong).await;
    assert_eq!(wrong.header("content-type"), Some(PROBLEM_JSON));
    let plain = server.get("/plain").await;
    plain.is_problem(ErrorCode::Internal, ErrorCode::Internal.title(), &json!({}));
}

#[actix_web::test]
async fn a_handshake_that_is_none_is_told_so() {
    let server = server(routes);
    let plain = server.get("/socket").await;
    let detail = "WebSocket upgrade is expected";
    plain.is_problem(ErrorCode::UpgradeRequired, detail, &json!({}));

    let old = TestRequest::get()
        .uri("/socket")
        .insert_header(("connection", "upgrade"))
        .insert_header(("upgrade", "websocket"))
        .insert_header(("sec-websocket-version", "7"));
    let detail = "unsupported WebSocket version";
    let old = server.call(old).await;
    old.is_problem(ErrorCode::InvalidHeader, detail, &json!({}));
}

#[actix_web::test]
async fn no_route_and_no_method_are_told_apart() {
    let server = server(routes);
    let nowhere = server.get("/nowhere").await;
    nowhere.is_problem(ErrorCode::NotFound, ErrorCode::NotFound.title(), &json!({}));

    let title = ErrorCode::MethodNotAllowed.title();
    let wrong = server.call(TestRequest::delete().uri("/both")).await;
    wrong.is_problem(ErrorCode::MethodNotAllowed, title, &json!({}));
    assert_eq!(wrong.header("allow"), Some("GET, PUT"));

    // A guard instead of methods: the framework finds no route, the description knows the path.
    let guarded = server.call(TestRequest::delete().uri("/health")).await;
    guarded.is_problem(ErrorCode::MethodNotAllowed, title, &json!({}));
    assert_eq!(guarded.header("allow"), Some("GET"));
}

#[actix_web::test]
async fn an_error_is_not_sent_as_the_compressed_answer_that_it_replaces() {
    let server = server(routes);
    for uri in ["/plain", "/busy", "/nowhere"] {
        let req = TestRequest::get()
            .uri(uri)
            .insert_header(("accept-encoding", "gzip"));
        let answer = server.call(req).await;
        assert_eq!(answer.header("content-encoding"), None, "{uri}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["status"], answer.status, "{uri}");
    }
    // No encoding that this server has: the framework's text becomes a problem too.
    let req = TestRequest::get()
        .uri("/both")
        .insert_header(("accept-encoding", "br, identity;q=0"));
    let answer = server.call(req).await;
    answer.is_problem(
        ErrorCode::InvalidHeader,
        ErrorCode::InvalidHeader.title(),
        &json!({}),
    );
}

#[test]
fn the_log_gets_the_whole_chain() {
    #[derive(Debug, thiserror::Error)]
    #[error("could not write")]
    struct Outer(#[source] io::Error);
    let e: Source = Box::new(Outer(io::Error::other("no space")));
    assert_eq!(chain(&*e), "could not write: no space");
}

#[test]
fn an_error_without_a_request_is_still_a_problem() {
    let res = ApiError::from(FieldError::new("phone", "missing")).error_response();
    assert_eq!(res.status(), 422);
    assert_eq!(res.headers().get("content-type").unwrap(), PROBLEM_JSON);
}
