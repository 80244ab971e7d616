//! `tail` against a scripted server over real connections.

use serde_json::{Value, json};

use super::{
    TailError,
    stub::{Script, Turn},
    trial::{ack, event, grant, http, login, renewal, run, socket, welcome},
};

#[tokio::test]
async fn the_first_run_logs_in_and_the_second_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.json");
    let first = run(
        vec![
            http(
                "POST /v1/auth/sms-codes",
                202,
                json!({ "expires_in": 300, "resend_after": 1 }),
            ),
            http(
                "POST /v1/auth/sessions",
                401,
                json!({ "status": 401, "code": "sms_code_invalid", "detail": "no" }),
            ),
            login(),
            socket(
                "",
                vec![welcome("e1", 2, 2), event(3), ack(3), event(4), ack(4)],
            ),
        ],
        &state,
        |trial| trial.args.code = None,
    )
    .await;
    assert!(first.result.is_ok(), "{:?}", first.result);
    assert_eq!(first.seqs(), [3, 4]);
    assert!(first.err.contains("dev-sms.log") && first.err.contains("Code: "));
    assert!(
        first
            .err
            .contains("connected as me: head 2, acknowledged 2")
    );
    let device_id = first.saved["device_id"].as_str().unwrap();
    assert!(first.heard[2].contains(r#""code":"654321""#));
    assert!(first.heard[2].contains(&format!(r#""device_id":"{device_id}""#)));
    assert_eq!(first.heard[3], "Bearer access-1");
    assert_eq!(
        first.saved["position"],
        json!({ "epoch": "e1", "last_seq": 4 })
    );

    let turns = vec![
        welcome("e1", 6, 4),
        event(5),
        event(6),
        Turn::HearAny,
        Turn::HearClose(1000),
    ];
    let second = run(vec![socket("?since=4&epoch=e1", turns)], &state, |trial| {
        trial.args.phone = None;
        trial.stop_after = 2;
    })
    .await;
    assert!(second.result.is_ok(), "{:?}", second.result);
    assert_eq!(second.seqs(), [5, 6]);
    assert!(second.err.contains("replayed 2 events"));
    assert_eq!(second.saved["device_id"], device_id);
}

#[tokio::test]
async fn after_a_drop_it_goes_on_from_the_last_event_and_prints_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        vec![
            login(),
            socket(
                "",
                vec![
                    welcome("e1", 0, 0),
                    event(1),
                    event(2),
                    Turn::HearAny,
                    Turn::Drop,
                ],
            ),
            // The ack did not become durable: both come again.
            socket(
                "?since=2&epoch=e1",
                vec![
                    welcome("e1", 3, 0),
                    event(1),
                    event(2),
                    event(3),
                    Turn::HearAny,
                ],
            ),
        ],
        &dir.path().join("state.json"),
        |_| {},
    )
    .await;
    assert!(ran.result.is_ok(), "{:?}", ran.result);
    assert_eq!(ran.seqs(), [1, 2, 3]);
    assert!(ran.err.contains("reconnecting in "));
}

#[tokio::test]
async fn a_resync_moves_it_to_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let resync = json!({
        "type": "resync", "epoch": "e2", "floor_seq": 8, "head_seq": 9, "reason": "compacted",
    });
    let ran = run(
        vec![
            login(),
            socket(
                "",
                vec![
                    welcome("e1", 0, 0),
                    Turn::Say(resync),
                    Turn::Hear(json!({ "type": "ack", "up_to": 9, "epoch": "e2" })),
                    event(10),
                    ack(10),
                ],
            ),
        ],
        &dir.path().join("state.json"),
        |_| {},
    )
    .await;
    assert_eq!(ran.seqs(), [10]);
    assert!(ran.err.contains("resync (compacted)"));
    assert_eq!(
        ran.saved["position"],
        json!({ "epoch": "e2", "last_seq": 10 })
    );
}

#[tokio::test]
async fn a_lost_renewal_is_asked_again_under_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        vec![
            login(),
            socket("", vec![welcome("e1", 0, 0), Turn::Close(4003)]),
            Script::HangUp {
                expects: "POST /v1/auth/tokens",
            },
            renewal(2),
            socket(
                "?since=0&epoch=e1",
                vec![welcome("e1", 0, 0), event(1), ack(1)],
            ),
        ],
        &dir.path().join("state.json"),
        |_| {},
    )
    .await;
    assert!(ran.result.is_ok(), "{:?}", ran.result);
    let key = |request: &str| {
        let line = request
            .lines()
            .find(|line| line.to_lowercase().starts_with("idempotency-key: "));
        line.unwrap().to_owned()
    };
    assert_eq!(key(&ran.heard[2]), key(&ran.heard[3]));
    assert!(ran.heard[3].contains(r#"{"refresh_token":"lsr_1"}"#));
    assert_eq!(ran.heard[4], "Bearer access-2");
    assert_eq!(ran.saved["tokens"]["refresh"], json!("lsr_2"));
    assert_eq!(ran.saved["renewal_key"], Value::Null);
}

#[tokio::test]
async fn a_token_is_renewed_while_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let short = |n| {
        let mut short = grant(n);
        short["expires_in"] = json!(2);
        short
    };
    let auth = json!({ "type": "auth", "token": "access-3" });
    let ran = run(
        vec![
            http("POST /v1/auth/sessions", 201, short(1)),
            // Too short to connect with.
            http("POST /v1/auth/tokens", 200, short(2)),
            socket(
                "",
                vec![
                    welcome("e1", 0, 0),
                    Turn::Meanwhile(renewal(3)),
                    Turn::Hear(auth),
                    event(1),
                    ack(1),
                ],
            ),
        ],
        &dir.path().join("state.json"),
        |_| {},
    )
    .await;
    assert!(ran.result.is_ok(), "{:?}", ran.result);
    assert_eq!(ran.seqs(), [1]);
    assert_eq!(ran.saved["tokens"]["refresh"], json!("lsr_3"));
}

