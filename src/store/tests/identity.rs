use super::*;
use crate::domain::{
    clock::CLOCK_MARGIN,
    identity::{Caller, Revocation},
    sync::Position,
};

on_both!(
    first_login,
    wrong_codes,
    old_and_used_codes,
    cooldown,
    codes_are_counted,
    device_limit,
    login_again,
    one_code_two_logins,
    two_first_logins,
    removal,
    tickets,
    sweep,
);

async fn first_login(bed: &Bed) {
    let s = bed.session(&phone(), "phone-1", t(0)).await;
    assert_eq!(s.user.phone, phone());
    assert_eq!((s.user_version, s.device_version), (1, 1));
    assert_eq!(s.device.name, "ios");
    assert_eq!(s.refresh.counter, 0);
    assert!(s.revocations.is_empty());
    let store = &bed.store;
    let user = store.user_fetch(bed.soon(), s.user.id).await.unwrap();
    assert_eq!(user, Some(s.user.clone()));
    let devices = store.device_list(bed.soon(), s.user.id).await.unwrap();
    assert_eq!(devices, vec![s.device.clone()]);
    let attach = store
        .device_attach(bed.soon(), s.user.id, s.device.id, None, NODE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (attach.acked_seq, attach.log.head_seq, attach.log.floor_seq),
        (0, 0, 0)
    );
    // A second device starts at the head: what was before is in its snapshot.
    bed.favorites(s.user.id, 3).await;
    let second = bed.session(&phone(), "phone-2", t(9)).await;
    assert_eq!(second.user, s.user);
    let attach = store
        .device_attach(bed.soon(), s.user.id, second.device.id, None, NODE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(attach.acked_seq, 3);
    let nobody = UserId(bed.uuid());
    assert_eq!(store.user_fetch(bed.soon(), nobody).await, Ok(None));
    let stranger = store.device_cursor(bed.soon(), nobody, s.device.id).await;
    assert_eq!(stranger, Ok(None));
}

async fn wrong_codes(bed: &Bed) {
    let no_code = bed.login(&phone(), "phone-1", t(0));
    let outcome = bed.store.login(bed.soon(), no_code).await.unwrap();
    assert_eq!(outcome, LoginOutcome::CodeInvalid);
    bed.code(&phone(), "right", 3, t(0)).await;
    for expected in [
        LoginOutcome::CodeInvalid,
        LoginOutcome::CodeInvalid,
        LoginOutcome::CodeInvalid,
        LoginOutcome::CodeExhausted,
    ] {
        let mut wrong = bed.login(&phone(), "phone-1", t(1));
        wrong.code_hash = "wrong".into();
        assert_eq!(bed.store.login(bed.soon(), wrong).await.unwrap(), expected);
    }
    // The right code comes too late.
    let right = bed.login(&phone(), "phone-1", t(1));
    let outcome = bed.store.login(bed.soon(), right).await.unwrap();
    assert_eq!(outcome, LoginOutcome::CodeExhausted);
    assert_eq!(bed.count("SELECT count(*) FROM users").await, 0);
    // A new code has new tries.
    bed.session(&phone(), "phone-1", t(2)).await;
}

async fn old_and_used_codes(bed: &Bed) {
    bed.code(&phone(), "right", 5, t(0)).await;
    let late = bed.login(&phone(), "phone-1", t(300));
    let outcome = bed.store.login(bed.soon(), late).await.unwrap();
    assert_eq!(outcome, LoginOutcome::CodeInvalid);
    let in_time = bed.login(&phone(), "phone-1", t(299));
    logged_in(bed.store.login(bed.soon(), in_time.clone()).await.unwrap());
    let again = bed.store.login(bed.soon(), in_time).await.unwrap();
    assert_eq!(again, LoginOutcome::CodeInvalid);
}

async fn cooldown(bed: &Bed) {
    let code = |hash: &str, at| NewSmsCode {
        phone: phone(),
        code_hash: hash.into(),
        tries: 5,
        sent_at: at,
        expires_at: at + chrono::Duration::minutes(5),
        cooldown: chrono::Duration::seconds(60),
        per_hour: 1000,
    };
    let put = async |hash: &str, at| bed.store.sms_code_put(bed.soon(), code(hash, at)).await;
    assert_eq!(put("a", t(0)).await, Ok(SmsCodePut::Stored));
    let wait = Duration::from_secs(41);
    assert_eq!(put("b", t(19)).await, Ok(SmsCodePut::TooSoon { wait }));
    assert_eq!(put("b", t(60)).await, Ok(SmsCodePut::Stored));
    // Only the code that could not be sent is taken back, and with it its cool-down.
    let discard = async |hash| {
        bed.store
            .sms_code_discard(bed.soon(), &phone(), hash)
            .await
            .unwrap();
    };
    discard("a").await;
    assert!(matches!(
        put("c", t(61)).await,
        Ok(SmsCodePut::TooSoon { .. })
    ));
    discard("b").await;
    assert_eq!(put("c", t(61)).await, Ok(SmsCodePut::Stored));
}

async fn codes_are_counted(bed: &Bed) {
    let put = async |at: i64| {
        let code = NewSmsCode {
            phone: phone(),
            code_hash: format!("h{at}"),
            tries: 5,
            sent_at: t(at),
            expires_at: t(at) + chrono::Duration::minutes(5),
            cooldown: chrono::Duration::seconds(60),
            per_hour: 3,
        };
        bed.store.sms_code_put(bed.soon(), code).await.unwrap()
    };
    for at in [0, 600, 1200] {
        assert_eq!(put(at).await, SmsCodePut::Stored);
    }
    let wait = Duration::from_secs(2000);
    assert_eq!(put(1600).await, SmsCodePut::TooSoon { wait });
    // Neither the end of the code nor a failure to send one makes the count start again.
    let later = t(1700) + CLOCK_MARGIN;
    bed.store.expired_sweep(bed.soon(), later).await.unwrap();
    let failed = bed
        .store
        .sms_code_discard(bed.soon(), &phone(), "h1200")
        .await;
    failed.unwrap();
    assert_eq!(put(1700).await, SmsCodePut::Stored);
    assert!(matches!(put(3599).await, SmsCodePut::TooSoon { .. }));
    for at in [3600, 3660, 3720] {
        assert_eq!(put(at).await, SmsCodePut::Stored);
    }
    assert!(matches!(put(3780).await, SmsCodePut::TooSoon { .. }));
}

async fn device_limit(bed: &Bed) {
    let mut sessions = Vec::new();
    for i in 0..5 {
        sessions.push(bed.session(&phone(), &format!("d{i}"), t(i)).await);
    }
    bed.code(&phone(), "right", 1, t(9)).await;
    let sixth = bed.login(&phone(), "d5", t(10));
    let LoginOutcome::DeviceLimit(devices) =
        bed.store.login(bed.soon(), sixth.clone()).await.unwrap()
    else {
        panic!("a sixth device was let in");
    };
    let names: Vec<_> = devices.iter().map(|d| d.device_id.as_str()).collect();
    assert_eq!(names, ["d0", "d1", "d2", "d3", "d4"]);
    // Neither the code nor a try was used, and a name of nobody's makes no room.
    let nobody = Login {
        replace: Some("stranger".into()),
        ..sixth.clone()
    };
    let outcome = bed.store.login(bed.soon(), nobody).await.unwrap();
    assert!(matches!(outcome, LoginOutcome::DeviceLimit(_)));
    let by_name = Login {
        replace: Some("d1".into()),
        ..sixth
    };
    let s = logged_in(bed.store.login(bed.soon(), by_name).await.unwrap());
    let gone = &sessions[1].device;
    assert_eq!(s.revocations[0].subject, gone.id.0);
    let revoked = Revocation {
        subject: gone.id.0,
        min_version: Revocation::ALL,
        expires_at: t(10) + chrono::Duration::minutes(15),
    };
    assert_eq!(s.revocations, [revoked]);
    let stored = bed
        .store
        .revocations_since(bed.soon(), t(10))
        .await
        .unwrap();
    assert_eq!(stored, [revoked]);
    let later = bed
        .store
        .revocations_since(bed.soon(), t(11))
        .await
        .unwrap();
    assert_eq!(later, []);
    // By the server's id too.
    bed.code(&phone(), "right", 1, t(20)).await;
    let by_id = Login {
        replace: Some(sessions[0].device.id.to_string()),
        ..bed.login(&phone(), "d6", t(20))
    };
    let s = logged_in(bed.store.login(bed.soon(), by_id).await.unwrap());
    assert_eq!(s.revocations[0].subject, sessions[0].device.id.0);
    let devices = bed.store.device_list(bed.soon(), s.user.id).await.unwrap();
    let names: Vec<_> = devices.iter().map(|d| d.device_id.as_str()).collect();
    assert_eq!(names, ["d2", "d3", "d4", "d5", "d6"]);
    // A device that is here needs no room.
    bed.session(&phone(), "d6", t(30)).await;
}

async fn login_again(bed: &Bed) {
    let first = bed.session(&phone(), "phone-1", t(0)).await;
    bed.favorites(first.user.id, 2).await;
    let (user, device) = (first.user.id, first.device.id);
    let attach = bed
        .store
        .device_attach(bed.soon(), user, device, None, NODE);
    let before = attach.await.unwrap().unwrap();
    let position = Position {
        epoch: before.log.epoch,
        seq: 1,
    };
    bed.store
        .cursor_ack(bed.soon(), user, device, position)
        .await
        .unwrap();
    let again = bed.session(&phone(), "phone-1", t(100)).await;
    assert_eq!(again.device.id, first.device.id);
    assert_eq!(again.device.created_at, first.device.created_at);
    assert_eq!(again.device_version, 2);
    assert_ne!(again.refresh.family, first.refresh.family);
    assert_eq!(
        again.revocations,
        [Revocation {
            subject: first.device.id.0,
            min_version: 2,
            expires_at: t(100) + chrono::Duration::minutes(15),
        }]
    );
    let attach = bed
        .store
        .device_attach(bed.soon(), user, device, None, NODE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(attach.acked_seq, 1, "the cursor was not kept");
    assert!(attach.attach_epoch > before.attach_epoch);
}

async fn one_code_two_logins(bed: &Bed) {
    bed.user().await;
    bed.code(&phone(), "right", 5, t(0)).await;
    let logins: Vec<_> = (0..8)
        .map(|i| {
            let login = bed.login(&phone(), &format!("d{i}"), t(1));
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move { store.login(soon, login).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for login in logins {
        match login.await.unwrap() {
            LoginOutcome::LoggedIn(_) => won += 1,
            other => assert_eq!(other, LoginOutcome::CodeInvalid),
        }
    }
    assert_eq!(won, 1);
}

async fn two_first_logins(bed: &Bed) {
    // Different phones at the same time: both become users.
    let mut tasks = Vec::new();
    for i in 0..8 {
        let phone = Phone::parse(format!("+4479000000{i:02}")).unwrap();
        bed.code(&phone, "right", 5, t(0)).await;
        let login = bed.login(&phone, "d", t(1));
        let (store, soon) = (bed.store.clone(), bed.soon());
        tasks.push(tokio::spawn(async move {
            store.login(soon, login).await.unwrap()
        }));
    }
    for task in tasks {
        logged_in(task.await.unwrap());
    }
    assert_eq!(bed.count("SELECT count(*) FROM user_logs").await, 8);
}

async fn removal(bed: &Bed) {
    let s = bed.user().await;
    let life = chrono::Duration::minutes(15);
    // By a clock that was set back an hour after the device had got its token.
    let now = t(5) - chrono::Duration::hours(1);
    let remove = async |user, device| {
        let issued = Issued {
            user,
            origin: None,
            now,
            event_id: EventId(bed.uuid()),
        };
        let removed = bed.store.device_remove(bed.soon(), issued, device, life);
        removed.await.unwrap().map(|written| written.value)
    };
    assert_eq!(remove(UserId(bed.uuid()), s.device.id).await, None);
    assert_eq!(remove(s.user.id, DeviceId(bed.uuid())).await, None);
    let revocation = remove(s.user.id, s.device.id).await.unwrap();
    assert_eq!(revocation.min_version, Revocation::ALL);
    assert_eq!(revocation.expires_at, s.device.last_active_at + life);
    assert_eq!(remove(s.user.id, s.device.id).await, None);
    let devices = bed.store.device_list(bed.soon(), s.user.id).await.unwrap();
    assert_eq!(devices, []);
}

fn caller(s: &Session) -> Caller {
    Caller {
        user: s.user.id,
        device: s.device.id,
        device_id: s.device.device_id.clone(),
        user_version: 1,
        device_version: 1,
        expires_at: t(900),
    }
}

async fn tickets(bed: &Bed) {
    let s = bed.user().await;
    let put = async |hash: &str, caller| {
        let ticket = NewTicket {
            ticket_hash: hash.into(),
            caller,
            expires_at: t(30),
        };
        bed.store.ticket_put(bed.soon(), ticket).await.unwrap()
    };
    let redeem = async |hash: &str, user, at| {
        bed.store
            .ticket_redeem(bed.soon(), hash, user, at)
            .await
            .unwrap()
    };
    assert!(put("a", caller(&s)).await);
    assert_eq!(redeem("a", s.user.id, t(29)).await, Some(caller(&s)));
    assert_eq!(redeem("a", s.user.id, t(29)).await, None, "used twice");
    assert!(put("b", caller(&s)).await);
    assert_eq!(redeem("b", s.user.id, t(30)).await, None, "too late");
    assert!(put("c", caller(&s)).await);
    assert_eq!(
        redeem("c", UserId(bed.uuid()), t(1)).await,
        None,
        "another user's"
    );
    let gone = Caller {
        device: DeviceId(bed.uuid()),
        ..caller(&s)
    };
    assert!(!put("d", gone).await);
}

async fn sweep(bed: &Bed) {
    let s = bed.user().await;
    let ticket = NewTicket {
        ticket_hash: "a".into(),
        caller: caller(&s),
        expires_at: t(30),
    };
    bed.store.ticket_put(bed.soon(), ticket).await.unwrap();
    let again = bed.session(&s.user.phone, "phone-1", t(0)).await;
    assert_eq!(again.revocations.len(), 1);
    let sweep = async |now| bed.store.expired_sweep(bed.soon(), now).await;
    assert_eq!(sweep(t(29)).await, Ok(0));
    assert_eq!(sweep(t(30)).await, Ok(1));
    // A clock that is a day ahead takes nothing more.
    assert_eq!(sweep(t(30) + chrono::Duration::days(1)).await, Ok(0));
    let revocations = bed.store.revocations_since(bed.soon(), t(0)).await;
    assert_eq!(revocations.unwrap().len(), 1);
    // The code's row remembers how many were sent.
    assert_eq!(sweep(t(899) + CLOCK_MARGIN).await, Ok(0));
    assert_eq!(sweep(t(900) + CLOCK_MARGIN).await, Ok(1));
    assert_eq!(sweep(t(3600) + CLOCK_MARGIN).await, Ok(1));
    assert_eq!(sweep(t(3601) + CLOCK_MARGIN).await, Ok(0));
}
