use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::domain::identity::KeyMaterial;

const EXP: i64 = 1_795_000_000;

fn key(kid: &str, byte: u8) -> KeyMaterial {
    KeyMaterial {
        kid: kid.into(),
        bytes: [byte; 32],
    }
}

fn secrets() -> Secrets {
    Secrets::new(vec![key("new", 2), key("old", 1)], &[9; 32])
}

fn time(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(secs, 0).unwrap()
}

fn claims() -> Claims {
    Claims {
        sub: UserId(Uuid::from_u128(1)),
        dev: DeviceId(Uuid::from_u128(2)),
        did: ClientDeviceId::parse("phone").unwrap(),
        uv: 3,
        dv: 4,
        iat: EXP - 900,
        exp: EXP,
    }
}

fn caller() -> Caller {
    Caller {
        user: UserId(Uuid::from_u128(1)),
        device: DeviceId(Uuid::from_u128(2)),
        device_id: ClientDeviceId::parse("phone").unwrap(),
        user_version: 3,
        device_version: 4,
        expires_at: time(EXP),
    }
}

fn refresh_token() -> RefreshToken {
    RefreshToken {
        user: UserId(Uuid::from_u128(1)),
        device: DeviceId(Uuid::from_u128(2)),
        family: TokenFamily(Uuid::from_u128(3)),
        counter: 4,
    }
}

fn ticket() -> Ticket {
    Ticket {
        user: UserId(Uuid::from_u128(1)),
        nonce: Uuid::from_u128(2),
    }
}

/// A JWT of our claims under a header of somebody's own making, signed with our newest key.
fn forged(header: &Header) -> String {
    jsonwebtoken::encode(header, &claims(), &EncodingKey::from_secret(&[2; 32])).unwrap()
}

fn check(token: &str) -> Result<Caller, TokenError> {
    secrets().check(token, time(EXP - 1))
}

#[test]
fn a_signed_token_names_its_caller() {
    assert_eq!(check(&secrets().sign(&claims()).unwrap()), Ok(caller()));
}

#[test]
fn an_older_key_still_checks_but_no_longer_signs() {
    let before = Secrets::new(vec![key("old", 1)], &[9; 32]);
    let token = before.sign(&claims()).unwrap();
    assert_eq!(check(&token), Ok(caller()));
    let newer = secrets().sign(&claims()).unwrap();
    assert_eq!(
        before.check(&newer, time(EXP - 1)),
        Err(TokenError::Invalid)
    );
}

#[test]
fn a_token_of_another_key_is_refused() {
    let strangers = [
        ("its id is unknown", key("other", 2)),
        ("its id is ours, the key is not", key("new", 3)),
        ("the key is ours, but goes by another id", key("old", 2)),
    ];
    for (why, key) in strangers {
        let token = Secrets::new(vec![key], &[9; 32]).sign(&claims()).unwrap();
        assert_eq!(check(&token), Err(TokenError::Invalid), "{why}");
    }
    assert_eq!(
        Secrets::new(vec![], &[9; 32]).sign(&claims()),
        Err(TokenError::Invalid)
    );
}

#[test]
fn only_our_algorithm_is_taken() {
    let ours = Header {
        kid: Some("new".into()),
        ..Header::new(Algorithm::HS256)
    };
    assert_eq!(check(&forged(&ours)), Ok(caller()));
    for alg in [Algorithm::HS384, Algorithm::HS512] {
        let header = Header {
            alg,
            ..ours.clone()
        };
        assert_eq!(check(&forged(&header)), Err(TokenError::Invalid), "{alg:?}");
    }
    let nameless = forged(&Header { kid: None, ..ours });
    assert_eq!(check(&nameless), Err(TokenError::Invalid));
}

