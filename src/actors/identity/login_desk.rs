//! Codes and logins: what happens before a user exists.
//!
//! Owns nothing that must survive: codes, tries and cool-downs are rows, and the database decides,
//! so that two nodes serve the same phone safely. Phones are spread over slices: a busy one
//! holds up no other. It tells a user's session when a login ended other sessions.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;

use super::opened::{Opened, open};
use crate::{
    actors::{
        Failure,
        kernel::{
            Ask, CallError, Caps, Cx, Deadline, Handle, Kernel, Place, Public, Reply,
            RestartPolicy, Serve, Singles, Unit, asks, view,
        },
        session::{HeadHinted, Recheck, Sessions},
    },
    domain::{
        clock::{EntropyError, World},
        identity::{Device, NewDevice, Phone, Revocation, RevocationSet, Secrets, SmsCode},
        ids::{DeviceId, Epoch, EventId, TokenFamily, UserId},
        sync::Seen,
    },
    store::{Hints, Login, LoginIds, LoginOutcome, NewSmsCode, SmsCodePut, Store},
    upstream::sms::SmsProvider,
};

/// The numbers of login.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// How long a code holds.
    pub code_life: TimeDelta,
    /// Wrong tries that a code allows.
    pub code_tries: i64,
    /// How long a phone waits before it may ask again.
    pub resend: TimeDelta,
    /// Codes that a phone may be sent within an hour.
    pub codes_per_hour: i64,
    /// How long an access token holds.
    pub access_life: TimeDelta,
    /// Devices that a user may have.
    pub max_devices: usize,
}

/// What the desks work with.
#[derive(Clone)]
pub struct LoginParts {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) revocations: Arc<RevocationSet>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) hints: Option<Hints>,
    pub(crate) sms: SmsProvider,
    pub(crate) config: LoginConfig,
}

impl std::fmt::Debug for LoginParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginParts")
    }
}

/// Send a code to a phone.
#[derive(Debug)]
pub struct RequestCode {
    /// The phone.
    pub phone: Phone,
}

/// What became of [`RequestCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeReply {
    /// The code is on its way.
    Sent {
        /// How long it holds.
        expires_in: Duration,
        /// When another may be asked for.
        resend_after: Duration,
    },
    /// One was sent a moment ago.
    TooSoon {
        /// When another may be asked for.
        wait: Duration,
    },
    /// No provider took it.
    NotSent,
}

asks! {
    Command RequestCode -> Result<CodeReply, Failure>;
    Command LogIn -> Result<LogInReply, Failure>;
}

/// Open a session with a code.
#[derive(Debug)]
pub struct LogIn {
    /// The phone.
    pub phone: Phone,
    /// The code that was sent to it.
    pub code: SmsCode,
    /// The device that logs in.
    pub device: NewDevice,
    /// The device that gives way if there are too many, by either of its ids.
    pub replace: Option<String>,
    /// Where the call came from.
    pub ip: Option<IpAddr>,
}

/// What became of [`LogIn`].
#[derive(Debug)]
pub enum LogInReply {
    /// The session is open.
    Opened(Box<Opened>),
    /// The code is wrong, used or expired.
    CodeInvalid,
    /// Every try is used up.
    CodeExhausted,
    /// There is no room; neither code nor try was used up.
    DeviceLimit(Vec<Device>),
}

/// One slice of phones.
#[derive(Debug)]
pub struct LoginDesk {
    parts: LoginParts,
    codes_sent: u64,
    codes_failed: u64,
    logins: u64,
}

view! {
    /// What a desk shows of itself.
    pub struct LoginDeskView {
        codes_sent: Public<u64>,
        codes_failed: Public<u64>,
        logins: Public<u64>,
    }
}

impl Unit for LoginDesk {
    const KIND: &'static str = "login_desk";
    type View = LoginDeskView;

    fn view(&self, _now: Instant) -> LoginDeskView {
        let Self {
            codes_sent,
            codes_failed,
            logins,
            ..
        } = *self;
        LoginDeskView {
            codes_sent: Public(codes_sent),
            codes_failed: Public(codes_failed),
            logins: Public(logins),
        }
    }
}

