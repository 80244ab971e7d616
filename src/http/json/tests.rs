use actix_web::{
    test::TestRequest,
    web::{Bytes, ServiceConfig},
};
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::http::{
    history::NewPlays,
    identity::NewSession,
    testing::{Answer, Server, server},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    phone: String,
    device: Device,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    platform: Platform,
    #[serde(default)]
    slots: Vec<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Platform {
    Ios,
    Web,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u16>,
    cursor: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Platform,
    id: uuid::Uuid,
}

fn routes(cfg: &mut ServiceConfig) {
    async fn login(Json(body): Json<Login>) -> String {
        let Device { platform, slots } = body.device;
        format!("{} {platform:?} {}", body.phone, slots.len())
    }
    async fn page(Query(page): Query<Page>) -> String {
        format!("{:?} {}", page.limit, page.cursor)
    }
    async fn target(Path(t): Path<Target>) -> String {
        format!("{:?} {}", t.kind, t.id)
    }
    async fn pair(Path((kind, n)): Path<(Platform, u8)>) -> String {
        format!("{kind:?} {n}")
    }
    async fn one(Path(n): Path<u8>) -> String {
        n.to_string()
    }
    cfg.route("/login", web::post().to(login))
        .route("/page", web::get().to(page))
        .route("/targets/{kind}/{id}", web::get().to(target))
        .route("/pairs/{kind}/{n}", web::get().to(pair))
        .route("/ones/{n}", web::get().to(one));
}

async fn post(server: &Server, body: impl Into<Bytes>) -> Answer {
    let req = TestRequest::post()
        .uri("/login")
        .insert_header(("content-type", "application/json; charset=utf-8"))
        .set_payload(body);
    server.call(req).await
}

#[actix_web::test]
async fn a_good_body_is_taken() {
    let body = r#" {"phone":"+861","device":{"platform":"ios","slots":[1]}} "#;
    assert_eq!(post(&server(routes), body).await.text(), "+861 Ios 1");
}

#[actix_web::test]
async fn what_cannot_be_taken_is_named() {
    let server = server(routes);
    for (body, field, detail) in [
        (
            r#"{"phone":"1","devise":{}}"#,
            "devise",
            "unknown field, expected `phone` or `device`",
        ),
        (
            r#"{"phone":"1","device":{"platform":"ios","x":1}}"#,
            "device.x",
            "unknown field, expected `platform` or `slots`",
        ),
        (r#"{"phone":"1"}"#, "device", "missing"),
        (r#"{"phone":"1","device":{}}"#, "device.platform", "missing"),
        (r#"{"phone":"1","phone":"2"}"#, "phone", "given twice"),
        (
            r#"{"phone":7}"#,
            "phone",
            "invalid type: integer `7`, expected a string",
        ),
        (
            r#"{"phone":"1","device":"ios"}"#,
            "device",
            r#"invalid type: string "ios", expected an object"#,
        ),
        (
            r#"{"phone":"1","device":{"platform":"vax"}}"#,
            "device.platform",
            "unknown variant `vax`, expected `ios` or `web`",
        ),
        (
            r#"{"phone":"1","device":{"platform":"ios","slots":[1,300]}}"#,
            "device.slots[1]",
            "invalid value: integer `300`, expected u8",
        ),
        ("[]", "body", "expected an object"),
        ("7", "body", "expected an object"),
        ("null", "body", "expected an object"),
    ] {
        post(&server, body).await.refuses(field, detail);
    }
}

#[actix_web::test]
async fn what_is_not_json_is_told_where() {
    let server = server(routes);
    let deep = "[".repeat(200);
    let good = r#"{"phone":"1","device":{"platform":"ios"}}"#;
    for (body, line, column) in [
        ("", 1, 0),
        ("{\n \"phone\": nope}", 2, 12),
        ("{\"phone\":\"1\"", 1, 12),
        ("[1,", 1, 3),
        (&format!("{good} x"), 1, 43),
        (&format!("{good}{good}"), 1, 42),
    ] {
        let answer = post(&server, body.to_owned()).await;
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let detail = told["detail"].as_str().unwrap();
        assert!(
            detail.ends_with(&format!("at line {line} column {column}")),
            "{detail}"
        );
        let members = json!({"line": line, "column": column});
        answer.is_problem(ErrorCode::MalformedJson, detail, &members);
    }
    // Deep nesting ends the parse before it ends the stack.
    assert_eq!(post(&server, deep).await.status, 400);
    let not_text = b"{\"phone\":\"\xff\"}".to_vec();
    assert_eq!(post(&server, not_text).await.status, 400);
}

#[actix_web::test]
async fn long_names_are_not_echoed_whole() {
    let name = "x".repeat(100_000);
    let answer = post(&server(routes), format!(r#"{{"{name}":1}}"#)).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.len() < 2_000);
}

#[actix_web::test]
async fn the_body_must_be_declared_and_small() {
    let server = server(routes);
    for req in [
        TestRequest::post(),
        TestRequest::post().insert_header(("content-type", "text/plain")),
        TestRequest::post().insert_header(("content-type", "application/jsonx")),
    ] {
        let answer = server.call(req.uri("/login").set_payload("{}")).await;
        let code = ErrorCode::UnsupportedMediaType;
        answer.is_problem(code, code.title(), &json!({}));
    }

    let detail = "the body is over 1048576 bytes";
    let over = post(&server, vec![b' '; MAX_BODY + 1]).await;
    over.is_problem(ErrorCode::BodyTooLarge, detail, &json!({}));
    let declared = TestRequest::post()
        .uri("/login")
        .insert_header(("content-type", "application/json"))
        .insert_header(("content-length", "1048577"));
    let declared = server.call(declared).await;
    declared.is_problem(ErrorCode::BodyTooLarge, detail, &json!({}));

    let mut full = br#"{"phone":"1","device":{"platform":"web"}}"#.to_vec();
    full.resize(MAX_BODY, b' ');
    assert_eq!(post(&server, full).await.status, 200);
}

#[actix_web::test]
async fn a_query_is_refused_by_name() {
    let server = server(routes);
    assert_eq!(
        server.get("/page?cursor=a%20b&limit=5").await.text(),
        "Some(5) a b"
    );
    for (uri, field, detail) in [
        ("/page", "cursor", "missing"),
        ("/page?cursor=a&cursor=b", "cursor", "given twice"),
        (
            "/page?cursor=a&limit=x",
            "limit",
            "invalid digit found in string",
        ),
        (
            "/page?cursor=a&limti=5",
            "limti",
            "unknown field, expected `limit` or `cursor`",
        ),
    ] {
        server.get(uri).await.refuses(field, detail);
    }
}

#[actix_web::test]
async fn a_path_is_refused_by_name() {
    let server = server(routes);
    let id = "019aa0bc-3800-7000-8000-000000000000";
    let good = server.get(&format!("/targets/ios/{id}")).await;
    assert_eq!(good.text(), format!("Ios {id}"));
    assert_eq!(server.get("/pairs/web/7").await.text(), "Web 7");
    for (uri, field) in [
        (format!("/targets/vax/{id}"), "kind"),
        ("/targets/ios/7".to_owned(), "id"),
        ("/pairs/vax/7".to_owned(), "kind"),
        ("/pairs/web/x".to_owned(), "n"),
        ("/ones/x".to_owned(), "n"),
    ] {
        let answer = server.get(&uri).await;
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let detail = told["errors"][0]["detail"].as_str().unwrap();
        answer.refuses(field, detail);
    }
}

#[test]
fn what_is_within_a_body_is_objects_too() {
    let session = br#"{"phone":"+8613800138000","code":"123456","device":["d","ios",null,{}]}"#;
    let Err(error) = parse_json::<NewSession>(session) else {
        panic!("a list was taken for a device");
    };
    assert!(error.body(None).contains(r#""field":"device""#));
    let plays = br#"{"plays":[["01900000-0000-4000-8000-000000000001","s","S","",0,"2026-11-20T10:00:00Z"]]}"#;
    let Err(error) = parse_json::<NewPlays>(plays) else {
        panic!("a list was taken for a play");
    };
    let text = error.body(None);
    assert!(text.contains(r#""field":"plays[0]""#), "{text}");
    assert!(text.contains("expected an object"), "{text}");
}
