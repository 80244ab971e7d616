//! The half of `tail` that talks to the world: makes connections, tells the rules what happens,
//! and does what they answer, in their order.
//!
//! Decides nothing about the protocol: `rules.rs` does.

use std::{io, pin::Pin, time::Duration};

use futures_util::{FutureExt, StreamExt};
use tokio::time::{sleep, sleep_until, timeout};

use super::{
    api::{Api, ApiError, Grant},
    backoff::Wait,
    error::TailError,
    print::Console,
    rules::Rules,
    socket::{Socket, close, dial, drain, not_dialed, read, send},
    state::Store,
    steps::{Action, Input, Stop},
    wire::{ClientFrame, Secret},
};
use crate::domain::clock::World;

const DIAL_WITHIN: Duration = Duration::from_secs(15);
/// A token with less time than this is renewed before it is used.
const TOKEN_LEAST: Duration = Duration::from_secs(10);
/// Frames taken at once before timers and signals get their turn.
const BURST: usize = 256;

/// Ends when the user wants to stop.
pub(super) type Interrupt = Pin<Box<dyn Future<Output = ()>>>;

type Renewal = Pin<Box<dyn Future<Output = Result<Grant, ApiError>>>>;

/// A logged-in `tail`.
pub(super) struct Shell {
    api: Api,
    store: Store,
    console: Console,
    world: World,
    rules: Rules,
    /// The request for new tokens while the connection goes on.
    renewal: Option<Renewal>,
}

/// What follows a connection, or the attempt at one.
enum Next {
    Again {
        wait: Wait,
        refresh: bool,
        why: String,
    },
    Stop(Stop),
}

impl Shell {
    pub(super) fn new(api: Api, store: Store, console: Console, world: World) -> Self {
        Self {
            rules: Rules::new(store.saved.position.clone()),
            api,
            store,
            console,
            world,
            renewal: None,
        }
    }

    /// Prints events until the user or the server says stop.
    pub(super) async fn follow(mut self, mut interrupt: Interrupt) -> Result<(), TailError> {
        let mut refresh = false;
        loop {
            let next = match self.connect(refresh, &mut interrupt).await? {
                Ok(socket) => self.converse(socket, &mut interrupt).await?,
                Err(next) => next,
            };
            // An unanswered renewal is asked again under its key.
            self.renewal = None;
            match next {
                Next::Again {
                    wait,
                    refresh: r,
                    why,
                } => {
                    refresh = r;
                    let wait = wait.drawn(&self.world);
                    self.console.say(&reconnecting(wait, &why));
                    tokio::select! {
                        () = &mut interrupt => return Ok(()),
                        () = sleep(wait) => {}
                    }
                }
                Next::Stop(Stop::Interrupted) => return Ok(()),
                Next::Stop(Stop::Replaced) => return Err(TailError::Replaced),
                Next::Stop(Stop::Removed) => return Err(TailError::Removed),
                Next::Stop(Stop::LogInAgain(why)) => return Err(TailError::LogInAgain(why)),
            }
        }
    }

    async fn connect(
        &mut self,
        refresh: bool,
        interrupt: &mut Interrupt,
    ) -> Result<Result<Socket, Next>, TailError> {
        // A renewal that was never answered is finished first: the server remembers its key
        // for a while only.
        let stale = self.token_left() < TOKEN_LEAST || self.store.saved.renewal_key.is_some();
        if refresh || stale {
            let renewal = self.start_renewal()?;
            let input = tokio::select! {
                () = &mut *interrupt => Input::Interrupted,
                grant = renewal => self.take_grant(grant)?,
            };
            if !matches!(input, Input::Renewed { .. }) {
                return self.no_socket(input).await.map(Err);
            }
        }
        let position = self.rules.position().clone();
        let input = tokio::select! {
            () = &mut *interrupt => Input::Interrupted,
            dialed = timeout(DIAL_WITHIN, dial(&self.api, self.access(), &position)) => {
                match dialed {
                    Ok(Ok(socket)) => return Ok(Ok(socket)),
                    Ok(Err(error)) => not_dialed(&error),
                    Err(_) => Input::Lost { why: "no answer in time".to_owned() },
                }
            }
        };
        self.no_socket(input).await.map(Err)
    }

    /// What follows `input` when there is no connection.
    async fn no_socket(&mut self, input: Input) -> Result<Next, TailError> {
        let next = self.tell(None, input).await?;
        // Without a connection the rules answer each of these inputs with an end.
        Ok(next.unwrap_or(Next::Stop(Stop::Interrupted)))
    }

