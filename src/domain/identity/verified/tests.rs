use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{
    identity::{Claims, ClientDeviceId, KeyMaterial, Revocation, RevocationSet},
    ids::{DeviceId, UserId},
};

const EXP: i64 = 1_795_000_000;

fn time(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(secs, 0).unwrap()
}

fn keys(kids: &[(&str, u8)]) -> Arc<Secrets> {
    let key = |(kid, byte): &(&str, u8)| KeyMaterial {
        kid: (*kid).into(),
        bytes: [*byte; 32],
    };
    Arc::new(Secrets::new(kids.iter().map(key).collect(), &[9; 32]))
}

fn secrets() -> Arc<Secrets> {
    keys(&[("new", 2), ("old", 1)])
}

fn claims(user: u128) -> Claims {
    Claims {
        sub: UserId(Uuid::from_u128(user)),
        dev: DeviceId(Uuid::from_u128(user)),
        did: ClientDeviceId::parse("phone").unwrap(),
        uv: 3,
        dv: 4,
        iat: EXP - 900,
        exp: EXP,
    }
}

fn kept(tokens: &VerifiedTokens) -> usize {
    tokens.places.iter().flatten().count()
}

/// Tokens among which is `token`, found good.
fn knowing(secrets: &Arc<Secrets>, token: &str) -> VerifiedTokens {
    let mut tokens = VerifiedTokens::new();
    for _ in 0..2 {
        assert!(tokens.check(secrets, token, time(EXP - 1)).is_ok());
    }
    assert_eq!(kept(&tokens), 1);
    tokens
}

#[test]
fn a_known_token_is_not_worked_out_again() {
    let secrets = secrets();
    let token = secrets.sign(&claims(1)).unwrap();
    let mut tokens = VerifiedTokens::new();
    let mut check = || tokens.check(&secrets, &token, time(EXP - 1)).unwrap();
    let (first, second) = (check(), check());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(*first, secrets.check(&token, time(EXP - 1)).unwrap());
}

#[test]
fn a_known_token_ends_at_its_second_and_is_forgotten() {
    let secrets = secrets();
    let token = secrets.sign(&claims(1)).unwrap();
    let mut tokens = knowing(&secrets, &token);
    let last = time(EXP) - TimeDelta::microseconds(1);
    assert!(tokens.check(&secrets, &token, last).is_ok());
    for _ in 0..2 {
        let late = tokens.check(&secrets, &token, time(EXP));
        assert_eq!(late, Err(TokenError::Expired));
        assert_eq!(kept(&tokens), 0);
    }
    // A clock that is set back makes it good again, as it would without a memory.
    assert!(tokens.check(&secrets, &token, last).is_ok());
}

#[test]
fn a_known_token_goes_with_the_key_that_made_it() {
    let (before, token) = (secrets(), keys(&[("old", 1)]).sign(&claims(1)).unwrap());
    let mut tokens = knowing(&before, &token);
    let without = keys(&[("new", 2)]);
    let check = tokens.check(&without, &token, time(EXP - 1));
    assert_eq!(check, Err(TokenError::Invalid));
    assert_eq!(kept(&tokens), 0);
    assert!(tokens.check(&before, &token, time(EXP - 1)).is_ok());
}

#[test]
fn a_known_token_can_be_revoked() {
    let (secrets, revocations) = (secrets(), RevocationSet::default());
    let token = secrets.sign(&claims(1)).unwrap();
    let mut tokens = knowing(&secrets, &token);
    let caller = tokens.check(&secrets, &token, time(EXP - 1)).unwrap();
    assert_eq!(revocations.refusal(&caller), None);
    revocations.add(&Revocation {
        subject: caller.device.0,
        min_version: 5,
        expires_at: time(EXP),
    });
    let caller = tokens.check(&secrets, &token, time(EXP - 1)).unwrap();
    assert!(revocations.refusal(&caller).is_some());
}

#[test]
fn nothing_that_is_refused_is_kept() {
    let (secrets, strange) = (secrets(), keys(&[("new", 7)]));
    let mut tokens = VerifiedTokens::new();
    let refused = [
        (strange.sign(&claims(1)).unwrap(), TokenError::Invalid),
        ("a.b.c".to_owned(), TokenError::Invalid),
        (String::new(), TokenError::Invalid),
        (
            secrets
                .sign(&Claims {
                    exp: EXP - 1,
                    ..claims(1)
                })
                .unwrap(),
            TokenError::Expired,
        ),
    ];
    for (token, why) in refused {
        for _ in 0..2 {
            assert_eq!(tokens.check(&secrets, &token, time(EXP - 1)), Err(why));
        }
    }
    assert_eq!(kept(&tokens), 0);
}

