//! Input that must be refused by the field's name, and must change nothing.

use serde_json::{Value, json};

use crate::support::{
    Device, Server,
    client::{login_body, send},
    phone,
};

/// A change to a good login, and the field that the refusal names.
type Case = (fn(&mut Value), &'static str);

const LOGINS: &[Case] = &[
    (|body| remove(body, "phone"), "phone"),
    (|body| body["phone"] = json!("13800138000"), "phone"),
    (|body| body["phone"] = json!("+1234567"), "phone"),
    (|body| body["phone"] = json!("+1234567890123456"), "phone"),
    (|body| body["phone"] = json!("+86138001380zz"), "phone"),
    (|body| body["phone"] = json!(" +8613800138000"), "phone"),
    (|body| body["phone"] = json!(""), "phone"),
    (|body| body["phone"] = json!(8_613_800_138_000_u64), "phone"),
    (|body| body["phone"] = Value::Null, "phone"),
    (|body| remove(body, "code"), "code"),
    (|body| body["code"] = json!("12345"), "code"),
    (|body| body["code"] = json!("1234567"), "code"),
    (|body| body["code"] = json!("12345a"), "code"),
    (|body| body["code"] = json!("１２３４５６"), "code"),
    (|body| body["code"] = json!(123_456), "code"),
    (|body| remove(body, "device"), "device"),
    (|body| body["device"] = json!("phone"), "device"),
    (|body| body["device"] = json!([]), "device"),
    (
        |body| remove(&mut body["device"], "device_id"),
        "device.device_id",
    ),
    (
        |body| body["device"]["device_id"] = json!(""),
        "device.device_id",
    ),
    (
        |body| body["device"]["device_id"] = json!("a b"),
        "device.device_id",
    ),
    (
        |body| body["device"]["device_id"] = json!("ä"),
        "device.device_id",
    ),
    (
        |body| body["device"]["device_id"] = json!("a/b"),
        "device.device_id",
    ),
    (
        |body| body["device"]["device_id"] = json!("x".repeat(129)),
        "device.device_id",
    ),
    (
        |body| body["device"]["device_id"] = json!(7),
        "device.device_id",
    ),
    (
        |body| remove(&mut body["device"], "platform"),
        "device.platform",
    ),
    (
        |body| body["device"]["platform"] = json!("symbian"),
        "device.platform",
    ),
    (
        |body| body["device"]["platform"] = json!("IOS"),
        "device.platform",
    ),
    (
        |body| body["device"]["platform"] = json!(1),
        "device.platform",
    ),
    (|body| body["device"]["name"] = json!(""), "device.name"),
    (
        |body| body["device"]["name"] = json!("x".repeat(65)),
        "device.name",
    ),
    (|body| body["device"]["name"] = json!("a\nb"), "device.name"),
    (|body| body["device"]["name"] = json!(true), "device.name"),
    (
        |body| body["device"]["fingerprint"] = json!("x"),
        "device.fingerprint",
    ),
    (
        |body| body["device"]["fingerprint"] = json!([1]),
        "device.fingerprint",
    ),
    (
        |body| body["device"]["fingerprint"] = json!({"x": "y".repeat(4096)}),
        "device.fingerprint",
    ),
    (
        |body| body["device"]["colour"] = json!("red"),
        "device.colour",
    ),
    (
        |body| body["replace_device_id"] = json!(5),
        "replace_device_id",
    ),
    (|body| body["extra"] = json!(1), "extra"),
];

both_engines! {
    async fn a_login_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let code = api.new_code(&phone).await;
        let good = login_body(&phone, &code, "mine");
        for (index, (change, field)) in LOGINS.iter().enumerate() {
            let mut body = good.clone();
            change(&mut body);
            let answer = api.sign_in(&body).await;
            assert_eq!(answer.status, 422, "case {index}, {field}: {body:#} {:#}", answer.body);
            answer.invalid(field);
        }
        // Neither tries nor the code were used up, and no device was made.
        let me = Device::new(&api, &api.sign_in(&good).await.ok(201));
        assert_eq!(me.devices().await.len(), 1);
    }

    async fn what_a_login_may_just_still_be(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let mut body = login_body(&phone, &api.new_code(&phone).await, &"x".repeat(128));
        body["device"]["name"] = json!("厨".repeat(64));
        // Exactly 4 KiB: the quotes, the name and the braces take 8.
        body["device"]["fingerprint"] = json!({"x": "y".repeat(4096 - 8)});
        let answer = api.sign_in(&body).await.ok(201);
        assert_eq!(answer["device"]["device_id"], "x".repeat(128));
        assert_eq!(answer["device"]["name"], "厨".repeat(64));
    }

    async fn a_code_request_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        let bad = ["", "13800138000", "+1234567", "+1234567890123456", "+86 138", "+", "＋8613800138000"];
        for phone in bad {
            api.ask_code(phone).await.invalid("phone");
            assert!(api.codes(phone).is_empty());
        }
        for body in [json!({}), json!({"phone": 1}), json!({"phone": null})] {
            api.post("/v1/auth/sms-codes", &body).await.invalid("phone");
        }
        let body = json!({"phone": phone(), "region": "CN"});
        api.post("/v1/auth/sms-codes", &body).await.invalid("region");
    }

    async fn a_rotation_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        let path = "/v1/auth/tokens";
        for body in [json!({}), json!({"refresh_token": 1}), json!({"refresh_token": null})] {
            api.post(path, &body).await.invalid("refresh_token");
        }
        let me = api.newcomer("mine").await;
        let body = json!({"refresh_token": me.refresh, "device_id": "mine"});
        api.post(path, &body).await.invalid("device_id");
        api.rotate(&me.refresh, None).await.ok(200);
    }

    async fn what_is_not_json_is_malformed(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        for path in ["/v1/auth/sms-codes", "/v1/auth/sessions", "/v1/auth/tokens"] {
            for text in ["", "{", "{\"phone\":}", "nonsense", "{}{}"] {
                let request = api
                    .request(reqwest::Method::POST, path)
                    .header("content-type", "application/json")
                    .body(text);
                let answer = send(request).await;
                assert_eq!(answer.status, 400, "{path} {text}: {:#}", answer.body);
                answer.problem(400, "malformed_json");
            }
        }
    }
}

fn remove(body: &mut Value, field: &str) {
    body.as_object_mut().unwrap().remove(field);
}
