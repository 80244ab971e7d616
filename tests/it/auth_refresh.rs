//! Refresh tokens: rotation, honest retries, and reuse that signs the device out.

use serde_json::json;

use crate::support::{Api, Device, Server, Socket, assert_shape};

both_engines! {
    async fn a_rotation_answers_as_a_login_does(engine) {
        let server = Server::start(engine).await;
        let (api, first) = (server.api(), server.api().newcomer("mine").await);
        let body = api.rotate(&first.refresh, None).await.ok(200);
        assert_shape(&body, json!({
            "access_token": "<jwt>",
            "refresh_token": "<refresh>",
            "token_type": "Bearer",
            "expires_in": 900,
            "user": {
                "id": first.user_id,
                "phone": first.phone,
                "role": "USER",
                "created_at": "<time>",
            },
            "device": {
                "id": first.id,
                "device_id": "mine",
                "platform": "ios",
                "name": "mine's",
            },
        }));
        let second = Device::new(&api, &body);
        assert_ne!(first.refresh, second.refresh);
        second.me().await.ok(200);
        let third = Device::new(&api, &api.rotate(&second.refresh, None).await.ok(200));
        assert_ne!(second.refresh, third.refresh);
        third.me().await.ok(200);
        assert_eq!(third.devices().await.len(), 1);
    }

    async fn a_retry_gets_the_same_pair(engine) {
        let server = Server::start(engine).await;
        let (api, first) = (server.api(), server.api().newcomer("mine").await);
        let pair = api.rotate(&first.refresh, Some("try-1")).await.ok(200);
        for _ in 0..3 {
            let again = api.rotate(&first.refresh, Some("try-1")).await.ok(200);
            assert_eq!(again, pair);
        }
        // The line goes on from there, and the next rotation has a key of its own.
        let second = Device::new(&api, &pair);
        second.me().await.ok(200);
        let next = api.rotate(&second.refresh, Some("try-2")).await.ok(200);
        assert_ne!(next["refresh_token"], pair["refresh_token"]);
    }

    async fn eight_retries_at_once_get_the_same_pair(engine) {
        let server = Server::start(engine).await;
        let (api, first) = (server.api(), server.api().newcomer("mine").await);
        let calls = (0..8).map(|_| api.rotate(&first.refresh, Some("try-1")));
        let mut pairs = Vec::new();
        for answer in futures_util::future::join_all(calls).await {
            pairs.push(answer.ok(200));
        }
        assert!(pairs.iter().all(|pair| *pair == pairs[0]), "{pairs:#?}");
        let second = Device::new(&api, &pairs[0]);
        second.me().await.ok(200);
        api.rotate(&second.refresh, None).await.ok(200);
    }

    async fn a_retry_after_a_crash_gets_the_same_pair(engine) {
        let mut server = Server::start(engine).await;
        let first = server.api().newcomer("mine").await;
        let pair = server.api().rotate(&first.refresh, Some("try-1")).await.ok(200);
        server.kill9();
        server.restart().await;
        let again = server.api().rotate(&first.refresh, Some("try-1")).await.ok(200);
        assert_eq!(again["refresh_token"], pair["refresh_token"]);
        Device::new(&server.api(), &again).me().await.ok(200);
    }

    async fn reuse_without_a_key_signs_out(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        let first = api.newcomer("mine").await;
        let second = Device::new(&api, &api.rotate(&first.refresh, None).await.ok(200));
        signs_out(&api, &first, &second, None).await;
    }

    async fn reuse_with_another_key_signs_out(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        let first = api.newcomer("mine").await;
        let body = api.rotate(&first.refresh, Some("try-1")).await.ok(200);
        let second = Device::new(&api, &body);
        signs_out(&api, &first, &second, Some("try-2")).await;
    }

    async fn reuse_of_an_older_token_signs_out(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        let first = api.newcomer("mine").await;
        let body = api.rotate(&first.refresh, Some("try-1")).await.ok(200);
        let second = Device::new(&api, &body);
        let body = api.rotate(&second.refresh, Some("try-2")).await.ok(200);
        let third = Device::new(&api, &body);
        signs_out(&api, &first, &third, Some("try-3")).await;
    }

    async fn made_up_tokens_are_invalid(engine) {
        let server = Server::start(engine).await;
        let (api, me) = (server.api(), server.api().newcomer("mine").await);
        // The middle is changed: the last character may carry bits that do not count.
        let mut changed = me.refresh.clone().into_bytes();
        let at = changed.len() / 2;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        for token in ["lsr_", "lsr_AAAA", "nonsense", &changed, &me.access] {
            let answer = api.rotate(token, None).await;
            assert_eq!(answer.status, 401, "{token}");
            answer.problem(401, "refresh_token_invalid");
        }
        // None of them did any harm.
        me.me().await.ok(200);
        api.rotate(&me.refresh, None).await.ok(200);
    }

    async fn two_devices_rotate_apart(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        let one = api.newcomer("one").await;
        let two = api.login(&one.phone, "two").await;
        let newer = Device::new(&api, &api.rotate(&one.refresh, None).await.ok(200));
        signs_out(&api, &one, &newer, None).await;
        two.me().await.ok(200);
        api.rotate(&two.refresh, None).await.ok(200);
    }
}

/// `old`'s token comes again: the device, `newest` in its line, is signed out everywhere.
async fn signs_out(api: &Api, old: &Device, newest: &Device, key: Option<&str>) {
    let mut socket = Socket::open(newest).await;
    let reused = api.rotate(&old.refresh, key).await;
    reused.problem(401, "refresh_token_reused");
    newest.me().await.problem(401, "token_revoked");
    old.me().await.problem(401, "token_revoked");
    let rotated = api.rotate(&newest.refresh, None).await;
    assert_eq!(rotated.status, 401, "{rotated:#?}");
    socket.expect_close(4003).await;
}