    async fn converse(
        &mut self,
        mut socket: Socket,
        interrupt: &mut Interrupt,
    ) -> Result<Next, TailError> {
        let mut input = Input::Opened {
            token_left: self.token_left(),
        };
        loop {
            if let Some(next) = self.tell(Some(&mut socket), input).await? {
                return Ok(next);
            }
            for _ in 0..BURST {
                let Some(frame) = socket.next().now_or_never() else {
                    break;
                };
                let input = read(frame);
                if let Some(next) = self.tell(Some(&mut socket), input).await? {
                    return Ok(next);
                }
            }
            if let Some(next) = self.tell(Some(&mut socket), Input::Quiet).await? {
                return Ok(next);
            }
            let deadline = self.rules.deadline();
            input = tokio::select! {
                // The stream comes last: a busy one must not keep the others waiting.
                biased;
                () = &mut *interrupt => Input::Interrupted,
                () = until(deadline) => Input::Tick,
                grant = answered(&mut self.renewal) => {
                    self.renewal = None;
                    self.take_grant(grant)?
                }
                frame = socket.next() => read(frame),
            };
        }
    }

    /// Tells the rules and does what they say. An end that they name is returned.
    async fn tell(
        &mut self,
        mut socket: Option<&mut Socket>,
        input: Input,
    ) -> Result<Option<Next>, TailError> {
        let closing = matches!(input, Input::Closed { .. });
        let mut actions = self.rules.step(self.world.instant(), input);
        let mut next = None;
        let mut broken = None;
        loop {
            for action in actions {
                match action {
                    Action::Print(event) => self.console.event(&event)?,
                    Action::Say(text) => self.console.say(&text),
                    Action::Save => {
                        self.store.saved.position.clone_from(self.rules.position());
                        self.store.save()?;
                    }
                    Action::Send(frame) => note(&mut broken, send(&mut socket, &frame).await),
                    Action::SendToken => {
                        if let Some(token) = self.access().cloned() {
                            let frame = ClientFrame::Auth { token };
                            note(&mut broken, send(&mut socket, &frame).await);
                        }
                    }
                    Action::Renew => self.renewal = Some(self.start_renewal()?),
                    Action::ForgetTokens => {
                        self.store.saved.tokens = None;
                        self.store.saved.renewal_key = None;
                        self.store.save()?;
                    }
                    Action::Close(code) => close(&mut socket, code).await,
                    Action::Again { wait, refresh, why } => {
                        next = Some(Next::Again { wait, refresh, why });
                    }
                    Action::Stop(stop) => next = Some(Next::Stop(stop)),
                }
            }
            match broken.take() {
                Some(why) if next.is_none() => {
                    actions = self.rules.step(self.world.instant(), Input::Lost { why });
                }
                _ => break,
            }
        }
        if closing {
            drain(&mut socket).await;
        }
        Ok(next)
    }

    fn access(&self) -> Option<&Secret> {
        self.store
            .saved
            .tokens
            .as_ref()
            .map(|tokens| &tokens.access)
    }

    fn token_left(&self) -> Duration {
        let expires_at = self
            .store
            .saved
            .tokens
            .as_ref()
            .map(|t| t.access_expires_at);
        expires_at
            .and_then(|at| (at - self.world.now()).to_std().ok())
            .unwrap_or_default()
    }

    /// Makes the request for new tokens, after its key is on disk.
    fn start_renewal(&mut self) -> Result<Renewal, TailError> {
        let Some(tokens) = &self.store.saved.tokens else {
            return Err(TailError::LogInAgain("no tokens are saved".to_owned()));
        };
        let refresh = tokens.refresh.clone();
        let key = if let Some(key) = &self.store.saved.renewal_key {
            key.clone()
        } else {
            let key = self.world.uuid()?.to_string();
            self.store.saved.renewal_key = Some(key.clone());
            self.store.save()?;
            key
        };
        Ok(Box::pin(self.api.clone().renew(refresh, key)))
    }

    fn take_grant(&mut self, grant: Result<Grant, ApiError>) -> Result<Input, TailError> {
        Ok(match grant {
            Ok(grant) => {
                self.store.saved.tokens = Some(grant.into_tokens(&self.world));
                self.store.saved.renewal_key = None;
                self.store.save()?;
                Input::Renewed {
                    token_left: self.token_left(),
                }
            }
            Err(ApiError::Refused(problem)) if problem.status == 401 => {
                Input::SignedOut { why: problem.code }
            }
            Err(error) => Input::NotRenewed {
                retry_after: match &error {
                    ApiError::Refused(problem) => problem.retry_after,
                    ApiError::Unanswered(_) => None,
                },
                why: error.to_string(),
            },
        })
    }
}

fn reconnecting(wait: Duration, why: &str) -> String {
    if wait.is_zero() {
        format!("reconnecting: {why}")
    } else {
        format!("reconnecting in {:.1} s: {why}", wait.as_secs_f64())
    }
}

/// Keeps the first reason: what fails after it fails for the same.
fn note(broken: &mut Option<String>, sent: Result<(), String>) {
    if let Err(why) = sent {
        broken.get_or_insert(why);
    }
}

async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn answered(renewal: &mut Option<Renewal>) -> Result<Grant, ApiError> {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}

/// Hears Ctrl-C and the polite request to end.
pub(super) fn signals() -> io::Result<Interrupt> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }))
}
