//! What was asked for and what was answered, to be compared with the log.

/// What became of something that leaves its own mark in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there exactly once; with the position if the answer tells it.
    Once(Option<u64>),
    /// It is there once at most.
    Perhaps,
    /// It is not there.
    Never,
}

/// A command's mark: what finds its event among all.
#[derive(Debug, Clone)]
pub enum Mark {
    /// `playlist.created` with this name, or `playlist.updated` to it.
    Named(&'static str, String),
    /// These songs are in a playlist, each with one entry.
    Songs(Vec<String>),
    /// A play.
    Play(String),
    /// `history.cleared` by this device; told apart by the position alone.
    Cleared,
    /// A change of this playlist by this device, of this type; told apart by the position alone.
    Changed(&'static str, String),
    /// This device became the active one.
    Activated(String),
    /// An event of a service.
    Service(String),
}

#[derive(Debug, Clone)]
pub struct Asked {
    pub mark: Mark,
    pub fate: Fate,
}

/// What one writer asked for.
#[derive(Debug, Default)]
pub struct Ledger {
    pub user: String,
    pub device: String,
    pub asked: Vec<Asked>,
    /// For each favorite of this writer's alone: the events that must be there, in this order. `false`:
    /// the last one may be.
    pub favorites: std::collections::BTreeMap<String, Vec<(&'static str, Fate)>>,
    /// How often each type of event was asked for at most.
    pub at_most: std::collections::BTreeMap<&'static str, u64>,
}

impl Ledger {
    pub fn ask(&mut self, mark: Mark, fate: Fate) {
        self.asked.push(Asked { mark, fate });
    }

    /// A command that may make an event of this type.
    pub fn may(&mut self, event_type: &'static str) {
        *self.at_most.entry(event_type).or_default() += 1;
    }
}
