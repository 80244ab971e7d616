//! What must hold in every state, and what must be reached in some.

use stateright::Property;

use super::{config::Config, model::Session, state::State};

/// Something that must hold. The rules are judged where things happen, and a state remembers which
/// of them its last step broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    InOrder,
    OneLife,
    AsTheLog,
    NotAgain,
    WithinWindow,
    QuietAfterResync,
    OneResync,
    NoErrorForTheHonest,
    CursorBehindClient,
    CursorForward,
    OnlyTheNewest,
    OneConnection,
    OneRead,
    NotInVain,
    NoReloadInCalm,
}

/// The rules that the last step broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Broken(u16);

impl Broken {
    pub const fn unless(&mut self, holds: bool, rule: Rule) {
        if !holds {
            self.0 |= 1 << rule as u16;
        }
    }

    pub const fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u16) != 0
    }

    pub const fn any(self) -> bool {
        self.0 != 0
    }
}

macro_rules! always {
    ($($name:literal = $rule:ident),+ $(,)?) => {
        vec![$(Property::<Session>::always($name, |_, state: &State| {
            !state.broken.has(Rule::$rule)
        })),+]
    };
}

/// The properties that every run is checked for.
pub fn properties(config: &Config) -> Vec<Property<Session>> {
    let mut all = always![
        "a client gets events in order, without a gap" = InOrder,
        "a client gets events of the life that it was told of" = OneLife,
        "an event is what the log has at its place" = AsTheLog,
        "nothing that is acked is sent again unless the client asks" = NotAgain,
        "what is in flight is within the window" = WithinWindow,
        "after a resync nothing is sent until it is acked" = QuietAfterResync,
        "a resync is not repeated before it is acked" = OneResync,
        "a client that keeps to the protocol gets no error" = NoErrorForTheHonest,
        "a cursor is not beyond what its client has applied" = CursorBehindClient,
        "a cursor moves forward only" = CursorForward,
        "a replaced connection moves no cursor" = OnlyTheNewest,
        "a session has one connection of a device" = OneConnection,
        "a session reads one thing at a time for a device" = OneRead,
        "what was read is not read again at once" = NotInVain,
        "nobody loads anew where nothing was cut off or restored" = NoReloadInCalm,
    ];
    all.push(Property::always(
        "when nothing is under way every device has everything",
        |model: &Session, state: &State| !model.is_at_rest(state) || state.is_settled(),
    ));
    if config.settle {
        all.push(Property::always(
            "from every state all comes to rest",
            Session::comes_to_rest,
        ));
    }
    all.extend(reached(config));
    all
}

/// What must happen in some run, for the rules to mean something.
fn reached(config: &Config) -> Vec<Property<Session>> {
    let left = config.left;
    let mut some = vec![Property::<Session>::sometimes(
        "every event is delivered, acked and stored",
        |model, state| state.left.commits == 0 && model.is_at_rest(state) && state.is_settled(),
    )];
    if left.breaks > 0 {
        some.push(Property::sometimes(
            "a connection is replaced",
            |_, state: &State| state.replaced(),
        ));
    }
    if left.session_crashes > 0 {
        some.push(Property::sometimes(
            "a connection attaches again",
            |_, state: &State| state.attaches_again(),
        ));
    }
    if left.trims > 0 || left.lives_change() {
        some.push(Property::sometimes(
            "a client is told to load anew",
            |_, state: &State| state.resyncs(),
        ));
    }
    some
}