#[test]
fn memory_is_bounded_and_what_is_over_goes_without_being_asked_for() {
    let secrets = secrets();
    let mut tokens = VerifiedTokens::new();
    for user in 0..2 * VerifiedTokens::PLACES as u128 {
        let token = secrets.sign(&claims(user)).unwrap();
        let caller = tokens.check(&secrets, &token, time(EXP - 1)).unwrap();
        assert_eq!(caller.user.0.as_u128(), user);
    }
    assert!(kept(&tokens) > VerifiedTokens::PLACES / 2);
    assert!(kept(&tokens) <= VerifiedTokens::PLACES);
    for _ in 0..VerifiedTokens::PLACES {
        assert!(tokens.check(&secrets, "", time(EXP)).is_err());
    }
    assert_eq!(kept(&tokens), 0);
}

#[test]
fn most_of_a_thousand_that_come_in_turn_are_known() {
    let secrets = secrets();
    let mut tokens = VerifiedTokens::new();
    let all: Vec<_> = (0..1000)
        .map(|user| secrets.sign(&claims(user)).unwrap())
        .collect();
    let mut check = |token: &String| tokens.check(&secrets, token, time(EXP - 1)).unwrap();
    let first: Vec<_> = all.iter().map(&mut check).collect();
    let again = all.iter().map(check);
    let known = again
        .zip(&first)
        .filter(|(it, first)| Arc::ptr_eq(it, first));
    // Nobody chooses who shares places: some are out of luck, hardly ever more than 50.
    assert!(known.count() > 850);
}

#[test]
fn a_long_token_is_checked_and_not_kept() {
    let secrets = secrets();
    let mut long = String::from(r#"{"typ":"JWT","alg":"HS256","kid":"new","x5u":""#);
    long.push_str(&"a".repeat(VerifiedTokens::LONGEST));
    let header = jsonwebtoken::Header {
        kid: Some("new".into()),
        x5u: Some(long),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256)
    };
    let key = jsonwebtoken::EncodingKey::from_secret(&[2; 32]);
    let token = jsonwebtoken::encode(&header, &claims(1), &key).unwrap();
    let mut tokens = VerifiedTokens::new();
    assert!(tokens.check(&secrets, &token, time(EXP - 1)).is_ok());
    assert_eq!(kept(&tokens), 0);
}

#[test]
fn tokens_do_not_show_themselves() {
    let secrets = secrets();
    let token = secrets.sign(&claims(1)).unwrap();
    let shown = format!("{:?}", knowing(&secrets, &token));
    assert_eq!(shown, "VerifiedTokens(***)");
}

/// The last character holds bits that belong to no byte: every value of it is tried.
#[test]
fn right_after_a_token_no_other_last_byte_is_taken() {
    let secrets = secrets();
    let token = secrets.sign(&claims(1)).unwrap();
    let mut tokens = knowing(&secrets, &token);
    for byte in 0..128_u8 {
        let other = format!("{}{}", &token[..token.len() - 1], char::from(byte));
        let check = tokens.check(&secrets, &other, time(EXP - 1));
        assert_eq!(check.is_ok(), other == token, "{byte}");
    }
}

/// As if every text had the same place: the comparison alone stands between it and the caller.
#[test]
fn only_the_whole_text_is_the_token() {
    let secrets = secrets();
    let token = secrets.sign(&claims(1)).unwrap();
    let caller = Arc::new(secrets.check(&token, time(EXP - 1)).unwrap());
    let known = Verified {
        token: token.as_str().into(),
        caller,
    };
    assert!(known.is(&token));
    let (said, seal) = token.rsplit_once('.').unwrap();
    for other in [
        String::new(),
        ".".into(),
        said.into(),
        seal.into(),
        format!(".{seal}"),
        format!("{said}."),
        format!("{token}."),
        format!("{token}A"),
        format!(".{token}"),
        token[..token.len() - 1].into(),
        token[1..].into(),
    ] {
        assert!(!known.is(&other), "{other:?}");
    }
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(!known.is(&String::from_utf8(bytes).unwrap()), "{at}");
    }
}

proptest! {
    /// Whatever is asked in whatever order: the answer is that of the check itself.
    #[test]
    fn it_says_what_the_check_says(
        steps in prop::collection::vec((0..4_u128, any::<bool>(), -3..3_i64, any::<prop::sample::Index>(), prop::option::of(0..128_u8)), 1..60)
    ) {
        let sets = [secrets(), keys(&[("new", 2)])];
        let mut tokens = VerifiedTokens::new();
        for (user, which, later, at, byte) in steps {
            let secrets = &sets[usize::from(which)];
            let signer = if user % 2 == 0 { secrets.clone() } else { keys(&[("old", 1)]) };
            let mut token = signer.sign(&claims(user)).unwrap().into_bytes();
            if let Some(byte) = byte {
                let at = at.index(token.len());
                token[at] = byte;
            }
            let token = String::from_utf8(token).unwrap();
            let now = time(EXP + later);
            let said = tokens.check(secrets, &token, now).map(|it| (*it).clone());
            prop_assert_eq!(said, secrets.check(&token, now));
        }
    }
}
