//! What to do upon each frame, close and timer, without doing it.
//!
//! Owns the position in the log and the clocks of the connection. The shell (`shell.rs`) tells
//! it what happened and carries out the answers in their order; that order is what keeps events
//! from being lost: print, then save, then acknowledge.

use std::time::{Duration, Instant};

use super::{
    backoff::{Backoff, Wait},
    steps::{Action, Input, Position, Stop},
    wire::{ClientFrame, Event, Resync, ServerFrame, Welcome},
};

const PING_EVERY: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(75);
/// Events that come close together are saved and acknowledged as one.
const SAVE_WITHIN: Duration = Duration::from_millis(200);
const RENEW_BEFORE: Duration = Duration::from_mins(1);
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// Two rejected tokens within this time mean that new tokens do not help.
const TOKEN_TROUBLE: Duration = Duration::from_secs(10);
/// A connection that was given up before its welcome may replace another for so long.
const LATE_ATTACH: Duration = Duration::from_mins(1);
/// A server that asks for a longer pause is taken to be wrong about it.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The rules and what they remember.
#[derive(Debug)]
pub(super) struct Rules {
    position: Position,
    backoff: Backoff,
    token_trouble: Option<Instant>,
    /// When a connection was given up last whose welcome had not come.
    given_up: Option<Instant>,
    link: Option<Link>,
}

/// What is remembered about the open connection.
#[derive(Debug)]
struct Link {
    welcomed: bool,
    heard: Instant,
    ping_at: Instant,
    /// None while new tokens are on their way.
    renew_at: Option<Instant>,
    unsaved_since: Option<Instant>,
    /// The newest event that is not acknowledged yet.
    ack: Option<(u64, String)>,
    replay: Option<Replay>,
    /// The pause that the server asked for when it said goodbye.
    pause: Option<Duration>,
}

/// What the log held when the connection was made.
#[derive(Debug)]
struct Replay {
    to: u64,
    printed: u64,
}

impl Rules {
    pub(super) const fn new(position: Position) -> Self {
        Self {
            position,
            backoff: Backoff::new(),
            token_trouble: None,
            given_up: None,
            link: None,
        }
    }

    pub(super) const fn position(&self) -> &Position {
        &self.position
    }