#[test]
fn an_unsigned_token_is_refused() {
    let signed = secrets().sign(&claims()).unwrap();
    let parts: Vec<&str> = signed.split('.').collect();
    for alg in ["none", "None", "NONE", ""] {
        let header = format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"new"}}"#);
        let header = URL_SAFE_NO_PAD.encode(header);
        for signature in ["", parts[2]] {
            let token = format!("{header}.{}.{signature}", parts[1]);
            assert_eq!(check(&token), Err(TokenError::Invalid), "{alg}");
        }
    }
    for token in [
        String::new(),
        "..".into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{signed}."),
        format!("{signed}="),
        format!(" {signed}"),
    ] {
        assert_eq!(check(&token), Err(TokenError::Invalid), "{token:?}");
    }
}

#[test]
fn a_token_ends_at_the_second_it_names() {
    let token = secrets().sign(&claims()).unwrap();
    let end = time(EXP);
    let last = end - TimeDelta::microseconds(1);
    assert_eq!(secrets().check(&token, last), Ok(caller()));
    assert_eq!(secrets().check(&token, end), Err(TokenError::Expired));
    let never = Claims {
        exp: i64::MAX,
        ..claims()
    };
    assert_eq!(
        secrets().check(&secrets().sign(&never).unwrap(), last),
        Err(TokenError::Invalid),
        "a time that there is not"
    );
}

#[test]
fn the_same_rotation_gives_the_same_pair() {
    let pair = |counter, made_at| {
        let refresh = RefreshToken {
            counter,
            ..refresh_token()
        };
        secrets()
            .pair(&caller(), &refresh, made_at, TimeDelta::seconds(900))
            .unwrap()
    };
    let made_at = time(EXP - 900);
    let first = pair(4, made_at);
    assert!(first == pair(4, made_at));
    assert_eq!(first.expires_in(made_at), 900);
    let named = check(&first.access_token).unwrap();
    assert_eq!((named.user, named.device), (caller().user, caller().device));
    assert_eq!(
        RefreshToken::open(&secrets(), &first.refresh_token),
        Some(refresh_token())
    );
    assert!(first.refresh_token != pair(5, made_at).refresh_token);
    assert!(first.access_token != pair(4, time(EXP)).access_token);
    let shown = format!("{first:?}");
    assert!(
        !shown.contains(&first.access_token) && !shown.contains("lsr_"),
        "{shown}"
    );
}

#[test]
fn refresh_tokens_and_tickets_are_opened_by_their_own_key_only() {
    let (refresh, ticket_text) = (refresh_token().seal(&secrets()), ticket().seal(&secrets()));
    assert!(refresh.starts_with("lsr_") && ticket_text.starts_with("lst_"));
    assert_eq!(
        RefreshToken::open(&secrets(), &refresh),
        Some(refresh_token())
    );
    assert_eq!(Ticket::open(&secrets(), &ticket_text), Some(ticket()));

    let strange = Secrets::new(vec![key("new", 2)], &[8; 32]);
    assert_eq!(RefreshToken::open(&strange, &refresh), None);
    assert_eq!(Ticket::open(&strange, &ticket_text), None);

    // Neither passes for the other, whatever it is called.
    assert_eq!(
        RefreshToken::open(&secrets(), &ticket_text.replace("lst_", "lsr_")),
        None
    );
    assert_eq!(
        Ticket::open(&secrets(), &refresh.replace("lsr_", "lst_")),
        None
    );
    assert_eq!(
        RefreshToken::open(&secrets(), refresh.trim_start_matches("lsr_")),
        None
    );
    let long = format!("lsr_{}", "A".repeat(1 << 16));
    assert_eq!(RefreshToken::open(&secrets(), &long), None);
}

/// `text` with the byte at `at` replaced; `None` when that changes nothing.
fn tampered(text: &str, at: prop::sample::Index, byte: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at.index(bytes.len());
    if bytes[at] == byte {
        return None;
    }
    bytes[at] = byte;
    String::from_utf8(bytes).ok()
}

/// Mostly characters that such texts are made of.
fn byte() -> impl Strategy<Value = u8> {
    let usual = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    prop_oneof![9 => prop::sample::select(&usual[..]), 1 => 0..128_u8]
}

