//! One command by REST through the balancer: tried again where that is right, until it is known what
//! became of it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::RequestBuilder;
use tokio::time::Instant;

use crate::{
    balancer::Balancer,
    shared::{Backoff, STEPS, Shared, count},
    support::{Answer, client::try_send, dice::Dice, unique},
};

/// Faults are over long before.
const PATIENCE: Duration = Duration::from_secs(90);

/// What became of a command.
#[derive(Debug)]
pub enum Reply {
    /// Done; by which try it was is known if only one of them could have done it.
    Done { answer: Answer, by_this: bool },
    /// Refused by its own rules. `maybe`: an earlier try may have been taken.
    Refused { maybe: bool },
    /// It was said that nothing was changed, and it was given up.
    Nothing,
    /// It may have been done, and was given up.
    Unknown,
}

/// Whether a command whose outcome nobody knows is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Yes,
    No,
}

/// A call that was answered at the first try while nothing was wrong.
#[derive(Debug, Clone)]
pub struct Timed {
    pub user: String,
    pub seq: u64,
    pub sent: Instant,
    pub node: usize,
}

/// Who calls.
pub struct Caller {
    pub name: String,
    pub user: String,
    pub shared: Arc<Shared>,
    pub dice: Dice,
    pub steps: VecDeque<String>,
    pub timed: Arc<Mutex<Vec<Timed>>>,
    by: Balancer,
}

impl Caller {
    pub fn new(
        name: &str,
        user: &str,
        by: Balancer,
        shared: Arc<Shared>,
        seed: u64,
        timed: Arc<Mutex<Vec<Timed>>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            user: user.to_owned(),
            shared,
            dice: Dice::new(seed),
            steps: VecDeque::new(),
            timed,
            by,
        }
    }

    /// A command. An error: the server answered as it never may.
    pub async fn call(
        &mut self,
        what: &str,
        again: Again,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<Reply, String> {
        let counts = self.shared.clone();
        let counts = &counts.counts;
        let (begun, mut backoff, mut unsure, mut tries) =
            (Instant::now(), Backoff::default(), false, 0);
        loop {
            tries += 1;
            if tries > 1 {
                count(&counts.repeated);
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{what}: not answered within {PATIENCE:?}"));
            }
            let id = unique();
            let (sent, quiet) = (Instant::now(), self.shared.is_quiet());
            let request = make()
                .header("X-Request-ID", &id)
                .header("Connection", "close");
            let answer = try_send(request).await;
            let node = self.by.route(&id);
            let told = answer.as_ref().map_or_else(
                |e| format!("no answer: {e:?}"),
                |a| format!("{} {} {:?}", a.status, a.code(), a.header("sync-seq")),
            );
            self.note(&format!("{what} at node {node:?}: {told}"));
            match answer {
                Ok(answer) if answer.status < 300 => {
                    count(&counts.acknowledged);
                    if let (1, true, Some(node), Some(_)) =
                        (tries, quiet, node, answer.header("sync-seq"))
                    {
                        let timed = Timed {
                            user: self.user.clone(),
                            seq: answer.seq(),
                            sent,
                            node,
                        };
                        self.timed.lock().unwrap().push(timed);
                    }
                    let by_this = !unsure;
                    return Ok(Reply::Done { answer, by_this });
                }
                Ok(answer) if matches!(answer.status, 404 | 409 | 412) || is_quota(&answer) => {
                    count(&counts.refused);
                    let maybe = unsure;
                    return Ok(Reply::Refused { maybe });
                }
                Ok(answer) if answer.status == 503 && is_sure(&answer) => {
                    count(&counts.unchanged);
                    if !unsure && self.dice.below(3) == 0 {
                        return Ok(Reply::Nothing);
                    }
                }
                Ok(answer) if !matches!(answer.status, 503 | 504) => {
                    return Err(format!("{what}: {answer:#?}"));
                }
                // No answer, or one that says that nobody knows.
                _ => {
                    count(&counts.unsure);
                    if again == Again::No {
                        count(&counts.unknown);
                        return Ok(Reply::Unknown);
                    }
                    unsure = true;
                }
            }
            backoff.wait().await;
        }
    }

    pub fn note(&mut self, what: &str) {
        self.steps.push_back(format!("{} {what}", self.shared.at()));
        if self.steps.len() > STEPS {
            self.steps.pop_front();
        }
    }

    pub fn violated(&self, what: &str) {
        let Self { name, user, .. } = self;
        let what = format!("the writer {name} of user {user}: {what}");
        self.shared.violated(&what, &self.steps);
    }
}

fn is_quota(answer: &Answer) -> bool {
    answer.code() == "quota_exceeded"
}

/// Whether it says that nothing was changed.
fn is_sure(answer: &Answer) -> bool {
    !matches!(answer.code(), "session_restarting" | "outcome_unknown")
}