    /// When to send a [`Input::Tick`], if nothing else happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        let silence = link.heard + SILENCE;
        [
            Some(silence),
            Some(link.ping_at),
            link.renew_at,
            link.unsaved_since.map(|since| since + SAVE_WITHIN),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes note of what happened and says what to do.
    pub(super) fn step(&mut self, now: Instant, input: Input) -> Vec<Action> {
        if matches!(
            input,
            Input::Frame(_) | Input::Unreadable | Input::Heard | Input::Closed { .. }
        ) && let Some(link) = &mut self.link
        {
            link.heard = now;
        }
        match input {
            Input::Opened { token_left } => {
                self.link = Some(Link {
                    welcomed: false,
                    heard: now,
                    ping_at: now + PING_EVERY,
                    renew_at: Some(now + until_renewal(token_left)),
                    unsaved_since: None,
                    ack: None,
                    replay: None,
                    pause: None,
                });
                Vec::new()
            }
            Input::Frame(frame) => self.frame(now, frame),
            Input::Unreadable => say("ignored a frame that is not of the protocol"),
            Input::Heard => Vec::new(),
            Input::Quiet => self.flush(),
            Input::Tick => self.tick(now),
            Input::Renewed { token_left } => {
                let Some(link) = &mut self.link else {
                    return Vec::new();
                };
                link.renew_at = Some(now + until_renewal(token_left));
                vec![Action::SendToken]
            }
            Input::NotRenewed { why, retry_after } => {
                let retry_after = retry_after.map(|pause| pause.min(LONGEST_PAUSE));
                match &mut self.link {
                    Some(link) => {
                        link.renew_at = Some(now + retry_after.unwrap_or(RENEW_AGAIN));
                        say(format!("the token could not be renewed: {why}"))
                    }
                    None => self.again(retry_after, true, why),
                }
            }
            Input::SignedOut { why } => {
                let mut actions = self.flush();
                actions.push(Action::ForgetTokens);
                self.stop(actions, Stop::LogInAgain(why))
            }
            Input::Closed { code, reason } => self.closed(now, code, &reason),
            Input::Lost { why } => self.lost(now, why),
            Input::Refused { status: 401, .. } => self.new_token(now, "the token was refused"),
            Input::Refused {
                why, retry_after, ..
            } => self.again(retry_after, false, why),
            Input::Interrupted => {
                let mut actions = self.flush();
                if self.link.is_some() {
                    actions.push(Action::Close(1000));
                }
                self.stop(actions, Stop::Interrupted)
            }
        }
    }

    fn frame(&mut self, now: Instant, frame: ServerFrame) -> Vec<Action> {
        match frame {
            ServerFrame::Welcome(welcome) => self.welcome(&welcome),
            ServerFrame::Event(event) => self.event(now, event),
            ServerFrame::Resync(resync) => self.resync(resync),
            ServerFrame::Error(error) => say(match error.detail {
                Some(detail) => format!("error {}: {detail}", error.code),
                None => format!("error {}", error.code),
            }),
            ServerFrame::Goodbye(goodbye) => {
                if let Some(link) = &mut self.link {
                    link.pause = goodbye.retry_after_ms.map(Duration::from_millis);
                }
                say(format!("the server says goodbye: {}", goodbye.reason))
            }
            ServerFrame::Pong | ServerFrame::Unknown => Vec::new(),
        }
    }

    fn welcome(&mut self, welcome: &Welcome) -> Vec<Action> {
        self.backoff.reset();
        let mut actions = say(format!(
            "connected as {}: head {}, acknowledged {}",
            welcome.device_id, welcome.head_seq, welcome.acked_seq
        ));
        let adopted = match self.position.epoch.as_ref() {
            None => Some(welcome.acked_seq),
            // The beginning is the same in every epoch: no resync comes.
            Some(known) if self.position.last_seq == 0 && *known != welcome.epoch => Some(0),
            Some(_) => None,
        };
        if let Some(last_seq) = adopted {
            self.position = Position {
                epoch: Some(welcome.epoch.clone()),
                last_seq,
            };
            actions.push(Action::Save);
        }
        // Of another epoch nothing is replayed: a resync follows.
        let behind = self.position.epoch.as_ref() == Some(&welcome.epoch)
            && self.position.last_seq < welcome.head_seq;
        if let Some(link) = &mut self.link {
            link.welcomed = true;
            link.replay = behind.then_some(Replay {
                to: welcome.head_seq,
                printed: 0,
            });
        }
        actions
    }

    fn event(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let Some(link) = &mut self.link else {
            return Vec::new();
        };
        let seq = event.seq;
        let expected = self.position.last_seq.saturating_add(1);
        if seq > expected {
            // An acknowledgement covers everything before it, so one past a hole would give up
            // the events in it. A new connection asks for them again.
            let mut actions = self.flush();
            actions.push(Action::Close(1000));
            let why = format!("expected event {expected}, got {seq}");
            actions.extend(self.again(None, false, why));
            return actions;
        }
        // One that came before is acknowledged again: the server would not send it if it knew.
        if link.ack.as_ref().is_none_or(|(newest, _)| *newest <= seq) {
            link.ack = Some((seq, event.ack_token.clone()));
        }
        if seq < expected {
            return Vec::new();
        }
        self.position.last_seq = seq;
        let since = *link.unsaved_since.get_or_insert(now);
        let mut actions = vec![Action::Print(event)];
        if let Some(replay) = &mut link.replay {
            replay.printed += 1;
            if seq >= replay.to {
                actions.push(Action::Say(format!("replayed {} events", replay.printed)));
                link.replay = None;
            }
        }
        if now.duration_since(since) >= SAVE_WITHIN {
            actions.extend(self.flush());
        }
        actions
    }

    /// There is nothing here to load again, so the head is where this client now is.
    fn resync(&mut self, resync: Resync) -> Vec<Action> {
        self.position = Position {
            epoch: Some(resync.epoch.clone()),
            last_seq: resync.head_seq,
        };
        if let Some(link) = &mut self.link {
            link.unsaved_since = None;
            link.ack = None;
            link.replay = None;
        }
        vec![
            Action::Say(format!(
                "resync ({}): events up to {} cannot be replayed",
                resync.reason, resync.head_seq
            )),
            Action::Save,
            Action::Send(ClientFrame::AckUpTo {
                up_to: resync.head_seq,
                epoch: resync.epoch,
            }),
        ]
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        let Some(link) = &mut self.link else {
            return Vec::new();
        };
        if now >= link.heard + SILENCE {
            let why = format!("nothing was heard for {} s", SILENCE.as_secs());
            return self.lost(now, why);
        }
        let mut actions = Vec::new();
        if link.renew_at.is_some_and(|at| now >= at) {
            link.renew_at = None;
            actions.push(Action::Renew);
        }
        if now >= link.ping_at {
            link.ping_at = now + PING_EVERY;
            actions.push(Action::Send(ClientFrame::Ping));
        }
        if link
            .unsaved_since
            .is_some_and(|since| now >= since + SAVE_WITHIN)
        {
            actions.extend(self.flush());
        }
        actions
    }

    fn closed(&mut self, now: Instant, code: Option<u16>, reason: &str) -> Vec<Action> {
        match code {
            Some(4001) if self.may_be_ours(now) => {
                let why = "replaced, maybe by a connection that was given up here";
                self.again(None, false, why.to_owned())
            }
            Some(4001) => {
                let actions = self.keep();
                self.stop(actions, Stop::Replaced)
            }
            Some(4005) => {
                let mut actions = self.keep();
                actions.push(Action::ForgetTokens);
                self.stop(actions, Stop::Removed)
            }
            Some(4003) => self.new_token(now, "the token expired or was revoked"),
            _ => {
                let why = super::steps::explain(code, reason);
                self.again(None, false, why)
            }
        }
    }

    /// Whether what replaced the connection may be one that was given up, and attached late.
    fn may_be_ours(&self, now: Instant) -> bool {
        self.given_up
            .is_some_and(|at| now.duration_since(at) < LATE_ATTACH)
    }

    /// The connection broke, or could not be made.
    fn lost(&mut self, now: Instant, why: String) -> Vec<Action> {
        if self.link.as_ref().is_none_or(|link| !link.welcomed) {
            self.given_up = Some(now);
        }
        self.again(None, false, why)
    }

    /// Saves what is printed and acknowledges what is saved.
    fn flush(&mut self) -> Vec<Action> {
        let mut actions = self.keep();
        if let Some((_, ack_token)) = self.link.as_mut().and_then(|link| link.ack.take()) {
            actions.push(Action::Send(ClientFrame::Ack { ack_token }));
        }
        actions
    }

    /// Saves what is printed, when nobody is left to tell.
    fn keep(&mut self) -> Vec<Action> {
        let unsaved = self
            .link
            .as_mut()
            .and_then(|link| link.unsaved_since.take());
        unsaved.map(|_| Action::Save).into_iter().collect()
    }

    fn again(&mut self, asked: Option<Duration>, refresh: bool, why: String) -> Vec<Action> {
        let mut actions = self.keep();
        let pause = self.link.take().and_then(|link| link.pause);
        let wait = match asked.or(pause) {
            Some(pause) => Wait::Exactly(pause.min(LONGEST_PAUSE)),
            None => Wait::About(self.backoff.next()),
        };
        actions.push(Action::Again { wait, refresh, why });
        actions
    }

    /// A new token is worth trying at once, but not again and again.
    fn new_token(&mut self, now: Instant, why: &str) -> Vec<Action> {
        let mut actions = self.keep();
        self.link = None;
        let again = self
            .token_trouble
            .replace(now)
            .is_some_and(|last| now.duration_since(last) < TOKEN_TROUBLE);
        let wait = if again {
            Wait::About(self.backoff.next())
        } else {
            Wait::None
        };
        actions.push(Action::Again {
            wait,
            refresh: true,
            why: why.to_owned(),
        });
        actions
    }

    fn stop(&mut self, mut actions: Vec<Action>, stop: Stop) -> Vec<Action> {
        self.link = None;
        actions.push(Action::Stop(stop));
        actions
    }
}

fn say(text: impl Into<String>) -> Vec<Action> {
    vec![Action::Say(text.into())]
}

/// A minute before the token ends; a short-lived one at half its time.
fn until_renewal(token_left: Duration) -> Duration {
    token_left
        .saturating_sub(RENEW_BEFORE.min(token_left / 2))
        .max(Duration::from_secs(1))
}