/// The last characters hold bits that belong to no byte: every value of them is tried.
#[test]
fn no_other_text_means_the_same() {
    let texts = [
        secrets().sign(&claims()).unwrap(),
        refresh_token().seal(&secrets()),
        ticket().seal(&secrets()),
    ];
    for text in texts {
        for byte in 0..128 {
            let mut bytes = text.as_bytes().to_vec();
            let last = bytes.len() - 1;
            if bytes[last] == byte {
                continue;
            }
            bytes[last] = byte;
            let text = String::from_utf8(bytes).unwrap();
            assert!(check(&text).is_err());
            assert_eq!(RefreshToken::open(&secrets(), &text), None, "{text}");
            assert_eq!(Ticket::open(&secrets(), &text), None, "{text}");
        }
    }
}

proptest! {
    #[test]
    fn a_token_lasts_as_long_as_was_said_whenever_it_was_said(
        micros in 0..3_000_000_i64,
        later in 0..5_000_000_i64,
    ) {
        let made_at = time(EXP) + TimeDelta::microseconds(micros);
        let life = TimeDelta::seconds(900);
        let pair = secrets().pair(&caller(), &refresh_token(), made_at, life).unwrap();
        let said_at = made_at + TimeDelta::microseconds(later);
        let last = said_at + TimeDelta::seconds(pair.expires_in(said_at)) - TimeDelta::microseconds(1);
        prop_assert!(secrets().check(&pair.access_token, last).is_ok());
        // And not much longer.
        let over = made_at + life + TimeDelta::seconds(2);
        prop_assert_eq!(secrets().check(&pair.access_token, over), Err(TokenError::Expired));
        prop_assert_eq!(pair.expires_in(over), 0);
    }

    #[test]
    fn a_changed_access_token_is_refused(at: prop::sample::Index, byte in byte()) {
        let token = secrets().sign(&claims()).unwrap();
        if let Some(token) = tampered(&token, at, byte) {
            prop_assert_eq!(check(&token), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn a_changed_refresh_token_or_ticket_is_refused(at: prop::sample::Index, byte in byte()) {
        if let Some(text) = tampered(&refresh_token().seal(&secrets()), at, byte) {
            prop_assert_eq!(RefreshToken::open(&secrets(), &text), None);
        }
        if let Some(text) = tampered(&ticket().seal(&secrets()), at, byte) {
            prop_assert_eq!(Ticket::open(&secrets(), &text), None);
        }
    }

    #[test]
    fn every_refresh_token_comes_back(user: u128, device: u128, family: u128, counter: i64) {
        let token = RefreshToken {
            user: UserId(Uuid::from_u128(user)),
            device: DeviceId(Uuid::from_u128(device)),
            family: TokenFamily(Uuid::from_u128(family)),
            counter,
        };
        prop_assert_eq!(RefreshToken::open(&secrets(), &token.seal(&secrets())), Some(token));
    }

    #[test]
    fn any_text_is_judged_without_harm(text in "(lsr_|lst_)?[A-Za-z0-9._=-]{0,300}|\\PC{0,100}") {
        prop_assert_eq!(check(&text), Err(TokenError::Invalid));
        prop_assert_eq!(RefreshToken::open(&secrets(), &text), None);
        prop_assert_eq!(Ticket::open(&secrets(), &text), None);
    }
}

#[test]
fn a_token_from_before_the_life_was_lowered_does_not_outlive_it() {
    let token = secrets().sign(&claims()).unwrap();
    let lowered = secrets().with_access_life(TimeDelta::seconds(60));
    let made_at = EXP - 900;
    let caller = lowered.check(&token, time(made_at + 61)).unwrap();
    assert_eq!(caller.expires_at, time(made_at + 62));
    let late = lowered.check(&token, time(made_at + 62));
    assert_eq!(late, Err(TokenError::Expired));
    assert!(secrets().check(&token, time(made_at + 62)).is_ok());
}