impl Serve<RequestCode> for LoginDesk {
    fn serve(
        &mut self,
        it: RequestCode,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<CodeReply, Failure>> {
        let work = send_code(self.parts.clone(), it.phone, cx.world.clone(), deadline(cx));
        Reply::later(work, |desk: &mut Self, reply, _| {
            match reply {
                Ok(CodeReply::Sent { .. }) => desk.codes_sent += 1,
                Ok(CodeReply::NotSent) => desk.codes_failed += 1,
                _ => {}
            }
            reply
        })
    }
}

/// The asker's deadline; there always is one for what is asked.
fn deadline<A: Unit>(cx: &Cx<'_, A>) -> Deadline {
    cx.deadline.unwrap_or_else(|| cx.world.instant())
}

async fn send_code(
    parts: LoginParts,
    phone: Phone,
    world: World,
    deadline: Deadline,
) -> Result<CodeReply, Failure> {
    let LoginConfig {
        code_life,
        code_tries,
        resend,
        codes_per_hour,
        ..
    } = parts.config;
    let (code, now) = (SmsCode::from_number(world.below(1_000_000)?), world.now());
    let code_hash = parts.secrets.hash_code(&phone, &code);
    let row = NewSmsCode {
        phone: phone.clone(),
        code_hash: code_hash.clone(),
        tries: code_tries,
        sent_at: now,
        expires_at: now + code_life,
        cooldown: resend,
        per_hour: codes_per_hour,
    };
    if let SmsCodePut::TooSoon { wait } = parts.store.sms_code_put(deadline, row).await? {
        return Ok(CodeReply::TooSoon { wait });
    }
    if let Err(error) = parts.sms.send(&phone, &code, now).await {
        tracing::error!(error = &error as &dyn std::error::Error, "code not sent");
        // So that the phone may ask again at once.
        parts
            .store
            .sms_code_discard(deadline, &phone, &code_hash)
            .await?;
        return Ok(CodeReply::NotSent);
    }
    let expires_in = code_life.to_std().unwrap_or_default();
    Ok(CodeReply::Sent {
        expires_in,
        resend_after: resend.to_std().unwrap_or_default(),
    })
}

impl Serve<LogIn> for LoginDesk {
    fn serve(
        &mut self,
        it: LogIn,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<LogInReply, Failure>> {
        let work = log_in(self.parts.clone(), it, cx.world.clone(), deadline(cx));
        Reply::later(work, |desk: &mut Self, reply, _| {
            desk.logins += u64::from(matches!(reply, Ok(LogInReply::Opened(_))));
            reply
        })
    }
}

async fn log_in(
    parts: LoginParts,
    it: LogIn,
    world: World,
    deadline: Deadline,
) -> Result<LogInReply, Failure> {
    let config = &parts.config;
    let asked_at = world.instant();
    let login = Login {
        code_hash: parts.secrets.hash_code(&it.phone, &it.code),
        phone: it.phone,
        device: it.device,
        replace: it.replace,
        ip: it.ip,
        now: world.now(),
        max_devices: config.max_devices,
        revocation_life: Revocation::life(config.access_life),
        secrets: Arc::clone(&parts.secrets),
        ids: new_ids(&world)?,
    };
    let session = match parts.store.login(deadline, login).await? {
        LoginOutcome::LoggedIn(session) => *session,
        LoginOutcome::CodeInvalid => return Ok(LogInReply::CodeInvalid),
        LoginOutcome::CodeExhausted => return Ok(LogInReply::CodeExhausted),
        LoginOutcome::DeviceLimit(devices) => return Ok(LogInReply::DeviceLimit(devices)),
    };
    for revocation in &session.revocations {
        parts.revocations.add(revocation);
    }
    if !session.revocations.is_empty() {
        parts.hints.iter().for_each(Hints::revoked);
        if let (Some(hints), Some(log)) = (&parts.hints, session.log) {
            hints.publish(session.user.id, log);
        }
        if let Some(running) = parts.sessions.find(&session.user.id) {
            // A session that is not up checks the snapshot when its devices attach again.
            let _ = running.tell(Recheck);
            let hint = |log| running.tell(HeadHinted(Seen { log, asked_at }));
            let _ = session.log.map(hint);
        }
    }
    Ok(LogInReply::Opened(Box::new(open(
        &parts.secrets,
        session,
        config.access_life,
    )?)))
}

fn new_ids(world: &World) -> Result<LoginIds, EntropyError> {
    Ok(LoginIds {
        user: UserId(world.uuid()?),
        epoch: Epoch(world.uuid()?),
        device: DeviceId(world.uuid()?),
        family: TokenFamily(world.uuid()?),
        event: EventId(world.uuid()?),
    })
}

/// All slices of phones.
#[derive(Debug, Clone)]
pub struct LoginDesks(Arc<[Handle<LoginDesk>]>);

impl LoginDesks {
    const SLICES: usize = 8;
    const PLACE: Place = Place {
        caps: Caps {
            commands: 256,
            reads: 0,
        },
        policy: RestartPolicy::ROOT,
    };

    /// Starts a desk for each slice on the current arbiter.
    #[must_use]
    pub fn start(kernel: &Kernel, parts: &LoginParts) -> Self {
        let desk = |_| {
            let parts = parts.clone();
            kernel.start(Self::PLACE, move || LoginDesk {
                parts: parts.clone(),
                codes_sent: 0,
                codes_failed: 0,
                logins: 0,
            })
        };
        Self((0..Self::SLICES).map(desk).collect())
    }

    /// Asks the desk of a phone.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ask<M: Ask>(
        &self,
        phone: &Phone,
        msg: M,
        deadline: Deadline,
    ) -> Result<M::Reply, CallError>
    where
        LoginDesk: Serve<M>,
    {
        let mut hasher = DefaultHasher::new();
        phone.hash(&mut hasher);
        let slice = usize::try_from(hasher.finish() % self.0.len() as u64).unwrap_or(0);
        self.0[slice].ask(msg, deadline).await
    }

    /// Every desk, by the number of its slice.
    #[must_use]
    pub fn all(&self) -> Singles<LoginDesk> {
        let desks = self.0.iter().enumerate();
        Singles(
            desks
                .map(|(n, desk)| (n.to_string(), desk.clone()))
                .collect(),
        )
    }

    pub(in crate::actors) fn is_at_work(&self) -> bool {
        self.0.iter().all(Handle::is_at_work)
    }
}
