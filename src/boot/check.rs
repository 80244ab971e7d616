//! What settings cannot tell by themselves: whether this machine and the files can do what they ask.
//!
//! Looks, and changes nothing, so that a start and `config check` can say all that is wrong at once.

use super::{
    certificate::{CERT, PemFiles},
    files::Files,
};
use crate::{
    domain::clock::World,
    settings::{Finding, ProblemKind, Settings},
    store::{Mode, redis_mode},
};

/// What would stop a start.
#[must_use]
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut found: Vec<Finding> = Files::check(settings).err().into_iter().collect();
    if let Some(files) = PemFiles::of(&settings.server)
        && let Err(mut unusable) = files.read().pair()
    {
        found.append(&mut unusable);
    }
    found.extend(redis(settings));
    found
}

/// A Redis that answers and is none that can be used. One that is away stops nobody.
fn redis(settings: &Settings) -> Option<Finding> {
    let url = settings.redis.url.as_ref()?;
    let mode = redis_mode(url.expose()).filter(|mode| *mode != Mode::Standalone)?;
    Some(Finding {
        key: "redis.url",
        kind: ProblemKind::BadValue,
        found: format!("the address of {}", mode.name()),
        expected: "that of one standalone Redis: Cluster and Sentinel are not supported yet"
            .to_owned(),
    })
}

/// The same, and what a start only warns of, because a server that runs is of more use than one that
/// does not: a certificate that clients refuse today.
#[must_use]
pub fn check_strictly(settings: &Settings) -> Vec<Finding> {
    let mut found = check(settings);
    let pair = PemFiles::of(&settings.server).and_then(|files| files.read().pair().ok());
    let refusal = pair
        .and_then(|pair| pair.validity)
        .and_then(|validity| validity.refusal(World::system().now()));
    if let Some(refusal) = refusal {
        found.push(Finding {
            key: CERT,
            kind: ProblemKind::BadValue,
            found: refusal,
            expected: "one that holds now".to_owned(),
        });
    }
    found
}
