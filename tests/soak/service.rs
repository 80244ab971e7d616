//! Another back end: an event for somebody now and then, and one for everybody.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    call::{Again, Caller, Reply},
    ledger::{Asked, Mark},
    shared::{Shared, count},
    support::{Api, Service, client::try_send},
    writer::keyed_fate,
};

/// A broadcast goes on on whichever node is there.
const FINISHED: Duration = Duration::from_secs(30);

/// What a service asked for.
#[derive(Default)]
pub struct Served {
    /// By user.
    pub notes: Vec<(String, Asked)>,
    pub broadcast: Option<String>,
}

/// See the module.
pub struct Notifier {
    pub service: Service,
    pub caller: Caller,
    pub users: Vec<String>,
    /// Between two events.
    pub pace: Duration,
}

impl Notifier {
    pub async fn serve(mut self) -> (Self, Served) {
        let shared = self.caller.shared.clone();
        self.service.api = Api::new(&shared.internal.address, std::path::PathBuf::new());
        let mut served = Served::default();
        for n in 0.. {
            let next = Instant::now() + self.pace;
            while Instant::now() < next && !shared.is_settling() {
                sleep(Duration::from_millis(50)).await;
            }
            if shared.is_settling() || shared.broken().is_some() {
                break;
            }
            // Until one is taken.
            let done = if n >= 2 && served.broadcast.is_none() {
                self.broadcast(&mut served).await
            } else {
                self.note(n, &mut served).await
            };
            if let Err(what) = done {
                self.caller.violated(&what);
                break;
            }
        }
        (self, served)
    }

    async fn note(&mut self, n: u64, served: &mut Served) -> Result<(), String> {
        let user = self.users[self.caller.dice.index(self.users.len())].clone();
        let (path, note) = (format!("/users/{user}/events"), format!("note-{n}"));
        let body = json!({"event_type": "soak.note", "data": {"note": note}});
        let service = self.service.clone();
        let make = || {
            let request = service.request(Method::POST, &path).json(&body);
            request.header("Idempotency-Key", &note)
        };
        let reply = self.caller.call(&note, Again::Yes, make).await?;
        let fate = keyed_fate(&reply);
        let mark = Mark::Service(note);
        served.notes.push((user, Asked { mark, fate }));
        if matches!(reply, Reply::Done { .. }) {
            count(&self.caller.shared.counts.service_events);
        }
        Ok(())
    }

    async fn broadcast(&mut self, served: &mut Served) -> Result<(), String> {
        let body = json!({"event_type": "soak.hello", "data": {"note": "to all"}});
        let service = self.service.clone();
        let make = || {
            let request = service.request(Method::POST, "/events:broadcast");
            request.json(&body).header("Idempotency-Key", "hello")
        };
        let reply = self.caller.call("broadcast", Again::Yes, make).await?;
        if let Reply::Done { answer, .. } = reply {
            self.caller.shared.step("an event for everybody");
            served.broadcast = answer.body["id"].as_str().map(str::to_owned);
        }
        Ok(())
    }

    /// Waits until the broadcast is over: how many users it reached, and how many it left out by quota.
    pub async fn finished(&self, id: &str) -> Result<(u64, u64), String> {
        let begun = Instant::now();
        loop {
            let request = self
                .service
                .request(Method::GET, &format!("/broadcasts/{id}"));
            if let Ok(answer) = try_send(request).await
                && answer.body["state"] == "finished"
            {
                let number = |name: &str| answer.body[name].as_u64().unwrap();
                return Ok((number("reached"), number("skipped")));
            }
            if begun.elapsed() > FINISHED {
                return Err(format!("the broadcast is not over after {FINISHED:?}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The service's task, as it is started.
pub fn notifier(
    service: Service,
    shared: &Arc<Shared>,
    users: Vec<String>,
    seed: u64,
    pace: Duration,
) -> Notifier {
    let by = shared.internal.clone();
    let caller = Caller::new("service", "-", by, shared.clone(), seed, Arc::default());
    Notifier {
        service,
        caller,
        users,
        pace,
    }
}