#[tokio::test]
async fn a_refused_renewal_asks_for_a_new_login() {
    let dir = tempfile::tempdir().unwrap();
    let reused = json!({ "code": "refresh_token_reused", "detail": "" });
    let ran = run(
        vec![
            login(),
            http("GET /v1/sync", 401, json!({ "code": "token_expired" })),
            http("POST /v1/auth/tokens", 401, reused),
        ],
        &dir.path().join("state.json"),
        |trial| trial.ends_by_itself = true,
    )
    .await;
    let Err(TailError::LogInAgain(why)) = ran.result else {
        panic!("{:?}", ran.result);
    };
    assert_eq!(why, "refresh_token_reused");
    assert_eq!(ran.saved["tokens"], Value::Null);
}

#[tokio::test]
async fn a_removed_device_stops_and_forgets_its_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        vec![
            login(),
            socket(
                "",
                vec![welcome("e1", 0, 0), event(1), ack(1), Turn::Close(4005)],
            ),
        ],
        &dir.path().join("state.json"),
        |trial| trial.ends_by_itself = true,
    )
    .await;
    assert!(matches!(ran.result, Err(TailError::Removed)));
    assert_eq!(ran.saved["tokens"], Value::Null);
    assert_eq!(ran.saved["position"]["last_seq"], json!(1));
}

#[tokio::test]
async fn a_full_server_is_left_alone_as_long_as_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        vec![
            login(),
            Script::Http {
                expects: "GET /v1/sync",
                status: 503,
                headers: "retry-after: 1\r\n",
                body: json!({ "code": "overloaded" }),
            },
            socket("", vec![welcome("e1", 0, 0), event(1), ack(1)]),
        ],
        &dir.path().join("state.json"),
        |_| {},
    )
    .await;
    assert!(ran.result.is_ok(), "{:?}", ran.result);
    assert!(
        ran.err
            .contains("reconnecting in 1.0 s: the server answered 503")
    );
}

#[tokio::test]
async fn a_sixth_device_is_told_which_five_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let full = json!({
        "code": "device_limit_reached", "detail": "five",
        "devices": [{ "id": "d", "device_id": "old-phone", "platform": "ios", "name": "Phone",
                      "last_active_at": "2026-11-01T00:00:00.000000Z", "created_at": "" }],
    });
    let state = dir.path().join("state.json");
    let refused = run(
        vec![http("POST /v1/auth/sessions", 409, full)],
        &state,
        |trial| trial.ends_by_itself = true,
    )
    .await;
    assert!(matches!(refused.result, Err(TailError::DeviceLimit)));
    assert!(refused.err.contains("old-phone  ios  Phone"));
    assert!(refused.err.contains("--replace DEVICE_ID"));
}

#[tokio::test]
async fn replace_names_the_device_to_sign_out() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(
        vec![
            login(),
            socket("", vec![welcome("e1", 0, 0), event(1), ack(1)]),
        ],
        &dir.path().join("state.json"),
        |trial| {
            trial.args.replace = Some("old-phone".to_owned());
            trial.args.json = false;
        },
    )
    .await;
    assert!(ran.heard[0].contains(r#""replace_device_id":"old-phone""#));
    let line = r#"  seq 1  favorite.added  {"target_id":"song-1"}  from phone"#;
    assert!(ran.out.trim_end().ends_with(line), "{}", ran.out);
}
