//! Logging in, the limit of devices, logging out, and tokens that must be refused.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::support::{
    Device, PATIENCE, Server, Socket, assert_shape,
    client::{login_body, wrong_code},
    eventually, phone, within,
};

both_engines! {
    async fn login_answers_the_whole_contract(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());

        let sent = api.ask_code(&phone).await.ok(202);
        assert_eq!(sent, json!({"expires_in": 300, "resend_after": 1}));
        eventually("the code is sent", async || !api.codes(&phone).is_empty()).await;
        let code = api.codes(&phone).pop().unwrap();
        assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");

        let answer = api
            .sign_in(&json!({
                "phone": phone,
                "code": code,
                "device": {
                    "device_id": "A.phone:1_x-y",
                    "platform": "android",
                    "name": "Küche 厨房",
                    "fingerprint": {"model": "X1", "os": {"version": 14}},
                },
            }))
            .await;
        assert!(answer.header("x-request-id").is_some());
        let body = answer.ok(201);
        let device = json!({
            "id": "<uuid>",
            "device_id": "A.phone:1_x-y",
            "platform": "android",
            "name": "Küche 厨房",
        });
        assert_shape(&body, json!({
            "access_token": "<jwt>",
            "refresh_token": "<refresh>",
            "token_type": "Bearer",
            "expires_in": 900,
            "user": {"id": "<uuid>", "phone": phone, "role": "USER", "created_at": "<time>"},
            "device": device,
        }));

        let me = Device::new(&api, &body);
        assert_eq!(me.me().await.ok(200), body["user"]);
        let listed = me.devices().await;
        assert_shape(&listed.into(), json!([{
            "id": me.id,
            "device_id": "A.phone:1_x-y",
            "platform": "android",
            "name": "Küche 厨房",
            "current": true,
            "last_active_at": "<time>",
            "created_at": "<time>",
        }]));
    }

    async fn a_name_is_optional(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let code = api.new_code(&phone).await;
        let body = api
            .sign_in(&json!({
                "phone": phone,
                "code": code,
                "device": {"device_id": "tv", "platform": "tv"},
            }))
            .await
            .ok(201);
        assert_eq!(body["device"]["name"], "tv");
    }

    async fn a_second_device_belongs_to_the_same_user(engine) {
        let server = Server::start(engine).await;
        let first = server.api().newcomer("first").await;
        let second = server.api().login(&first.phone, "second").await;
        assert_eq!(first.user_id, second.user_id);
        assert_ne!(first.id, second.id);
        assert_eq!(first.me().await.ok(200), second.me().await.ok(200));
        for me in [&first, &second] {
            let devices = me.devices().await;
            assert_eq!(devices.len(), 2);
            for device in devices {
                assert_eq!(device["current"], device["id"] == me.id.as_str(), "{device:#}");
            }
        }
    }

    async fn the_same_device_logs_in_again_and_stays_one(engine) {
        let server = Server::start(engine).await;
        let first = server.api().newcomer("same").await;
        let again = server.api().login(&first.phone, "same").await;
        assert_eq!((&first.user_id, &first.id), (&again.user_id, &again.id));
        assert_eq!(again.devices().await.len(), 1);
        again.me().await.ok(200);
    }

    async fn users_may_share_a_device(engine) {
        let server = Server::start(engine).await;
        let one = server.api().newcomer("shared").await;
        let other = server.api().newcomer("shared").await;
        assert_ne!(one.user_id, other.user_id);
        assert_ne!(one.id, other.id);
        assert_eq!(one.devices().await.len(), 1);
        one.me().await.ok(200);
    }

    async fn five_wrong_tries_use_a_code_up(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let code = api.new_code(&phone).await;
        for step in 1..=5 {
            let body = login_body(&phone, &wrong_code(&code, step), "mine");
            api.sign_in(&body).await.problem(401, "sms_code_invalid");
        }
        let right = login_body(&phone, &code, "mine");
        let answer = api.sign_in(&right).await;
        answer.problem(429, "sms_code_exhausted");

        let code = api.new_code(&phone).await;
        api.sign_in(&login_body(&phone, &code, "mine")).await.ok(201);
    }

    async fn four_wrong_tries_leave_the_right_one(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let code = api.new_code(&phone).await;
        for step in 1..=4 {
            let body = login_body(&phone, &wrong_code(&code, step), "mine");
            api.sign_in(&body).await.problem(401, "sms_code_invalid");
        }
        api.sign_in(&login_body(&phone, &code, "mine")).await.ok(201);
    }

    async fn a_code_serves_once(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let code = api.new_code(&phone).await;
        let first = api.sign_in(&login_body(&phone, &code, "first")).await.ok(201);
        for device in ["first", "second"] {
            let body = login_body(&phone, &code, device);
            api.sign_in(&body).await.problem(401, "sms_code_invalid");
        }
        assert_eq!(Device::new(&api, &first).devices().await.len(), 1);
    }

    async fn a_code_serves_its_phone_only(engine) {
        let server = Server::start(engine).await;
        let (api, one, other) = (server.api(), phone(), phone());
        let code = api.new_code(&one).await;
        let body = login_body(&other, &code, "mine");
        api.sign_in(&body).await.problem(401, "sms_code_invalid");
        api.sign_in(&login_body(&one, &code, "mine")).await.ok(201);
    }

    async fn one_code_used_twice_at_once_lets_one_in(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let code = api.new_code(&phone).await;
        let bodies = ["one", "two", "three", "four"].map(|id| login_body(&phone, &code, id));
        let answers =
            futures_util::future::join_all(bodies.iter().map(|body| api.sign_in(body))).await;
        let mut winners = Vec::new();
        for answer in answers {
            if answer.status == 201 {
                winners.push(Device::new(&api, &answer.ok(201)));
            } else {
                answer.problem(401, "sms_code_invalid");
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(winners[0].devices().await.len(), 1);
    }

    async fn a_phone_waits_before_it_asks_again(engine) {
        let server = Server::with(engine, &[("sms.resend_secs", "60")]).await;
        let (api, phone) = (server.api(), phone());
        let sent = api.ask_code(&phone).await.ok(202);
        assert_eq!(sent, json!({"expires_in": 300, "resend_after": 60}));
        let refused = api.ask_code(&phone).await;
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        refused.problem(429, "sms_cooldown");
        eventually("the code is sent", async || !api.codes(&phone).is_empty()).await;
        assert_eq!(api.codes(&phone).len(), 1);

        // Another phone does not wait, and the first code still serves.
        api.newcomer("other").await;
        let code = api.codes(&phone).pop().unwrap();
        api.sign_in(&login_body(&phone, &code, "mine")).await.ok(201);
    }

    async fn the_sixth_device_replaces_one(engine) {
        let server = Server::start(engine).await;
        let (api, phone) = (server.api(), phone());
        let mut devices = Vec::new();
        for id in ["d1", "d2", "d3", "d4", "d5"] {
            devices.push(api.login(&phone, id).await);
        }
        let mut socket = Socket::open(&devices[1]).await;
        let code = api.new_code(&phone).await;

        // More refusals than there are tries: neither a try nor the code is used up.
        for _ in 0..7 {
            let refused = api.sign_in(&login_body(&phone, &code, "d6")).await;
            let body = refused.problem(409, "device_limit_reached");
            check_listed(&body["devices"], &devices);
        }
        let mut body = login_body(&phone, &code, "d6");
        body["replace_device_id"] = json!("nobody's");
        let refused = api.sign_in(&body).await;
        assert!((400..500).contains(&refused.status), "{refused:#?}");

        body["replace_device_id"] = json!("d2");
        let sixth = Device::new(&api, &api.sign_in(&body).await.ok(201));
        let replaced = &devices[1];
        replaced.me().await.problem(401, "token_revoked");
        let rotated = api.rotate(&replaced.refresh, None).await;
        assert_eq!(rotated.status, 401, "{rotated:#?}");
        socket.expect_close(4005).await;
        let left = sixth.devices().await;
        assert_eq!(left.len(), 5);
        assert!(left.iter().all(|device| device["device_id"] != "d2"));
        api.sign_in(&body).await.problem(401, "sms_code_invalid");

        // The same by the server's id.
        let mut body = login_body(&phone, &api.new_code(&phone).await, "d7");
        body["replace_device_id"] = json!(devices[0].id);
        let seventh = Device::new(&api, &api.sign_in(&body).await.ok(201));
        devices[0].me().await.problem(401, "token_revoked");
        assert_eq!(seventh.devices().await.len(), 5);
    }

    async fn a_known_device_needs_no_room(engine) {
        let server = Server::with(engine, &[("auth.max_devices", "2")]).await;
        let one = server.api().newcomer("one").await;
        let two = server.api().login(&one.phone, "two").await;
        let again = server.api().login(&one.phone, "two").await;
        assert_eq!(two.id, again.id);
        assert_eq!(again.devices().await.len(), 2);
    }

    async fn logout_removes_the_device(engine) {
        let server = Server::start(engine).await;
        let leaving = server.api().newcomer("leaving").await;
        let staying = server.api().login(&leaving.phone, "staying").await;
        let mut socket = Socket::open(&leaving).await;

        assert_eq!(leaving.logout().await.ok(204), Value::Null);
        leaving.me().await.problem(401, "token_revoked");
        let rotated = server.api().rotate(&leaving.refresh, None).await;
        assert_eq!(rotated.status, 401, "{rotated:#?}");
        socket.expect_close(4005).await;
        let left = staying.devices().await;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0]["device_id"], "staying");

        // It may come back, as a new device.
        let back = server.api().login(&leaving.phone, "leaving").await;
        assert_ne!(back.id, leaving.id);
        leaving.me().await.problem(401, "token_revoked");
        back.me().await.ok(200);
    }

    async fn a_removed_device_is_out_at_once(engine) {
        let server = Server::start(engine).await;
        let owner = server.api().newcomer("owner").await;
        let lost = server.api().login(&owner.phone, "lost").await;
        let mut socket = Socket::open(&lost).await;
        let mut own = Socket::open(&owner).await;

        assert_eq!(owner.remove_device(&lost.id).await.ok(204), Value::Null);
        lost.me().await.problem(401, "token_revoked");
        lost.put("song", "late").await.problem(401, "token_revoked");
        socket.expect_close(4005).await;
        own.ping().await;
        assert_eq!(owner.devices().await.len(), 1);

        owner.remove_device(&lost.id).await.problem(404, "device_not_found");
        let nobody = "0193a0f2-5b7c-7c3e-8a1b-0123456789ab";
        owner.remove_device(nobody).await.problem(404, "device_not_found");
        let stranger = server.api().newcomer("stranger").await;
        owner.remove_device(&stranger.id).await.problem(404, "device_not_found");
        stranger.me().await.ok(200);
    }

    async fn a_removed_device_stays_out_after_a_restart(engine) {
        let mut server = Server::start(engine).await;
        let owner = server.api().newcomer("owner").await;
        let lost = server.api().login(&owner.phone, "lost").await;
        owner.remove_device(&lost.id).await.ok(204);
        server.kill9();
        server.restart().await;
        lost.at(&server).me().await.problem(401, "token_revoked");
        owner.at(&server).me().await.ok(200);
    }

    async fn tokens_of_others_are_refused(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let stranger = server.api().newcomer("mine").await;
        server.api().get("/v1/me").await.problem(401, "unauthenticated");

        let parts: Vec<&str> = me.access.split('.').collect();
        let signed = format!("{}.{}", parts[0], parts[1]);
        let mut header: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
        assert_eq!(header["alg"], "HS256");
        header["alg"] = json!("none");
        let none = URL_SAFE_NO_PAD.encode(header.to_string());
        let claims = stranger.access.split('.').nth(1).unwrap();
        let bad = [
            "garbage".to_owned(),
            "a.b.c".to_owned(),
            me.refresh.clone(),
            signed.clone(),
            format!("{signed}."),
            format!("{signed}.{}", sign(&signed, b"another key, as long as a key should be")),
            format!("{signed}.{}", sign(&signed, b"")),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{claims}.{}", parts[0], parts[2]),
        ];
        for token in bad {
            let answer = me.api.me_with(&format!("Bearer {token}")).await;
            assert_eq!(answer.status, 401, "{token}");
            answer.problem(401, "token_invalid");
        }
        let other_scheme = me.api.me_with("Basic bWU6c2VjcmV0").await;
        assert_eq!(other_scheme.status, 401, "{other_scheme:#?}");
        me.me().await.ok(200);
    }

    async fn a_token_expires(engine) {
        let server = Server::with(engine, &[("auth.access_token_secs", "1")]).await;
        let me = server.api().newcomer("mine").await;
        within(PATIENCE, "the token expires", async || {
            me.me().await.code() == "token_expired"
        })
        .await;
        me.me().await.problem(401, "token_expired");
        let fresh = server.api().rotate(&me.refresh, None).await.ok(200);
        assert_eq!(fresh["expires_in"], 1);
    }
}

/// The refusal lists each device once, whole.
#[track_caller]
fn check_listed(listed: &Value, devices: &[Device]) {
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), devices.len());
    for device in devices {
        let entry = listed
            .iter()
            .find(|entry| entry["id"] == device.id.as_str());
        assert_shape(
            entry.unwrap(),
            json!({
                "id": device.id,
                "device_id": device.device_id,
                "platform": "ios",
                "name": format!("{}'s", device.device_id),
                "last_active_at": "<time>",
                "created_at": "<time>",
            }),
        );
        assert!(Uuid::parse_str(&device.id).is_ok());
    }
}

/// The signature that a forger with this key would make.
fn sign(text: &str, key: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}
